//! Streams: queues of work, and who runs it when.
//!
//! An operation runs when it is at the head of its stream and everything it depends on (events,
//! the legacy default stream) is complete. In eager mode the thread that enqueues it tries at once,
//! and a helper thread picks up what could not run then. In the other modes nothing runs until
//! somebody waits for it; then only what is needed runs, so that work that is not ordered by the
//! program runs in the least convenient order. Which order that is depends on the missing wait: in
//! deferred mode a stream runs until it has to wait for another, in ahead mode the streams that it
//! will wait for run before it does.
//!
//! An operation may answer [`Outcome::NotReady`] (a collective whose other ranks are not there yet).
//! It stays at the head and is asked again; meanwhile other collectives of the process may run.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, MutexGuard, Once};
use std::time::Duration;

use crate::config::{config, StreamMode};
use crate::error::{report, CuError, CuResult};
use crate::state::{lock, Handle, State, CHANGED};

pub(crate) enum Outcome {
    Done,
    NotReady,
    /// The context becomes unusable.
    Failed(CuError, String),
}

/// What an operation does. It runs without the state lock, possibly more than once (graphs).
pub(crate) type Work = Arc<dyn Fn() -> Outcome + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Operation {
    pub label: &'static str,
    pub work: Work,
    /// (stream, position) pairs that must be complete first.
    pub dependencies: Vec<(Handle, u64)>,
    /// May answer `NotReady`: a collective, or a host function.
    pub collective: bool,
}

impl Operation {
    pub(crate) fn new(
        label: &'static str,
        work: impl Fn() -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Operation {
            label,
            work: Arc::new(work),
            dependencies: Vec::new(),
            collective: false,
        }
    }

    /// An operation that only waits.
    pub(crate) fn wait_for(dependencies: Vec<(Handle, u64)>) -> Self {
        Operation {
            dependencies,
            ..Operation::new("wait", || Outcome::Done)
        }
    }
}

pub(crate) struct Stream {
    pub context: Handle,
    /// Takes part in the implicit ordering with the legacy default stream.
    pub blocking: bool,
    pub is_null: bool,
    pub priority: i32,
    pub destroyed: bool,
    /// Graph being captured.
    pub capture: Option<Handle>,
    queue: VecDeque<Operation>,
    pub submitted: u64,
    pub completed: u64,
    running: bool,
    stalled: bool,
}

impl Stream {
    pub(crate) fn new(context: Handle, blocking: bool) -> Self {
        Stream {
            context,
            blocking,
            is_null: false,
            priority: 0,
            destroyed: false,
            capture: None,
            queue: VecDeque::new(),
            submitted: 0,
            completed: 0,
            running: false,
            stalled: false,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.running
    }
}

/// What stands between a stream and its next step.
enum Next {
    /// Run the head of this stream (the one asked about, or one it depends on).
    Run(Handle),
    /// Another thread is at it.
    Busy,
    /// A collective waits for other ranks.
    Stalled,
    Idle,
}

impl State {
    pub(crate) fn is_complete(&self, (stream, position): (Handle, u64)) -> bool {
        self.streams
            .get(&stream)
            .is_none_or(|s| s.completed >= position)
    }

    fn next_step(&self, stream: Handle, seen: &mut HashSet<Handle>) -> Next {
        let Some(s) = self.streams.get(&stream) else {
            return Next::Idle;
        };
        if s.running || !seen.insert(stream) {
            return Next::Busy;
        }
        let Some(head) = s.queue.front() else {
            return Next::Idle;
        };
        for &dependency in &head.dependencies {
            if !self.is_complete(dependency) {
                return self.next_step(dependency.0, seen);
            }
        }
        if s.stalled {
            return Next::Stalled;
        }
        if config().streams == StreamMode::Ahead {
            let later = s.queue.iter().flat_map(|o| &o.dependencies);
            for dependency in later.filter(|&&d| !self.is_complete(d)) {
                let next = self.next_step(dependency.0, &mut seen.clone());
                if let Next::Run(other) = next {
                    return Next::Run(other);
                }
            }
        }
        Next::Run(stream)
    }

    /// Adds an operation; returns its position in the stream.
    pub(crate) fn enqueue(&mut self, stream: Handle, mut operation: Operation) -> CuResult<u64> {
        let Some(s) = self.streams.get(&stream) else {
            return Err(crate::error::INVALID_HANDLE);
        };
        if !matches!(operation.label, "event" | "wait") {
            self.check(s.context)?;
        }
        if let Some(graph) = s.capture {
            if let Some(graph) = self.graphs.get_mut(&graph) {
                graph.operations.push(operation);
            }
            return Ok(0);
        }
        let (context, is_null) = (s.context, s.is_null);
        if is_null {
            let others = self.streams.iter();
            let others = others.filter(|(&h, o)| o.context == context && o.blocking && h != stream);
            operation
                .dependencies
                .extend(others.map(|(&h, o)| (h, o.submitted)));
        } else if s.blocking {
            let null = self.contexts[&context].null_stream;
            if let Some(null_stream) = self.streams.get(&null) {
                operation.dependencies.push((null, null_stream.submitted));
            }
        }
        let state: &State = self;
        operation.dependencies.retain(|&d| !state.is_complete(d));
        let Some(s) = self.streams.get_mut(&stream) else {
            return Err(crate::error::INVALID_HANDLE);
        };
        s.queue.push_back(operation);
        s.submitted += 1;
        let position = s.submitted;
        CHANGED.notify_all();
        Ok(position)
    }

    /// A collective at the head of some stream, or behind work that can run.
    fn runnable_collective(&self) -> Option<Handle> {
        let has_collective = |s: &Stream| s.queue.iter().any(|o| o.collective);
        let streams = self.streams.iter().filter(|(_, s)| has_collective(s));
        streams
            .filter_map(|(&h, _)| match self.next_step(h, &mut HashSet::new()) {
                Next::Run(stream) => Some(stream),
                _ => None,
            })
            .min()
    }

    fn clear_stalls(&mut self) {
        self.streams.values_mut().for_each(|s| s.stalled = false);
    }
}

type Guard = MutexGuard<'static, State>;

/// Runs the operation at the head of a stream.
fn run_head(mut state: Guard, stream: Handle) -> Guard {
    let Some(s) = state.streams.get_mut(&stream) else {
        return state;
    };
    let Some(operation) = s.queue.front().cloned() else {
        return state;
    };
    let context = s.context;
    s.running = true;
    // After an asynchronous error the rest of the work is dropped, as on a device.
    let dead = state.check(context).is_err();
    drop(state);
    let outcome = if dead {
        Outcome::Done
    } else {
        (operation.work)()
    };
    if config().trace && !matches!(outcome, Outcome::NotReady) {
        report!("stream {stream:#x} ran {}", operation.label);
    }
    let mut state = lock();
    if let Outcome::Failed(error, message) = &outcome {
        report!("{message}");
        state.fail(context, *error);
    }
    if let Some(s) = state.streams.get_mut(&stream) {
        s.running = false;
        match outcome {
            Outcome::NotReady => s.stalled = true,
            _ => {
                s.queue.pop_front();
                s.completed += 1;
                if s.destroyed && s.queue.is_empty() {
                    state.streams.remove(&stream);
                }
            }
        }
    }
    CHANGED.notify_all();
    state
}

fn wait(state: Guard, microseconds: u64) -> Guard {
    let timeout = Duration::from_micros(microseconds);
    let waited = CHANGED.wait_timeout(state, timeout);
    waited.unwrap_or_else(|e| e.into_inner()).0
}

/// Runs work until the stream has completed the position.
pub(crate) fn drive(stream: Handle, position: u64) {
    let mut state = lock();
    while !state.is_complete((stream, position)) {
        state = match state.next_step(stream, &mut HashSet::new()) {
            Next::Run(head) => run_head(state, head),
            Next::Busy => wait(state, 2000),
            Next::Idle => return,
            Next::Stalled => match state.runnable_collective() {
                Some(other) => run_head(state, other),
                None => {
                    let mut state = wait(state, 100);
                    state.clear_stalls();
                    state
                }
            },
        };
    }
}

/// Runs at most one operation towards the position; returns whether it is complete.
pub(crate) fn poke(stream: Handle, position: u64) -> bool {
    let mut state = lock();
    if state.is_complete((stream, position)) {
        return true;
    }
    match state.next_step(stream, &mut HashSet::new()) {
        Next::Run(head) => state = run_head(state, head),
        Next::Stalled => state.clear_stalls(),
        Next::Busy | Next::Idle => {}
    }
    state.is_complete((stream, position))
}

/// Called after work was added: runs it now, if that is the mode.
pub(crate) fn after_enqueue(stream: Handle) {
    if config().streams != StreamMode::Eager {
        return;
    }
    let mut state = lock();
    loop {
        match state.next_step(stream, &mut HashSet::new()) {
            Next::Run(head) => state = run_head(state, head),
            Next::Idle => return,
            Next::Busy | Next::Stalled => break,
        }
    }
    start_helper();
}

/// Eager mode: a thread for work that could not run when it was enqueued.
fn start_helper() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let mut state = lock();
            loop {
                let streams: Vec<Handle> = state.streams.keys().copied().collect();
                let step = |h: &Handle| match state.next_step(*h, &mut HashSet::new()) {
                    Next::Run(head) => Some(head),
                    _ => None,
                };
                if let Some(head) = streams.iter().find_map(step) {
                    state = run_head(state, head);
                    continue;
                }
                let idle = state.streams.values().all(Stream::is_idle);
                state = wait(state, if idle { 100_000 } else { 200 });
                state.clear_stalls();
            }
        });
    });
}

/// Enqueues on a stream handle of the program and starts it if possible. Returns (stream, position).
pub(crate) fn submit(stream: Handle, operation: Operation) -> CuResult<(Handle, u64)> {
    let mut state = lock();
    let stream = state.stream(stream)?;
    let position = state.enqueue(stream, operation)?;
    drop(state);
    after_enqueue(stream);
    Ok((stream, position))
}

/// Waits for everything submitted to the streams of a context.
pub(crate) fn drain_context(context: Handle) {
    let state = lock();
    let streams = state.streams.iter().filter(|(_, s)| s.context == context);
    let mut targets: Vec<(Handle, u64)> = streams.map(|(&h, s)| (h, s.submitted)).collect();
    drop(state);
    targets.sort_unstable();
    for (stream, position) in targets {
        drive(stream, position);
    }
}

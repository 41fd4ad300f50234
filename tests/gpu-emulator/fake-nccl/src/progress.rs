//! A task: the operations of one group on one communicator and stream, and how they advance.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::collective::{Collective, CollectiveState};
use crate::comm::{timeout, Comm};
use crate::driver::driver;
use crate::inject::{self, Action};
use crate::p2p::{Message, MessageState};
use crate::result::{failure, report, Failure, NcclError, NcclResult};
use crate::shm;

/// Outcome of one attempt to advance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Done,
    Moved,
    Waiting,
}

pub(crate) enum Part {
    Collective(Collective),
    Send(Message),
    Receive(Message),
}

impl Part {
    fn describe(&self) -> String {
        match self {
            Part::Collective(c) => c.describe(),
            Part::Send(m) => format!("Send({} bytes to rank {})", m.bytes, m.peer),
            Part::Receive(m) => format!("Recv({} bytes from rank {})", m.bytes, m.peer),
        }
    }

    /// The range that is written: (address, bytes).
    fn output(&self, comm: &Comm) -> (u64, usize) {
        match self {
            Part::Collective(c) => c.output(comm),
            Part::Send(_) => (0, 0),
            Part::Receive(m) => (m.buffer, m.bytes),
        }
    }

    fn input(&self, comm: &Comm) -> (u64, usize) {
        match self {
            Part::Collective(c) => c.input(comm),
            Part::Send(m) => (m.buffer, m.bytes),
            Part::Receive(_) => (0, 0),
        }
    }
}

#[derive(Default)]
struct PartState {
    done: bool,
    collective: CollectiveState,
    message: MessageState,
}

#[derive(Default)]
struct State {
    started: bool,
    finished: bool,
    /// Injected stall: until when (or for ever).
    stalled: Option<Option<Instant>>,
    last_progress: Option<Instant>,
    last_liveness_check: Option<Instant>,
    parts: Vec<PartState>,
}

pub(crate) struct Task {
    pub comm: Arc<Comm>,
    /// Place in the order of operations; `None` for a captured task, which may run many times.
    pub ticket: Option<u64>,
    pub parts: Vec<Part>,
    state: Mutex<State>,
}

impl Task {
    pub(crate) fn new(comm: Arc<Comm>, ticket: Option<u64>, parts: Vec<Part>) -> Self {
        Task {
            comm,
            ticket,
            parts,
            state: Mutex::default(),
        }
    }

    /// Called by the driver when the stream gets here: 0 done, 1 call again, -1 the context is lost.
    fn step(&self) -> c_int {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        match self.advance(&mut state) {
            Ok(Status::Done) => self.finish(&mut state),
            Ok(_) => return 1,
            Err(failure) => {
                if !self.comm.aborted.load(Ordering::Acquire) {
                    self.comm.fail(&failure);
                }
                let illegal = failure.code == NcclError::UnhandledCuda;
                if !illegal {
                    self.poison();
                }
                self.finish(&mut state);
                if illegal {
                    return -1;
                }
            }
        }
        0
    }

    fn finish(&self, state: &mut State) {
        self.comm.slot().waiting.store(0, Ordering::Release);
        *state = State::default();
        if self.ticket.is_some() {
            state.finished = true;
            self.comm.note_finished();
            self.comm.finished.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What was to be received becomes NaN.
    fn poison(&self) {
        for part in &self.parts {
            let (address, bytes) = part.output(&self.comm);
            let valid = driver().is_ok_and(|d| d.check(address, bytes).is_ok());
            if bytes > 0 && valid {
                // SAFETY: the range was just checked.
                unsafe { (address as *mut u8).write_bytes(0xff, bytes) };
            }
        }
    }

    fn start(&self, state: &mut State) -> NcclResult {
        state.started = true;
        state
            .parts
            .resize_with(self.parts.len(), PartState::default);
        let number = self.comm.started.fetch_add(1, Ordering::AcqRel) + 1;
        let rank = self.comm.rank;
        match inject::action(rank, number) {
            Some(Action::Die) => {
                report!("injected death of rank {rank} at operation {number}");
                // SAFETY: ends the process without any cleanup, which is the point.
                unsafe { libc::_exit(70) };
            }
            Some(Action::Stall(time)) => {
                report!("injected stall of rank {rank} at operation {number}");
                state.stalled = Some(time.map(|t| Instant::now() + t));
            }
            Some(Action::Error) => {
                let message = format!("injected error at operation {number} of rank {rank}");
                return Err(failure(NcclError::Internal, message));
            }
            None => {}
        }
        for part in &self.parts {
            for (address, bytes) in [part.input(&self.comm), part.output(&self.comm)] {
                driver()?.check(address, bytes).map_err(|why| {
                    failure(
                        NcclError::UnhandledCuda,
                        format!("rank {rank}: {}: {why}", part.describe()),
                    )
                })?;
            }
        }
        Ok(())
    }

    fn advance(&self, state: &mut State) -> NcclResult<Status> {
        if self.comm.aborted.load(Ordering::Acquire) {
            return Err(failure(NcclError::Internal, "aborted"));
        }
        self.comm.check()?;
        if !state.started {
            if self
                .ticket
                .is_some_and(|t| self.comm.finished.load(Ordering::Acquire) != t)
            {
                return Ok(Status::Waiting);
            }
            self.start(state)?;
        }
        if let Some(until) = state.stalled {
            let failed = |s: &shm::RankSlot| s.state.load(Ordering::Acquire) == shm::FAILED;
            if self.comm.segment.slots().iter().any(failed) {
                return Err(remote("the other ranks have given up".into()));
            }
            if until.is_none_or(|t| Instant::now() < t) {
                return Ok(Status::Waiting);
            }
            state.stalled = None;
        }
        loop {
            let mut moved = false;
            let mut collective_waits = false;
            // Only the first unfinished message to (or from) each peer may advance.
            let mut busy_peers = Vec::new();
            for (part, progress) in self.parts.iter().zip(&mut state.parts) {
                if progress.done {
                    continue;
                }
                let status = match part {
                    Part::Collective(_) if collective_waits => Status::Waiting,
                    Part::Collective(c) => c.advance(&self.comm, &mut progress.collective)?,
                    Part::Send(m) if busy_peers.contains(&(true, m.peer)) => Status::Waiting,
                    Part::Receive(m) if busy_peers.contains(&(false, m.peer)) => Status::Waiting,
                    Part::Send(m) => m.advance_send(&self.comm, &mut progress.message)?,
                    Part::Receive(m) => m.advance_receive(&self.comm, &mut progress.message)?,
                };
                progress.done = status == Status::Done;
                moved |= status != Status::Waiting;
                if status != Status::Done {
                    match part {
                        Part::Collective(_) => collective_waits = true,
                        Part::Send(m) => busy_peers.push((true, m.peer)),
                        Part::Receive(m) => busy_peers.push((false, m.peer)),
                    }
                }
            }
            if state.parts.iter().all(|p| p.done) {
                return Ok(Status::Done);
            }
            if moved {
                state.last_progress = Some(Instant::now());
                continue;
            }
            self.comm.slot().waiting.store(1, Ordering::Release);
            self.check_peers(state)?;
            return Ok(Status::Waiting);
        }
    }

    /// The ranks that hold up the first unfinished part.
    fn missing(&self, state: &State) -> (String, Vec<usize>) {
        let unfinished = self.parts.iter().zip(&state.parts).find(|(_, p)| !p.done);
        match unfinished {
            Some((part @ Part::Collective(c), p)) => {
                (part.describe(), c.missing(&self.comm, &p.collective))
            }
            Some((part @ (Part::Send(m) | Part::Receive(m)), _)) => (part.describe(), vec![m.peer]),
            None => (String::new(), Vec::new()),
        }
    }

    /// Gives up when a rank we wait for has failed, left, died, or is too late.
    fn check_peers(&self, state: &mut State) -> NcclResult {
        let now = Instant::now();
        let waited = now - *state.last_progress.get_or_insert(now);
        let recently = |t: Instant| now - t < std::time::Duration::from_millis(20);
        if state.last_liveness_check.is_some_and(recently) && waited < timeout() {
            return Ok(());
        }
        state.last_liveness_check = Some(now);
        let (what, missing) = self.missing(state);
        let rank = self.comm.rank;
        for &peer in &missing {
            let slot = self.comm.segment.slot(peer);
            let pid = slot.pid.load(Ordering::Acquire);
            let why = match slot.state.load(Ordering::Acquire) {
                shm::FAILED => "has failed or aborted",
                shm::LEFT => "has destroyed the communicator",
                _ if shm::process_is_gone(pid) => "is gone: its process has ended",
                _ => continue,
            };
            return Err(remote(format!(
                "rank {rank} in {what}: rank {peer} (process {pid}) {why}"
            )));
        }
        if waited < timeout() {
            return Ok(());
        }
        let entered = |r: &usize| {
            let slot = self.comm.segment.slot(*r);
            format!(
                "rank {r} (which has entered {} collectives)",
                shm::load(&slot.entered)
            )
        };
        let names: Vec<String> = missing.iter().map(entered).collect();
        let seconds = waited.as_secs_f32();
        let own = shm::load(&self.comm.slot().entered);
        Err(remote(format!(
            "rank {rank} waited {seconds:.1} s in {what}, collective {own} of this communicator, for {}",
            names.join(", ")
        )))
    }
}

fn remote(message: String) -> Failure {
    failure(NcclError::Remote, message)
}

impl Drop for Task {
    fn drop(&mut self) {
        let finished = self
            .state
            .get_mut()
            .unwrap_or_else(|e| e.into_inner())
            .finished;
        if self.ticket.is_some() && !finished {
            self.comm.fail(&failure(
                NcclError::UnhandledCuda,
                format!(
                    "rank {}: an operation was dropped, its CUDA context has failed",
                    self.comm.rank
                ),
            ));
        }
    }
}

/// [`Task::step`] for the driver.
pub(crate) unsafe extern "C" fn step(data: *mut c_void) -> c_int {
    let task = &*data.cast::<Task>();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.step())).unwrap_or(-1)
}

pub(crate) unsafe extern "C" fn release(data: *mut c_void) {
    drop(Box::from_raw(data.cast::<Task>()));
}

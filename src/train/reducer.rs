//! What talks to the other ranks while this rank computes: a thread of its own, where that helps.
//!
//! The compute thread hands over jobs and goes on; the reducer runs them in order, so that every
//! rank's collectives come in the same order and all calls of a transport come from one thread.
//! Where a second thread would only take turns with compute on the same processor
//! ([`Communicator::overlaps`]), the compute thread runs the jobs itself, once it waits for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::backend::{Fence, Region};
use crate::comm::{Algorithm, CommError, Communicator, Span};

/// Jobs that may wait in line before `submit` waits for the first of them.
const LINE: usize = 4096;

/// How long the thread is idle before it looks after what is queued on a device.
const IDLE: Duration = Duration::from_millis(20);

/// How often a waiter looks before it sleeps; a look costs a yield.
const LOOKS: usize = 200;

/// A collective to run.
pub enum Job {
    /// Sum over all ranks.
    AllReduce(Span),
    /// Sum over all ranks, this rank's piece only.
    ReduceScatter(Span),
    /// Spread the pieces.
    AllGather(Span),
    /// Begin nothing of what follows before this point in the backend's queue.
    After(Fence),
    /// Tell the others that this rank gives up; runs even after a failure.
    Abort(String),
    /// Go on with another communicator, made from the one there is.
    Wrap(Wrap),
    /// Anything else, for set-up and the end of a run: it allocates.
    Call(Call),
}

/// Work with the communicator itself.
pub type Call = Box<dyn FnOnce(&mut dyn Communicator) -> Result<(), CommError> + Send>;

/// Makes a communicator around another. One that fails has told the other ranks.
pub type Wrap =
    Box<dyn FnOnce(Box<dyn Communicator>) -> Result<Box<dyn Communicator>, CommError> + Send>;

/// The compute side: hands jobs over, or runs them itself where a thread would gain nothing.
pub struct Reducer {
    rank: usize,
    world: usize,
    submitted: u64,
    waited: Duration,
    progress: Arc<Progress>,
    lane: Lane,
}

enum Lane {
    Inline(Inline),
    Thread(SyncSender<Job>),
}

/// The communicator on the compute thread, with the jobs that nobody has waited for yet.
struct Inline {
    /// `None` only after a job that could not replace it, and while it is dropped.
    communicator: Option<Box<dyn Communicator>>,
    line: VecDeque<Job>,
    /// Where the communicator goes in the end: the [`Connection`] may have a failure to tell.
    home: SyncSender<Box<dyn Communicator>>,
}

impl Inline {
    /// Runs the job that is first in line; `None` where there is none: one before it panicked.
    fn run_next(&mut self, progress: &Progress) -> Option<()> {
        let job = self.line.pop_front()?;
        progress.run(job, &mut self.communicator);
        Some(())
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        if let Some(communicator) = self.communicator.take() {
            // Nobody may be left to tell anything.
            let _ = self.home.send(communicator);
        }
    }
}

/// Holds the way to the other ranks open until the rank is done, however it ends.
pub struct Connection {
    end: End,
}

enum End {
    Inline(Receiver<Box<dyn Communicator>>),
    Thread {
        jobs: SyncSender<Job>,
        thread: JoinHandle<()>,
    },
}

impl Connection {
    /// Ends the rank's part; a failure is told to the other ranks first. Jobs that nobody waited for
    /// may not have run. The rank's [`Reducer`] must be gone.
    pub fn close(self, failure: Option<&str>) {
        match self.end {
            End::Inline(communicator) => {
                if let (Some(reason), Ok(mut communicator)) = (failure, communicator.try_recv()) {
                    communicator.abort(reason);
                }
            }
            End::Thread { jobs, thread } => {
                if let Some(reason) = failure {
                    // A thread that is gone has said so already.
                    let _ = jobs.send(Job::Abort(reason.to_owned()));
                }
                drop(jobs);
                // A panic there has been reported by whoever waited.
                let _ = thread.join();
            }
        }
    }
}

struct Progress {
    completed: AtomicU64,
    failure: Mutex<Option<CommError>>,
    waiter: Thread,
}

impl Progress {
    /// Runs a job, unless one before it failed: the ranks no longer agree on what comes next.
    fn run(&self, job: Job, communicator: &mut Option<Box<dyn Communicator>>) {
        let result = match (&job, self.failure()) {
            (Job::Abort(_), _) | (_, None) => run(job, communicator),
            (_, Some(_)) => Ok(()),
        };
        self.finish(result);
    }

    fn finish(&self, result: Result<(), CommError>) {
        if let Err(error) = result {
            self.fail(error);
        }
        self.completed.fetch_add(1, Ordering::Release);
        self.waiter.unpark();
    }

    fn fail(&self, error: CommError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    /// Nothing more will be completed.
    fn lose(&self, error: CommError) {
        self.finish(Err(error));
        self.completed.store(u64::MAX, Ordering::Release);
        self.waiter.unpark();
    }

    fn failure(&self) -> Option<CommError> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Reducer {
    /// Connects on the thread that will make all calls; `connect` is collective. The calling thread
    /// is the one that will wait for jobs; it closes the connection when the rank is done.
    pub fn start<C>(connect: C) -> Result<(Self, Connection), CommError>
    where
        C: FnOnce() -> Result<Box<dyn Communicator>, CommError> + Send + 'static,
    {
        let progress = Arc::new(Progress {
            completed: AtomicU64::new(0),
            failure: Mutex::new(None),
            waiter: thread::current(),
        });
        let (jobs, line) = sync_channel::<Job>(LINE);
        let (hello, greeting) = sync_channel(1);
        let theirs = Arc::clone(&progress);
        let name = thread::current()
            .name()
            .map_or_else(|| "reduce".to_owned(), |name| format!("{name}-reduce"));
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || {
                let communicator = match connect() {
                    Ok(communicator) => communicator,
                    Err(error) => {
                        // The receiver waits for exactly this.
                        let _ = hello.send(Err(error));
                        return;
                    }
                };
                let facts = (communicator.rank(), communicator.world());
                if !communicator.overlaps() && !communicator.is_thread_bound() {
                    let _ = hello.send(Ok((facts, Some(communicator))));
                    return;
                }
                let _ = hello.send(Ok((facts, None)));
                let mut communicator = Some(communicator);
                let _lost = LoseOnPanic {
                    progress: &theirs,
                    rank: facts.0,
                };
                loop {
                    match line.recv_timeout(IDLE) {
                        Ok(job) => theirs.run(job, &mut communicator),
                        Err(RecvTimeoutError::Disconnected) => break,
                        Err(RecvTimeoutError::Timeout) => {
                            if theirs.failure().is_none()
                                && let Some(communicator) = &mut communicator
                                && let Err(error) = communicator.poll()
                            {
                                theirs.fail(error);
                            }
                        }
                    }
                }
            })
            .map_err(|error| CommError::Transport {
                operation: "start of the reducer thread",
                rank: 0,
                problem: error.to_string(),
            })?;
        let gone = || CommError::Transport {
            operation: "start of the reducer thread",
            rank: 0,
            problem: "it panicked".to_owned(),
        };
        let ((rank, world), communicator) = greeting.recv().map_err(|_| gone())??;
        let (lane, end) = match communicator {
            Some(communicator) => {
                let (home, end) = sync_channel(1);
                let inline = Inline {
                    communicator: Some(communicator),
                    line: VecDeque::with_capacity(LINE),
                    home,
                };
                (Lane::Inline(inline), End::Inline(end))
            }
            None => (Lane::Thread(jobs.clone()), End::Thread { jobs, thread }),
        };
        let waited = Duration::ZERO;
        let reducer = Self {
            rank,
            world,
            submitted: 0,
            waited,
            progress,
            lane,
        };
        Ok((reducer, Connection { end }))
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn world(&self) -> usize {
        self.world
    }

    /// What runs underneath, and whether that is in the host's memory what GPUs compute. Ranks that cannot
    /// share a region turn to messages for it and all that follow.
    ///
    /// # Errors
    /// If a collective has failed.
    pub fn algorithm(&mut self) -> Result<(Algorithm, bool), CommError> {
        self.call(|communicator| Ok((communicator.algorithm(), communicator.is_staged())))
    }

    /// Hands a job over; it runs after all jobs before it. Returns its number for `wait`.
    ///
    /// The caller gives up the job's span until `wait` returns for it: a backend's queue has
    /// released it ([`Self::after`]), and acquires it after the wait.
    pub fn submit(&mut self, job: Job) -> u64 {
        self.submitted += 1;
        match &mut self.lane {
            Lane::Inline(inline) => {
                if inline.line.len() == LINE && inline.run_next(&self.progress).is_none() {
                    self.progress.lose(lost(self.rank));
                }
                inline.line.push_back(job);
            }
            Lane::Thread(jobs) => {
                if jobs.send(job).is_err() {
                    self.progress.lose(lost(self.rank));
                }
            }
        }
        self.submitted
    }

    /// Begins nothing that is submitted from now on before `fence`.
    pub fn after(&mut self, fence: Fence) {
        if fence != Fence::PAST {
            self.submit(Job::After(fence));
        }
    }

    /// Waits until job `number` and all before it have run; counts the time as exposed.
    pub fn wait(&mut self, number: u64) -> Result<(), CommError> {
        if self.progress.completed.load(Ordering::Acquire) < number {
            let start = Instant::now();
            let mut looks = 0;
            while self.progress.completed.load(Ordering::Acquire) < number {
                match &mut self.lane {
                    Lane::Inline(inline) => {
                        if inline.run_next(&self.progress).is_none() {
                            self.progress.lose(lost(self.rank));
                        }
                    }
                    Lane::Thread(_) if looks < LOOKS => {
                        looks += 1;
                        thread::yield_now();
                    }
                    Lane::Thread(_) => thread::park(),
                }
            }
            self.waited += start.elapsed();
        }
        self.progress.failure().map_or(Ok(()), Err)
    }

    /// Runs a job and waits for it.
    pub fn run(&mut self, job: Job) -> Result<(), CommError> {
        let number = self.submit(job);
        self.wait(number)
    }

    /// Runs anything on the communicator and returns its result.
    pub fn call<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut dyn Communicator) -> Result<R, CommError> + Send + 'static,
    ) -> Result<R, CommError> {
        let (answer, result) = sync_channel(1);
        self.run(Job::Call(Box::new(move |communicator| {
            let value = work(communicator)?;
            // The receiver lives until this call returns.
            let _ = answer.send(value);
            Ok(())
        })))?;
        result.recv().map_err(|_| lost(self.rank))
    }

    /// Replaces the communicator by one around it. Regions allocated before are no longer known; the
    /// thread that runs collectives stays the one it is.
    ///
    /// # Errors
    /// If `wrap` fails; nothing can be run any more then.
    pub fn wrap(&mut self, wrap: Wrap) -> Result<(), CommError> {
        self.run(Job::Wrap(wrap))
    }

    /// Allocates a region of `len` floats for `what`.
    pub fn allocate_f32(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Region<f32>, CommError> {
        self.call(move |communicator| communicator.allocate_f32(len))
            .map_err(|error| error.of(what))
    }

    /// Allocates a region of `len` integers.
    pub fn allocate_i64(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Region<i64>, CommError> {
        self.call(move |communicator| communicator.allocate_i64(len))
            .map_err(|error| error.of(what))
    }

    /// Allocates a region of `len` integers that the host reads and writes.
    pub fn allocate_host_i64(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Region<i64>, CommError> {
        self.call(move |communicator| communicator.allocate_host_i64(len))
            .map_err(|error| error.of(what))
    }

    /// Allocates a region of `len` 16-bit floats.
    pub fn allocate_bf16(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Region<half::bf16>, CommError> {
        self.call(move |communicator| communicator.allocate_bf16(len))
            .map_err(|error| error.of(what))
    }

    /// Time the compute thread has waited since the last call of this: communication that backward
    /// did not hide.
    pub fn take_exposed(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

/// Wakes the waiter when the reducer thread unwinds.
struct LoseOnPanic<'a> {
    progress: &'a Progress,
    rank: usize,
}

impl Drop for LoseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.progress.lose(lost(self.rank));
        }
    }
}

fn lost(rank: usize) -> CommError {
    CommError::Transport {
        operation: "reducer thread",
        rank,
        problem: "it panicked".to_owned(),
    }
}

fn run(job: Job, place: &mut Option<Box<dyn Communicator>>) -> Result<(), CommError> {
    let Some(communicator) = place.as_deref_mut() else {
        // Whatever took it away has failed, and told the other ranks.
        return Ok(());
    };
    match job {
        Job::Wrap(wrap) => {
            *place = place.take().map(wrap).transpose()?;
            Ok(())
        }
        Job::AllReduce(span) => traced("all-reduce", &span, || communicator.all_reduce(&span)),
        Job::ReduceScatter(span) => traced("reduce-scatter", &span, || {
            communicator.reduce_scatter(&span)
        }),
        Job::AllGather(span) => traced("all-gather", &span, || communicator.all_gather(&span)),
        Job::After(fence) => communicator.after(fence),
        Job::Abort(reason) => {
            communicator.abort(&reason);
            Ok(())
        }
        Job::Call(call) => call(communicator),
    }
}

/// Runs a collective between two lines of the trace. NCCL's ends when it is queued; NCCL says when it is over.
fn traced(
    name: &str,
    Span { region, range }: &Span,
    collective: impl FnOnce() -> Result<(), CommError>,
) -> Result<(), CommError> {
    tracing::trace!("{name} of {range:?} in region {region} begins");
    let result = collective();
    tracing::trace!("{name} of {range:?} in region {region} ends");
    result
}

//! Ranks on GPUs that NCCL sums, around a communicator of the host.
//!
//! The host's communicator carries what comes before and beside: NCCL's id, regions of host memory,
//! barriers, and who is there. NCCL carries the regions in device memory. A collective on those is
//! queued on the communicator's stream of the GPU and returns: order with the backend's own stream
//! is kept by fences. What is queued is looked after by [`Communicator::poll`], and by whatever has
//! to wait: NCCL itself would wait for ever for a rank that does not come.

use std::any::Any;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUresult};
use half::bf16;

use super::handle::{DeviceSpan, Ending, Handle, State};
use super::loader::{CallError, Library, UniqueId};
use super::survey::survey;
use crate::backend::cuda::Cuda;
use crate::backend::{Element, Fence, Region};
use crate::comm::endpoint::Collective;
use crate::comm::{Algorithm, CommError, Communicator, Dtype, Entered, Span};

/// Regions in device memory are numbered from here; below are the host communicator's own.
const ON_DEVICE: usize = 1 << (usize::BITS - 1);

/// Looks at what is queued before the first sleep.
const LOOKS: u32 = 200;

/// Longest sleep between two looks.
const NAP: Duration = Duration::from_millis(1);

/// How long a rank that failed may take to say so itself.
const GRACE: Duration = Duration::from_secs(1);

/// A rank whose GPU NCCL sums with the others'.
pub struct Nccl {
    host: Box<dyn Communicator>,
    cuda: Cuda,
    library: &'static Library,
    /// Nothing once it has failed.
    handle: Option<Handle>,
    regions: Vec<Registered>,
    /// Collectives that may still run, first to last.
    queued: VecDeque<Queued>,
    /// Events that nobody waits for.
    spare: Vec<CUevent>,
    failure: Option<CommError>,
}

/// A region in device memory.
struct Registered {
    span: DeviceSpan,
    _keep: Box<dyn Any + Send>,
}

/// A collective on the stream.
struct Queued {
    entered: Entered,
    /// Recorded behind it.
    end: CUevent,
    /// Since when it is the first.
    since: Instant,
}

// SAFETY: events are names of the driver's, which any thread may use whose context is the device's;
// it is bound before each use.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Joins the GPUs of all ranks of `host`. Collective; the GPU of `cuda` is this rank's alone.
    ///
    /// # Errors
    /// On every rank, if two ranks are on one GPU, or if NCCL cannot connect them.
    pub fn connect(
        library: &'static Library,
        cuda: Cuda,
        host: Box<dyn Communicator>,
    ) -> Result<Self, CommError> {
        let mut nccl = Self {
            host,
            cuda,
            library,
            handle: None,
            regions: Vec::new(),
            queued: VecDeque::new(),
            spare: Vec::new(),
            failure: None,
        };
        let result = nccl.join();
        nccl.noting_failure(result)?;
        Ok(nccl)
    }

    fn join(&mut self) -> Result<(), CommError> {
        self.refuse_shared_devices()?;
        let id = self.share_id()?;
        let entered = self.host.enter("connection of NCCL")?;
        let (rank, world, start) = (self.rank(), self.world(), Instant::now());
        self.cuda.bind();
        let handle = Handle::join(self.library, id, rank, world);
        self.handle = Some(handle.map_err(|error| self.failed(&entered, error))?);
        self.settle(&entered, start)?;
        let facts = self.handle().and_then(|handle| {
            let facts = handle.facts();
            facts.map_err(|error| self.failed(&entered, error))
        })?;
        assert_eq!(facts, (world, self.cuda.ordinal() as i32), "NCCL's count");
        Ok(())
    }

    /// Compares the GPUs of all ranks: NCCL would only say that something is invalid.
    fn refuse_shared_devices(&mut self) -> Result<(), CommError> {
        let found = survey(&mut *self.host, &self.cuda, true)?;
        let Some((other, rank)) = found.on_one_gpu else {
            return Ok(());
        };
        Err(CommError::Transport {
            operation: "connection of NCCL",
            rank,
            problem: format!(
                "ranks {other} and {rank} are on the same GPU; start one rank for each GPU, or sum \
                 through the host with `--collective staged`"
            ),
        })
    }

    /// The id that rank 0 makes.
    fn share_id(&mut self) -> Result<UniqueId, CommError> {
        let words = self.host.allocate_host_i64(UniqueId::WORDS)?;
        if self.rank() == 0 {
            self.cuda.bind();
            let id = self.library.unique_id();
            let id = id.map_err(|error| CommError::Transport {
                operation: "connection of NCCL",
                rank: 0,
                problem: self.in_words(&error),
            })?;
            // SAFETY: no collective runs on the new region.
            unsafe { words.slice_mut(0..UniqueId::WORDS) }.copy_from_slice(id.words());
        }
        self.host.broadcast(&whole(&words), 0)?;
        let mut id = [0; UniqueId::WORDS];
        // SAFETY: as above.
        id.copy_from_slice(unsafe { words.slice(0..UniqueId::WORDS) });
        Ok(UniqueId::from_words(id))
    }

    fn allocate<T: Element>(&mut self, len: usize, dtype: Dtype) -> Result<Region<T>, CommError> {
        let region: Region<T> = self.cuda.region(len, ON_DEVICE + self.regions.len())?;
        self.regions.push(Registered {
            span: DeviceSpan {
                start: region.as_ptr().addr() as u64,
                len,
                dtype,
            },
            _keep: Box::new(region.clone()),
        });
        Ok(region)
    }

    /// Queues a collective on device memory, or runs it on the host's.
    fn run(
        &mut self,
        collective: Collective,
        span: &Span,
        on_host: impl FnOnce(&mut dyn Communicator) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        let result = match span.region.checked_sub(ON_DEVICE) {
            Some(region) => self.queue(
                collective,
                self.regions[region].span.slice(span.range.clone()),
            ),
            None => self.on_host(on_host),
        };
        self.noting_failure(result)
    }

    /// Runs something on the host, in its order: after what is queued.
    fn on_host(
        &mut self,
        work: impl FnOnce(&mut dyn Communicator) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        self.drain()?;
        work(self.host.as_mut())
    }

    fn queue(&mut self, collective: Collective, span: DeviceSpan) -> Result<(), CommError> {
        self.look()?;
        let entered = self.host.enter(collective.name())?;
        if span.len == 0 {
            return Ok(());
        }
        let (stream, start) = (self.cuda.reduce_stream(), Instant::now());
        let handle = self.handle.as_mut().ok_or_else(unconnected)?;
        // SAFETY: the span is of a region on this rank's GPU, bound by `look`, and the caller of a
        // collective gives it up until the stream has come past it.
        let queued = unsafe { handle.queue(collective, span, stream.cast()) };
        queued.map_err(|error| self.failed(&entered, error))?;
        self.settle(&entered, start)?;
        let end = self.spare.pop().map_or_else(new_event, Ok);
        let end = self.cuda.done("cuEventCreate", end)?;
        // SAFETY: event and stream are this device's.
        let recorded = unsafe { event::record(end, stream) };
        self.queued.push_back(Queued {
            entered,
            end,
            since: Instant::now(),
        });
        Ok(self.cuda.done("cuEventRecord", recorded)?)
    }

    /// Waits until the last call of NCCL's is made: it may connect to other ranks first.
    fn settle(&mut self, entered: &Entered, start: Instant) -> Result<(), CommError> {
        let mut pause = Pause::default();
        while self.state(entered)? == State::InProgress {
            self.host.watch(entered, start.elapsed())?;
            pause.wait();
        }
        Ok(())
    }

    fn state(&mut self, entered: &Entered) -> Result<State, CommError> {
        let state = self.handle()?.state();
        state.map_err(|error| self.cause(entered, error))
    }

    /// What is behind an error: NCCL may tell of another rank's failure before that rank does.
    fn cause(&mut self, entered: &Entered, error: CallError) -> CommError {
        let start = Instant::now();
        loop {
            if let Err(cause) = self.host.watch(entered, Duration::ZERO) {
                return cause;
            }
            if !error.is_remote || start.elapsed() > GRACE {
                return self.failed(entered, error);
            }
            std::thread::sleep(NAP);
        }
    }

    /// Waits for all that is queued.
    fn drain(&mut self) -> Result<(), CommError> {
        let mut pause = Pause::default();
        self.look()?;
        while !self.queued.is_empty() {
            pause.wait();
            self.look()?;
        }
        Ok(())
    }

    /// Forgets what has run; fails if what has not will never do.
    fn look(&mut self) -> Result<(), CommError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.cuda.bind();
        while let Some(first) = self.queued.front() {
            let (entered, end, since) = (first.entered, first.end, first.since);
            // What went wrong first: a collective that has failed is over, too.
            self.state(&entered)?;
            // SAFETY: an event of this device that was recorded.
            match unsafe { event::query(end) } {
                Ok(()) => {}
                Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)) => {
                    return self.host.watch(&entered, since.elapsed());
                }
                failed => return Ok(self.cuda.done("cuEventQuery", failed)?),
            }
            tracing::trace!("{} is over on the GPU", entered.operation);
            self.spare
                .extend(self.queued.pop_front().map(|done| done.end));
            if let Some(next) = self.queued.front_mut() {
                next.since = Instant::now();
            }
        }
        Ok(())
    }

    fn handle(&self) -> Result<&Handle, CommError> {
        self.handle.as_ref().ok_or_else(unconnected)
    }

    fn failed(&self, entered: &Entered, error: CallError) -> CommError {
        CommError::Transport {
            operation: entered.operation,
            rank: self.rank(),
            problem: self.in_words(&error),
        }
    }

    fn in_words(&self, error: &CallError) -> String {
        format!("NCCL {}: {error}", self.library.version())
    }

    /// After a failure nothing runs any more, and the other ranks hear the cause.
    fn noting_failure<R>(&mut self, result: Result<R, CommError>) -> Result<R, CommError> {
        if let (Err(error), None) = (&result, &self.failure) {
            // Whoever only passes on what another rank said is not the cause.
            if !matches!(error, CommError::Aborted { .. } | CommError::Timeout { .. }) {
                self.host.abort(&error.to_string());
            }
            self.give_up(error.clone());
        }
        result
    }

    /// Ends what is queued, so that nobody waits for the device.
    fn give_up(&mut self, cause: CommError) {
        self.failure.get_or_insert(cause);
        if let Some(handle) = self.handle.take() {
            self.cuda.bind();
            handle.retire(Ending::Abort);
        }
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.host.rank()
    }

    fn world(&self) -> usize {
        self.host.world()
    }

    fn local_rank(&self) -> usize {
        self.host.local_rank()
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::Nccl
    }

    fn is_thread_bound(&self) -> bool {
        self.host.is_thread_bound()
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn allocate_f32(&mut self, len: usize) -> Result<Region<f32>, CommError> {
        let result = self.allocate(len, Dtype::F32);
        self.noting_failure(result)
    }

    fn allocate_bf16(&mut self, len: usize) -> Result<Region<bf16>, CommError> {
        let result = self.allocate(len, Dtype::Bf16);
        self.noting_failure(result)
    }

    fn allocate_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        let result = self.allocate(len, Dtype::I64);
        self.noting_failure(result)
    }

    fn allocate_host_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        let drained = self.drain();
        self.noting_failure(drained)?;
        let result = self.host.allocate_host_i64(len);
        self.noting_failure(result)
    }

    fn after(&mut self, fence: Fence) -> Result<(), CommError> {
        Ok(self.cuda.after(fence)?)
    }

    fn all_reduce(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::AllReduce, span, |host| host.all_reduce(span))
    }

    fn reduce_scatter(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::ReduceScatter, span, |host| {
            host.reduce_scatter(span)
        })
    }

    fn all_gather(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::AllGather, span, |host| host.all_gather(span))
    }

    fn broadcast(&mut self, span: &Span, root: usize) -> Result<(), CommError> {
        self.run(Collective::Broadcast(root), span, |host| {
            host.broadcast(span, root)
        })
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        let result = self.on_host(|host| host.barrier());
        self.noting_failure(result)
    }

    fn enter(&mut self, operation: &'static str) -> Result<Entered, CommError> {
        self.host.enter(operation)
    }

    fn watch(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError> {
        let result = self.host.watch(collective, waited);
        self.noting_failure(result)
    }

    fn poll(&mut self) -> Result<(), CommError> {
        let result = self.look();
        self.noting_failure(result)
    }

    fn abort(&mut self, reason: &str) {
        self.host.abort(reason);
        self.give_up(CommError::Aborted {
            rank: self.rank(),
            reason: reason.to_owned(),
        });
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort("its thread panicked");
        }
        // A failure has been told to the other ranks, and ends what is queued.
        let drained = self.drain();
        let _ = self.noting_failure(drained);
        if let Some(handle) = self.handle.take() {
            handle.retire(Ending::Destroy);
        }
        self.cuda.bind();
        let queued = self.queued.drain(..).map(|queued| queued.end);
        for event in self.spare.drain(..).chain(queued) {
            // SAFETY: an event of this device, which nobody uses after this. What fails here has
            // failed before.
            let _ = unsafe { event::destroy(event) };
        }
    }
}

/// Ever longer between two looks.
#[derive(Default)]
struct Pause {
    looks: u32,
    nap: Duration,
}

impl Pause {
    fn wait(&mut self) {
        self.looks += 1;
        if self.looks <= LOOKS {
            std::thread::yield_now();
        } else {
            self.nap = (self.nap * 5 / 4).clamp(Duration::from_micros(10), NAP);
            std::thread::sleep(self.nap);
        }
    }
}

fn new_event() -> Result<CUevent, result::DriverError> {
    event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)
}

fn unconnected() -> CommError {
    CommError::Transport {
        operation: "NCCL",
        rank: 0,
        problem: "it is not connected".to_owned(),
    }
}

fn whole(region: &Region<i64>) -> Span {
    Span {
        region: region.id(),
        range: 0..region.len(),
    }
}

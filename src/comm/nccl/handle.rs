//! One rank's end of a communicator of NCCL's.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::loader::{CallError, Config, Library, RawHandle, UniqueId};
use crate::comm::Dtype;
use crate::comm::endpoint::Collective;
use crate::params::partition;

/// NCCL's number for a sum.
const SUM: c_int = 0;

/// How long NCCL may take to let go of a communicator before it is left as it is.
const DEADLINE: Duration = Duration::from_secs(10);

/// Elements in the memory of the device that the handle was made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceSpan {
    /// Address of the first.
    pub(super) start: u64,
    /// How many.
    pub(super) len: usize,
    /// What they are.
    pub(super) dtype: Dtype,
}

impl DeviceSpan {
    /// NCCL's number for the type.
    fn kind(self) -> c_int {
        match self.dtype {
            Dtype::F32 => 7,
            Dtype::Bf16 => 9,
            Dtype::I64 => 4,
        }
    }

    fn at(self, index: usize) -> *mut c_void {
        let address = self.start as usize + index * self.dtype.size();
        std::ptr::without_provenance_mut(address)
    }

    /// The elements of `range`.
    pub(super) fn slice(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of {} elements",
            self.len
        );
        Self {
            start: self.at(range.start).addr() as u64,
            len: range.len(),
            ..self
        }
    }
}

/// How far a communicator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Ready for the next call.
    Ready,
    /// Still at the call before.
    InProgress,
}

/// A communicator of NCCL's, whose calls return before they are done. To be retired in the end.
pub(super) struct Handle {
    library: &'static Library,
    raw: RawHandle,
    rank: usize,
    world: usize,
}

// SAFETY: NCCL's communicators may be used by any thread, by one at a time, which `&mut` and
// ownership see to.
unsafe impl Send for Handle {}

impl Handle {
    /// Begins to join the others on the device of the current context; over when it is ready.
    /// Collective.
    pub(super) fn join(
        library: &'static Library,
        id: UniqueId,
        rank: usize,
        world: usize,
    ) -> Result<Self, CallError> {
        let mut raw = std::ptr::null_mut();
        let mut config = Config::without_blocking();
        let (ranks, index) = (world as c_int, rank as c_int);
        // SAFETY: the handle is written, the configuration read.
        let code =
            unsafe { (library.functions().comm_init)(&mut raw, ranks, id, index, &mut config) };
        let handle = Self {
            library,
            raw,
            rank,
            world,
        };
        match library.check("ncclCommInitRankConfig", code) {
            Ok(()) => Ok(handle),
            Err(error) => {
                // What was begun is given up; a handle that was never made is null.
                if !raw.is_null() {
                    handle.retire(Ending::Abort);
                }
                Err(error)
            }
        }
    }

    /// How far the last call is, or what has gone wrong since, in whatever is queued too.
    pub(super) fn state(&self) -> Result<State, CallError> {
        let mut state = 0;
        // SAFETY: a live handle; a code is written.
        let code = unsafe { (self.library.functions().comm_async_error)(self.raw, &mut state) };
        self.library.check("ncclCommGetAsyncError", code)?;
        self.library.check("asynchronous error", state)?;
        Ok(if Library::is_in_progress(state) {
            State::InProgress
        } else {
            State::Ready
        })
    }

    /// Number of ranks, and the device, as NCCL sees them; for a handle that is ready.
    pub(super) fn facts(&self) -> Result<(usize, i32), CallError> {
        let functions = self.library.functions();
        let (mut count, mut device) = (0, 0);
        // SAFETY: a live handle; numbers are written.
        unsafe {
            let code = (functions.comm_count)(self.raw, &mut count);
            self.library.check("ncclCommCount", code)?;
            let code = (functions.comm_device)(self.raw, &mut device);
            self.library.check("ncclCommCuDevice", code)?;
        }
        Ok((count as usize, device))
    }

    /// Queues a collective on `stream`. The pieces of a span are those of `partition`.
    ///
    /// # Safety
    /// The span lies in memory of the handle's device, which is that of the current context and of
    /// the stream, and nothing else touches it until the stream has come past the collective.
    pub(super) unsafe fn queue(
        &mut self,
        collective: Collective,
        span: DeviceSpan,
        stream: *mut c_void,
    ) -> Result<(), CallError> {
        let functions = self.library.functions();
        let (start, kind, comm) = (span.at(0), span.kind(), self.raw);
        let equal = span.len.is_multiple_of(self.world);
        let own = partition(span.len, self.world, self.rank);
        let (piece, share) = (span.at(own.start), own.len());
        // SAFETY: the caller's promise; the library's own rules for work in place are kept: a piece
        // lies in the whole where its rank says.
        unsafe {
            match collective {
                Collective::ReduceScatter if equal => {
                    let code =
                        (functions.reduce_scatter)(start, piece, share, kind, SUM, comm, stream);
                    self.library.check("ncclReduceScatter", code)
                }
                // It has only equal pieces; a sum of all of the span holds every piece.
                Collective::AllReduce | Collective::ReduceScatter => {
                    let code =
                        (functions.all_reduce)(start, start, span.len, kind, SUM, comm, stream);
                    self.library.check("ncclAllReduce", code)
                }
                Collective::AllGather if equal => {
                    let code = (functions.all_gather)(piece, start, share, kind, comm, stream);
                    self.library.check("ncclAllGather", code)
                }
                Collective::AllGather => self.gather_unequal(span, stream),
                Collective::Broadcast(root) => self.broadcast(span, root, stream),
            }
        }
    }

    /// Every rank's piece from that rank, as one operation.
    ///
    /// # Safety
    /// As for `queue`.
    unsafe fn gather_unequal(
        &mut self,
        span: DeviceSpan,
        stream: *mut c_void,
    ) -> Result<(), CallError> {
        let functions = self.library.functions();
        // SAFETY: no arguments.
        let begun = unsafe { (functions.group_start)() };
        self.library.check("ncclGroupStart", begun)?;
        let pieces = (0..self.world)
            .map(|root| (root, span.slice(partition(span.len, self.world, root))))
            .filter(|(_, piece)| piece.len > 0)
            // SAFETY: the caller's promise.
            .try_for_each(|(root, piece)| unsafe { self.broadcast(piece, root, stream) });
        // SAFETY: no arguments; ends the group, whatever is in it.
        let ended = unsafe { (functions.group_end)() };
        pieces.and(self.library.check("ncclGroupEnd", ended))
    }

    /// # Safety
    /// As for `queue`.
    unsafe fn broadcast(
        &self,
        span: DeviceSpan,
        root: usize,
        stream: *mut c_void,
    ) -> Result<(), CallError> {
        let (start, kind, root) = (span.at(0), span.kind(), root as c_int);
        let functions = self.library.functions();
        // SAFETY: the caller's promise.
        let code =
            unsafe { (functions.broadcast)(start, start, span.len, kind, root, self.raw, stream) };
        self.library.check("ncclBroadcast", code)
    }

    /// Lets go of the communicator. NCCL may wait for others meanwhile, or for ever: after a
    /// deadline it is left to itself.
    pub(super) fn retire(self, ending: Ending) {
        let (done, waiting) = channel();
        let rank = self.rank;
        let work = move || {
            let result = self.end(ending);
            // Nobody listens any more after the deadline.
            let _ = done.send(result);
        };
        let started = std::thread::Builder::new()
            .name(format!("rank-{rank}-nccl-end"))
            .spawn(work);
        let result = started.map(|_| waiting.recv_timeout(DEADLINE));
        match result {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(rank, %error, "NCCL did not end cleanly"),
            Ok(Err(_)) => tracing::warn!(rank, "NCCL did not let go in {DEADLINE:?}; it is left"),
            Err(error) => tracing::warn!(rank, %error, "NCCL is left: no thread to end it on"),
        }
    }

    fn end(self, ending: Ending) -> Result<(), CallError> {
        let functions = self.library.functions();
        if let Ending::Destroy = ending {
            // SAFETY: a live handle.
            let code = unsafe { (functions.comm_finalize)(self.raw) };
            self.library.check("ncclCommFinalize", code)?;
            while self.state()? == State::InProgress {
                std::thread::sleep(Duration::from_micros(100));
            }
            // SAFETY: a live handle, which nobody uses after this.
            let code = unsafe { (functions.comm_destroy)(self.raw) };
            return self.library.check("ncclCommDestroy", code);
        }
        // SAFETY: a live handle, which nobody uses after this.
        let code = unsafe { (functions.comm_abort)(self.raw) };
        self.library.check("ncclCommAbort", code)
    }
}

/// How to let go of a communicator.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// After all that was queued.
    Destroy,
    /// At once; what is queued ends without a result.
    Abort,
}

//! Sums over ranks.
//!
//! [`Communicator`] is what the trainer's reducer drives: collectives over registered memory
//! ([`Region`]), called in the same order on every rank by one thread per rank.

mod agree;
mod cells;
mod direct;
mod endpoint;
mod fixed_point;
mod gate;
mod hierarchical;
pub mod launcher;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod nccl;
mod options;
mod presence;
mod ring;
mod sim;
mod staged;
pub mod testing;
mod thread;
mod transport;
mod wait;

use std::ops::Range;
use std::time::Duration;

pub use agree::{Disagreement, agree, gather, tell};
pub use options::{CollectiveChoice, Options};
pub use sim::{Fault, Faulty, Link};
pub use staged::Staged;
pub use thread::threads;

use crate::backend::{BackendError, Fence, Region};
use crate::named::choices;

/// A number that collectives can add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// Upper half of a 32-bit float; sums are taken in `f32` and rounded to nearest even.
    Bf16,
    /// 64-bit integer, wrapping: the fixed point of exact sums, and the carrier of 64-bit patterns.
    I64,
}

impl Dtype {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<half::bf16>(),
            Self::I64 => size_of::<i64>(),
        }
    }
}

choices! {
    /// How gradients are added over micro-batches and ranks.
    #[derive(Default)]
    pub enum ReduceMode ("reduction") {
        /// As fixed-point integers: the same bits for any number of ranks and any bucket size.
        #[default]
        Exact = "exact",
        /// As floats: the fastest on GPUs.
        F32 = "f32",
        /// As 16-bit floats between ranks: half the bytes, 8 bits of precision.
        Bf16 = "bf16",
    }
}

/// A range of a registered region: what a collective works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Which region, as every rank numbers it.
    pub region: usize,
    /// Elements of it; the same on every rank.
    pub range: Range<usize>,
}

/// A collective that runs elsewhere, as [`Communicator::enter`] counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    number: u64,
    operation: &'static str,
}

choices! {
    /// What ran, for the log and the run's record.
    pub enum Algorithm ("algorithm") {
        /// Ring of messages through all ranks.
        Ring = "ring",
        /// Every rank reads its piece of everybody's memory.
        Direct = "direct",
        /// Direct within a host, a ring of leaders for each chunk between hosts.
        Hierarchical = "hierarchical",
        /// NCCL, on devices.
        Nccl = "nccl",
    }
}

/// A failed collective.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommError {
    /// Another rank gave up.
    #[error("rank {rank} stopped: {reason}")]
    Aborted {
        /// The rank that stopped.
        rank: usize,
        /// Why it says it did.
        reason: String,
    },
    /// A peer did not arrive.
    #[error("{operation}: rank {rank} did not arrive within {waited:?}")]
    Timeout {
        /// The collective.
        operation: &'static str,
        /// The rank waited for.
        rank: usize,
        /// For how long.
        waited: Duration,
    },
    /// The transport failed.
    #[error("{operation} failed on rank {rank}: {problem}")]
    Transport {
        /// The call.
        operation: &'static str,
        /// The rank it failed on.
        rank: usize,
        /// What the transport said.
        problem: String,
    },
    /// Memory for a region.
    #[error("cannot allocate {bytes} bytes for {what} on rank {rank}: {problem}")]
    Memory {
        /// What the memory was for.
        what: &'static str,
        /// The rank.
        rank: usize,
        /// How much was asked.
        bytes: usize,
        /// What the system said.
        problem: String,
    },
    /// The device that the regions lie on failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What memory is for where only whoever asked knows better.
const REGION: &str = "a region";

impl CommError {
    /// The error of an allocation, now that it is known what for.
    pub(crate) fn of(mut self, wanted: &'static str) -> Self {
        if let Self::Memory { what, .. }
        | Self::Backend(BackendError::OutOfDeviceMemory { what, .. }) = &mut self
        {
            *what = wanted;
        }
        self
    }
}

/// Collectives among a fixed set of ranks.
///
/// Every method is collective unless it says otherwise: all ranks call it, in
/// the same order, with the same spans. The caller promises that nothing else touches a span while
/// its collective runs.
///
/// The piece of rank `r` in a span is `partition(span.range.len(), world, r)`, counted from the
/// span's start, in every method that speaks of pieces.
pub trait Communicator: Send {
    /// This rank, from 0. Not collective.
    fn rank(&self) -> usize;

    /// Number of ranks. Not collective.
    fn world(&self) -> usize;

    /// This rank among those of its host, from 0. Not collective.
    fn local_rank(&self) -> usize;

    /// What runs underneath. Not collective.
    fn algorithm(&self) -> Algorithm;

    /// Whether it sums in the host's memory what devices compute. Not collective.
    fn is_staged(&self) -> bool {
        false
    }

    /// Whether its collectives gain from a thread of their own beside compute: not where they are
    /// nothing but work for processors that compute keeps busy. Not collective.
    fn overlaps(&self) -> bool;

    /// Whether it must stay on the thread that made it, even in a world of one. Not collective.
    fn is_thread_bound(&self) -> bool {
        false
    }

    /// Allocates a zeroed region of `len` floats on every rank.
    fn allocate_f32(&mut self, len: usize) -> Result<Region<f32>, CommError>;

    /// Allocates a zeroed region of `len` 16-bit floats on every rank.
    fn allocate_bf16(&mut self, len: usize) -> Result<Region<half::bf16>, CommError>;

    /// Allocates a zeroed region of `len` integers on every rank.
    fn allocate_i64(&mut self, len: usize) -> Result<Region<i64>, CommError>;

    /// Allocates a zeroed region of `len` integers in host memory on every rank, for what the host
    /// reads and writes itself. The other regions are memory of the ranks' backend.
    fn allocate_host_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        self.allocate_i64(len)
    }

    /// Lets no collective that is called later touch memory before `fence`, a point in the queue of
    /// the backend whose memory the regions are. Not collective.
    fn after(&mut self, fence: Fence) -> Result<(), CommError> {
        debug_assert_eq!(fence, Fence::PAST, "host memory has no queue");
        Ok(())
    }

    /// From now on sums a region of floats in fixed point, whatever the order the same bits: each
    /// rank's values are rounded to multiples of `2^-exponent`, added as integers, and turned back.
    /// Returns the exponents, one for each [`crate::backend::BLOCK`] of the region, which every rank
    /// sets alike before a sum; `None` where this communicator cannot, on all ranks.
    fn sum_in_fixed_point(
        &mut self,
        _region: &Region<f32>,
    ) -> Result<Option<Region<i64>>, CommError> {
        Ok(None)
    }

    /// Sums the span over all ranks; every rank ends with the same bits.
    fn all_reduce(&mut self, span: &Span) -> Result<(), CommError>;

    /// Sums the span over all ranks; each rank ends with its own piece of what `all_reduce` would
    /// give, bit for bit, and the rest undefined. [`Algorithm::Nccl`] keeps this for integers only:
    /// it may add floats in another order than in `all_reduce`.
    fn reduce_scatter(&mut self, span: &Span) -> Result<(), CommError>;

    /// Spreads every rank's piece to all.
    fn all_gather(&mut self, span: &Span) -> Result<(), CommError>;

    /// Copies the span of `root` to all.
    fn broadcast(&mut self, span: &Span, root: usize) -> Result<(), CommError>;

    /// Waits for all.
    fn barrier(&mut self) -> Result<(), CommError>;

    /// Counts in a collective that runs elsewhere, on devices, so that a rank that waits for it in
    /// vain can tell who has not come to it. Called in the same order on every rank, as collectives
    /// are, but waits for nobody.
    fn enter(&mut self, operation: &'static str) -> Result<Entered, CommError>;

    /// Fails if `collective`, for which this rank has waited so long already, is not worth waiting
    /// for any more: a rank gave up or left, or has not come to it and the time is over. Not
    /// collective.
    fn watch(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError>;

    /// Looks after collectives that have been queued and may still run; fails if one of them has
    /// failed. To be called now and then by whoever has nothing else to do. Not collective.
    fn poll(&mut self) -> Result<(), CommError> {
        Ok(())
    }

    /// Tells the others that this rank gives up; their next or current collective fails with
    /// [`CommError::Aborted`]. Not collective.
    fn abort(&mut self, reason: &str);
}

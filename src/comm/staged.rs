//! Ranks on GPUs whose sums are made by the host: a communicator around another one.
//!
//! Every region in a GPU's memory has a mirror in host memory that the inner communicator knows. A
//! collective copies its span down, runs on the mirrors, and copies up what has changed:
//!
//! | collective | down | up |
//! |---|---|---|
//! | all-reduce | all | all |
//! | reduce-scatter | all | the rank's own piece |
//! | all-gather | the rank's own piece | all |
//! | broadcast | all, on the root | all, on the others |
//!
//! The copies run on the communicator's stream of the GPU, beside backward; the way up ends after the
//! call returns. It works wherever the inner communicator does, with several ranks on one GPU too,
//! and costs two passes over the bus and the host's sum.

use std::ops::Range;
use std::time::Duration;

use half::bf16;

use super::{Algorithm, CommError, Communicator, Entered, Span};
use crate::backend::cuda::{Cuda, Mirrored};
use crate::backend::{BackendError, Element, Fence, Region};
use crate::params::partition;

/// A rank whose regions are memory of its GPU.
pub struct Staged {
    cuda: Cuda,
    inner: Box<dyn Communicator>,
    regions: Vec<Memory>,
}

/// A region by its number.
struct Memory {
    /// What the inner communicator calls its memory.
    inner: usize,
    kind: Kind,
}

enum Kind {
    /// The host's own, or that of a rank without others: nothing is copied.
    Unmirrored,
    F32(Mirrored<f32>),
    Bf16(Mirrored<bf16>),
    I64(Mirrored<i64>),
}

impl Staged {
    /// The rank of `inner` on the GPU of `cuda`.
    pub fn new(cuda: Cuda, inner: Box<dyn Communicator>) -> Self {
        let regions = Vec::new();
        Self {
            cuda,
            inner,
            regions,
        }
    }

    fn allocate<T: Element>(
        &mut self,
        host: Region<T>,
        kind: impl FnOnce(Mirrored<T>) -> Kind,
    ) -> Result<Region<T>, CommError> {
        let device = self.cuda.region(host.len(), self.regions.len())?;
        let inner = host.id();
        let kind = match self.world() {
            1 => Kind::Unmirrored,
            _ => kind(self.cuda.mirror(device.clone(), host)),
        };
        self.regions.push(Memory { inner, kind });
        Ok(device)
    }

    /// Copies `down`, runs `collective` on the mirrors, and copies `up`.
    fn run(
        &mut self,
        operation: &'static str,
        span: &Span,
        [down, up]: [Range<usize>; 2],
        collective: impl FnOnce(&mut dyn Communicator, &Span) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        if self.world() == 1 {
            return Ok(());
        }
        let Some(memory) = self.regions.get(span.region) else {
            panic!(
                "{operation} of region {}, but there are {}",
                span.region,
                self.regions.len()
            )
        };
        let host = Span {
            region: memory.inner,
            range: span.range.clone(),
        };
        // SAFETY: the caller gives up the span until the collective is over on the communicator's
        // stream; on the host nobody but the inner collective touches it, between the copies.
        unsafe {
            memory.kind.copy_down(&self.cuda, down)?;
            collective(self.inner.as_mut(), &host)?;
            memory.kind.copy_up(&self.cuda, up)?;
        }
        Ok(())
    }

    /// This rank's piece of a span.
    fn own(&self, span: &Span) -> Range<usize> {
        let piece = partition(span.range.len(), self.world(), self.rank());
        span.range.start + piece.start..span.range.start + piece.end
    }
}

impl Kind {
    /// Copies a range to the host, and waits for it.
    ///
    /// # Safety
    /// The range is given up, on both sides.
    unsafe fn copy_down(&self, cuda: &Cuda, range: Range<usize>) -> Result<(), BackendError> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Unmirrored => return Ok(()),
                Self::F32(memory) => cuda.copy_down(memory, range)?,
                Self::Bf16(memory) => cuda.copy_down(memory, range)?,
                Self::I64(memory) => cuda.copy_down(memory, range)?,
            }
        }
        cuda.synchronize_reduce()
    }

    /// Queues a copy of a range to the device.
    ///
    /// # Safety
    /// The range is given up, on both sides, until the next copy down.
    unsafe fn copy_up(&self, cuda: &Cuda, range: Range<usize>) -> Result<(), BackendError> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Unmirrored => Ok(()),
                Self::F32(memory) => cuda.copy_up(memory, range),
                Self::Bf16(memory) => cuda.copy_up(memory, range),
                Self::I64(memory) => cuda.copy_up(memory, range),
            }
        }
    }
}

impl Communicator for Staged {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world(&self) -> usize {
        self.inner.world()
    }

    fn local_rank(&self) -> usize {
        self.inner.local_rank()
    }

    fn algorithm(&self) -> Algorithm {
        self.inner.algorithm()
    }

    fn is_staged(&self) -> bool {
        self.world() > 1
    }

    fn is_thread_bound(&self) -> bool {
        self.inner.is_thread_bound()
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn allocate_f32(&mut self, len: usize) -> Result<Region<f32>, CommError> {
        let host = self.inner.allocate_f32(len)?;
        self.allocate(host, Kind::F32)
    }

    fn allocate_bf16(&mut self, len: usize) -> Result<Region<bf16>, CommError> {
        let host = self.inner.allocate_bf16(len)?;
        self.allocate(host, Kind::Bf16)
    }

    fn allocate_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        let host = self.inner.allocate_i64(len)?;
        self.allocate(host, Kind::I64)
    }

    fn allocate_host_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        let host = self.inner.allocate_host_i64(len)?;
        let region = host.with_id(self.regions.len());
        let inner = host.id();
        self.regions.push(Memory {
            inner,
            kind: Kind::Unmirrored,
        });
        Ok(region)
    }

    fn after(&mut self, fence: Fence) -> Result<(), CommError> {
        Ok(self.cuda.after(fence)?)
    }

    fn all_reduce(&mut self, span: &Span) -> Result<(), CommError> {
        let all = span.range.clone();
        self.run("all-reduce", span, [all.clone(), all], |inner, span| {
            inner.all_reduce(span)
        })
    }

    fn reduce_scatter(&mut self, span: &Span) -> Result<(), CommError> {
        let ranges = [span.range.clone(), self.own(span)];
        self.run("reduce-scatter", span, ranges, |inner, span| {
            inner.reduce_scatter(span)
        })
    }

    fn all_gather(&mut self, span: &Span) -> Result<(), CommError> {
        let ranges = [self.own(span), span.range.clone()];
        self.run("all-gather", span, ranges, |inner, span| {
            inner.all_gather(span)
        })
    }

    fn broadcast(&mut self, span: &Span, root: usize) -> Result<(), CommError> {
        let (all, none) = (span.range.clone(), span.range.start..span.range.start);
        let ranges = if self.rank() == root {
            [all, none]
        } else {
            [none, all]
        };
        self.run("broadcast", span, ranges, |inner, span| {
            inner.broadcast(span, root)
        })
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.inner.barrier()
    }

    fn enter(&mut self, operation: &'static str) -> Result<Entered, CommError> {
        self.inner.enter(operation)
    }

    fn watch(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError> {
        self.inner.watch(collective, waited)
    }

    fn poll(&mut self) -> Result<(), CommError> {
        self.inner.poll()
    }

    fn abort(&mut self, reason: &str) {
        self.inner.abort(reason);
    }
}

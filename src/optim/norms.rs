//! Norms of whole tensors from sums over blocks, which do not depend on who owns which block.

use std::ops::Range;

use super::{BlockExchange, Segment, StepError};
use crate::backend::{Backend, BackendError};
use crate::params::{ALIGNMENT, Layout};

/// Sums of squares of all blocks, on the device and on the host.
pub(super) struct BlockSums<B: Backend> {
    device: B::Buffer<f64>,
    host: Vec<f64>,
}

impl<B: Backend> BlockSums<B> {
    pub(super) fn new(backend: &mut B, layout: &Layout) -> Result<Self, BackendError> {
        let blocks = super::blocks(layout);
        Ok(Self {
            device: backend.allocate("block sums", blocks)?,
            host: vec![0.0; blocks],
        })
    }

    /// The sums of a run of blocks, for a kernel to write.
    pub(super) fn blocks(&mut self, range: Range<usize>) -> B::ViewMut<'_, f64> {
        B::slice_mut(B::view_mut(&mut self.device), range)
    }

    /// Brings the sums of blocks that other ranks own; here they are the zeros they were allocated
    /// with. Collective where `exchange` is.
    pub(super) fn complete(
        &mut self,
        backend: &mut B,
        exchange: &mut dyn BlockExchange,
    ) -> Result<(), StepError> {
        backend.download(B::view(&self.device), &mut self.host);
        Ok(exchange.complete(&mut self.host)?)
    }

    /// All blocks' sums, once complete.
    pub(super) fn all(&self) -> &[f64] {
        &self.host
    }
}

/// Each tensor's blocks.
pub(super) fn tensor_blocks(layout: &Layout) -> Vec<Range<usize>> {
    let blocks = |range: Range<usize>| range.start / ALIGNMENT..range.end.div_ceil(ALIGNMENT);
    layout
        .tensors()
        .iter()
        .map(|tensor| blocks(tensor.range()))
        .collect()
}

/// Euclidean norm from sums of squares, added in order.
pub(super) fn norm(sums: &[f64]) -> f64 {
    sums.iter().sum::<f64>().sqrt()
}

/// Consecutive segments of one tensor, tensor by tensor.
pub(super) fn by_tensor(segments: &[Segment]) -> impl Iterator<Item = &[Segment]> {
    segments.chunk_by(|a, b| a.tensor == b.tensor)
}

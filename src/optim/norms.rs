//! Norms of whole tensors from sums over blocks, which do not depend on who owns which block.

use std::ops::Range;

use super::segments::spared;
use super::{BlockExchange, Segment, StepError};
use crate::backend::{Backend, BackendError, Download, TrustRule, View};
use crate::params::{ALIGNMENT, Group, Layout};

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
        backend.collect([self.fetch()])?;
        Ok(exchange.complete(&mut self.host)?)
    }

    fn fetch(&mut self) -> Download<'_, B> {
        Download::F64(B::view(&self.device), &mut self.host)
    }

    /// All blocks' sums, once complete.
    pub(super) fn all(&self) -> &[f64] {
        &self.host
    }
}

/// Euclidean norm from sums of squares, added in order.
pub(super) fn norm(sums: &[f64]) -> f64 {
    sums.iter().sum::<f64>().sqrt()
}

/// The rates of LARS and LAMB, which stay on the device where no other rank owns blocks.
pub(super) struct TrustRates<B: Backend> {
    /// What weight decay spares, block by block.
    pub(super) spared: B::Buffer<u32>,
    /// As [`Update::trust_rates`](crate::backend::Update::trust_rates) reads them.
    tensors: B::Buffer<u32>,
    /// Block sums of the parameters.
    pub(super) parameters: BlockSums<B>,
    /// Block sums of what the parameters are compared with.
    pub(super) directions: BlockSums<B>,
    rates: B::Buffer<f32>,
}

impl<B: Backend> TrustRates<B> {
    pub(super) fn new(
        backend: &mut B,
        layout: &Layout,
        segments: &[Segment],
    ) -> Result<Self, BackendError> {
        // All blocks of a tensor, whoever owns them.
        let row = |of_tensor: &[Segment]| {
            let range = layout.tensors()[of_tensor[0].tensor].range();
            let blocks = [range.start / ALIGNMENT, range.end.div_ceil(ALIGNMENT)];
            let [first, end] = blocks.map(|block| block as u32);
            [first, end, u32::from(of_tensor[0].group == Group::NoDecay)]
        };
        let by_tensor = segments.chunk_by(|a, b| a.tensor == b.tensor);
        let rows: Vec<u32> = by_tensor.flat_map(row).collect();
        let mut tensors = backend.allocate("blocks of tensors", rows.len())?;
        backend.upload(&rows, B::view_mut(&mut tensors));
        Ok(Self {
            spared: spared(backend, segments)?,
            tensors,
            parameters: BlockSums::new(backend, layout)?,
            directions: BlockSums::new(backend, layout)?,
            rates: backend.allocate("rates of blocks", super::blocks(layout))?,
        })
    }

    /// Computes the rates from the block sums. Collective where `exchange` is.
    pub(super) fn compute(
        &mut self,
        backend: &mut B,
        rule: TrustRule,
        exchange: &mut dyn BlockExchange,
    ) -> Result<(), StepError> {
        let is_shared = exchange.is_shared();
        if is_shared {
            backend.collect([self.parameters.fetch(), self.directions.fetch()])?;
            for sums in [&mut self.parameters, &mut self.directions] {
                exchange.complete(&mut sums.host)?;
                backend.upload(&sums.host, B::view_mut(&mut sums.device));
            }
        }
        backend.trust_rates(
            rule,
            B::view(&self.tensors),
            B::view(&self.parameters.device),
            B::view(&self.directions.device),
            B::view_mut(&mut self.rates),
        );
        if is_shared {
            for sums in [&mut self.parameters, &mut self.directions] {
                // What others own is zero here before sums are completed.
                backend.fill(B::view_mut(&mut sums.device), 0.0);
            }
        }
        Ok(())
    }

    /// The rates of these blocks, once they are computed.
    pub(super) fn rates(&self, blocks: Range<usize>) -> View<'_, B> {
        B::slice(B::view(&self.rates), blocks)
    }
}

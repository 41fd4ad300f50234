//! What a layer is told about the micro-batch at hand.

use std::ops::Range;

use crate::backend::{Backend, Memory, View, ViewMut};

/// Training or inference: dropout and batch normalisation differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Dropout drops, batch normalisation uses the micro-batch's own statistics.
    Train,
    /// Nothing is random, moving statistics are used.
    Infer,
}

/// The micro-batch at hand, and the memory that belongs to no layer.
///
/// Random numbers are functions of (`seed`, `step`, sample, layer, element) and nothing else, where
/// row `i` is sample `first_sample + i` of the global batch: no rank is in it.
pub struct Context<'a, B: Backend> {
    /// Where kernels run.
    pub backend: &'a mut B,
    /// Training or inference.
    pub mode: Mode,
    /// Rows in this micro-batch; at most what the layer was built for.
    pub rows: usize,
    /// The run's seed.
    pub seed: u64,
    /// Global step, from 0.
    pub step: u64,
    /// Place of row 0 in the global batch.
    pub first_sample: u64,
    /// Non-trainable state of the whole model (moving statistics), read-only within a step.
    pub state: View<'a, B>,
    /// What this micro-batch contributes to that state, laid out like it, each value times `rows`:
    /// the step ends by averaging over all rows of the global batch and moving the state towards
    /// it. Written in training only.
    pub statistics: ViewMut<'a, B>,
}

impl<'a, B: Backend> Context<'a, B> {
    /// One tensor of the state.
    pub fn state(&self, range: &Range<usize>) -> View<'a, B> {
        <B as Memory>::slice(self.state, range.clone())
    }

    /// Whether this is training.
    pub fn is_training(&self) -> bool {
        self.mode == Mode::Train
    }
}

//! How a gradient leaves the arena while backward still runs.
//!
//! Backward finishes the gradient arena from its end. With four layers at `0..10, 10..30, 30..31,
//! 31..40` the last layer's gradient is whole first: `done(31)` moves `31..40` out, `done(30)` moves
//! `30..31`, and so on down to `done(0)`. One integer, the watermark, says what is still the
//! caller's. What has been moved out may be reduced by another thread at once.

use std::ops::Range;

use crate::backend::{Accumulate, Backend, ViewMut};

/// Takes finished gradients, from the end of the arena to its start.
pub trait GradSink<B: Backend>: Send {
    /// The gradient elements of `range`, and whether the first writer of this micro-batch sets or
    /// adds.
    ///
    /// Outputs of one tensor are given `Set` at most once per micro-batch: a second contribution to
    /// a tied tensor is told to `Add`.
    ///
    /// # Panics
    /// If part of the range has been moved out already.
    fn grads(&mut self, range: Range<usize>) -> (ViewMut<'_, B>, Accumulate);

    /// Moves out everything from `from` to the last watermark: it is finished.
    fn done(&mut self, from: usize);
}

/// The gradient of one layer, as that layer sees it: offsets count from the layer's own start.
pub struct Grads<'a, B: Backend> {
    sink: &'a mut dyn GradSink<B>,
    start: usize,
}

impl<'a, B: Backend> Grads<'a, B> {
    /// The gradients of the layer whose parameters start at `start` of the arena.
    pub fn new(sink: &'a mut dyn GradSink<B>, start: usize) -> Self {
        Self { sink, start }
    }

    /// The gradient of the tensor at `range` of this layer, and whether to set or add.
    pub fn tensor(&mut self, range: &Range<usize>) -> (ViewMut<'_, B>, Accumulate) {
        self.sink
            .grads(self.start + range.start..self.start + range.end)
    }

    /// The gradients of a child whose parameters start at `start` of this layer.
    pub fn child(&mut self, start: usize) -> Grads<'_, B> {
        Grads {
            sink: self.sink,
            start: self.start + start,
        }
    }

    /// Everything of this layer from `start` on is finished: a composite layer says so after each
    /// child, in reverse order.
    pub fn done(&mut self, start: usize) {
        self.sink.done(self.start + start);
    }
}

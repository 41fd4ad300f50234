//! Optimizers on flat `f32` slices, schedules and clipping.
//!
//! An optimizer owns its state, laid out like the part of the parameters it steps: all of them, or
//! one rank's shard under ZeRO-1. It is told by a table of [`Segment`]s which elements belong to
//! which tensor.

mod adagrad;
mod adam;
mod clip;
mod elementwise;
mod ftrl;
mod lamb;
mod lars;
mod lion;
mod loss_scale;
mod norms;
mod optimizers;
mod rmsprop;
mod schedule;
mod segments;
mod sgd;
mod spec;

pub use adagrad::Adagrad;
pub use adam::{Adam, AdamW};
pub use clip::{Clip, ClipSpec, Clipped};
pub use ftrl::Ftrl;
pub use lamb::Lamb;
pub use lars::Lars;
pub use lion::Lion;
pub use loss_scale::LossScale;
pub use optimizers::{Optimizers, Part, base_rate};
pub use rmsprop::{EpsilonPlacement, RmsProp};
pub use schedule::{
    Constant, Cosine, Exponential, InverseTime, Piecewise, Polynomial, ScheduleError, ScheduleSpec,
    Warmup,
};
pub use segments::{blocks, segments};
pub use sgd::Sgd;
pub use spec::{OptimizerSpec, StepsRows};

use std::ops::Range;

use crate::backend::{Backend, BackendError, View, ViewMut};
use crate::params::Group;

/// A run of elements of one tensor that this rank steps.
///
/// Segments start at a multiple of [`crate::params::ALIGNMENT`] of their tensor and, but for the
/// tensor's last, end at one, so that a block of a norm lies in one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of the tensor in the layout.
    pub tensor: usize,
    /// Its group.
    pub group: Group,
    /// Place in the parameter and gradient arenas.
    pub arena: Range<usize>,
    /// Place in the optimizer's state arrays.
    pub state: Range<usize>,
    /// Index of the first of the segment's blocks among all blocks of all tensors.
    pub first_block: usize,
}

/// Completes the sums of blocks that other ranks own. Replicated optimizers own every block.
pub trait BlockExchange {
    /// Whether other ranks own blocks. Where none does, sums need not leave the device.
    fn is_shared(&self) -> bool;

    /// `sums[i]` is this rank's sum of block `i`, or 0 where another rank owns the block; on return
    /// every rank has all of them.
    fn complete(&mut self, sums: &mut [f64]) -> Result<(), crate::comm::CommError>;
}

/// What one optimizer step works on.
pub struct Step<'a, B: Backend> {
    /// Where kernels run.
    pub backend: &'a mut B,
    /// Number of this step, from 1 (Adam's t).
    pub t: u64,
    /// Learning rate of this step.
    pub rate: f64,
    /// Every gradient is multiplied by this first: one over the batch's weight, times the clipping
    /// factor.
    pub gradient_scale: f32,
    /// Scaled gradients are then limited to `[-limit, limit]`; infinity for no limit.
    pub gradient_limit: f32,
    /// The whole parameter arena.
    pub parameters: ViewMut<'a, B>,
    /// The whole gradient arena.
    pub gradients: View<'a, B>,
    /// What this rank steps, in arena order.
    pub segments: &'a [Segment],
    /// For optimizers that need norms of whole tensors.
    pub exchange: &'a mut dyn BlockExchange,
}

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A collective failed.
    #[error(transparent)]
    Comm(#[from] crate::comm::CommError),
}

/// An update rule with its state.
pub trait Optimizer<B: Backend>: Send {
    /// Steps the parameters of `step.segments`, and nothing else.
    fn step(&mut self, step: Step<'_, B>) -> Result<(), StepError>;

    /// Names of the state arrays, in order: `["m", "v"]` for Adam. A checkpoint stores each under
    /// `tensor/name`.
    fn state_names(&self) -> &'static [&'static str];

    /// What every element of a state array starts from.
    fn initial(&self, _index: usize) -> f32 {
        0.0
    }

    /// One state array, `[state elements]`.
    fn state(&self, index: usize) -> View<'_, B>;

    /// One state array, to restore it.
    fn state_mut(&mut self, index: usize) -> ViewMut<'_, B>;
}

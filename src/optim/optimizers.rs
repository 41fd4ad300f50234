//! The optimizers of a model: one, or one for each side of it.

use super::segments::of_optimizer;
use super::{Optimizer, OptimizerSpec, Segment, Step, StepError};
use crate::backend::{Backend, BackendError};
use crate::params::Layout;

/// The learning rate that schedules start from: the first that is not 0, for a side of rate 0 stands still.
pub fn base_rate(specs: &[OptimizerSpec]) -> f64 {
    let mut rates = specs.iter().map(OptimizerSpec::learning_rate);
    rates.find(|&rate| rate != 0.0).unwrap_or(0.0)
}

/// The optimizers of a model, each with what it steps: the tensors that were given to it by
/// [`Build::stepped_by`](crate::layers::Build::stepped_by).
pub struct Optimizers<B: Backend> {
    parts: Vec<Part<B>>,
}

/// One optimizer and what it steps.
pub struct Part<B: Backend> {
    /// The rule with its state.
    pub optimizer: Box<dyn Optimizer<B>>,
    /// What it steps, its state laid out in that order.
    pub segments: Vec<Segment>,
    /// Its learning rate over [`base_rate`].
    rate: f64,
}

impl<B: Backend> Optimizers<B> {
    /// The optimizers `specs` of a rank that steps `segments` of `layout`.
    ///
    /// # Errors
    /// If there is no memory for their state.
    ///
    /// # Panics
    /// If a tensor of the layout is stepped by one that is not there.
    pub fn new(
        backend: &mut B,
        layout: &Layout,
        segments: &[Segment],
        specs: &[OptimizerSpec],
    ) -> Result<Self, BackendError> {
        let tensors = layout.tensors().iter();
        assert!(
            tensors.clone().all(|tensor| tensor.optimizer < specs.len()),
            "every tensor has an optimizer"
        );
        let base = base_rate(specs);
        let part = |(index, spec): (usize, &OptimizerSpec)| {
            let segments = of_optimizer(layout, segments, index);
            let rate = spec.learning_rate();
            Ok(Part {
                optimizer: spec.build(backend, layout, &segments)?,
                segments,
                rate: if base == 0.0 { 1.0 } else { rate / base },
            })
        };
        let parts = specs
            .iter()
            .enumerate()
            .map(part)
            .collect::<Result<_, _>>()?;
        Ok(Self { parts })
    }

    /// Steps everything. `step.rate` is what has become of [`base_rate`]; each has the ratio to it that its
    /// learning rate has. `step.segments` are all of them.
    ///
    /// # Errors
    /// If a device or a collective fails.
    pub fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        for part in &mut self.parts {
            part.optimizer.step(Step {
                backend: &mut *step.backend,
                t: step.t,
                rate: step.rate * part.rate,
                gradient_scale: step.gradient_scale,
                gradient_limit: step.gradient_limit,
                parameters: B::reborrow(&mut step.parameters),
                gradients: B::slice(step.gradients, 0..B::len(step.gradients)),
                segments: &part.segments,
                exchange: &mut *step.exchange,
            })?;
        }
        Ok(())
    }

    /// Each, in the order of the model's numbers.
    pub fn parts(&self) -> &[Part<B>] {
        &self.parts
    }

    /// Each, to restore or to replace state.
    pub fn parts_mut(&mut self) -> &mut [Part<B>] {
        &mut self.parts
    }
}

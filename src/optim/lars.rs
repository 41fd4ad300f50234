//! LARS (You et al., 2017): momentum whose step is, tensor by tensor, a share of the weights.

use super::elementwise::allocate;
use super::norms::TrustRates;
use super::segments::runs;
use super::{Optimizer, Segment, Step, StepError};
use crate::backend::{
    Backend, BackendError, LarsRule, Preparation, TrustRule, View, ViewMut, Weights,
};
use crate::params::Layout;

/// `r = trust * |p| / (|g| + weight_decay * |p| + epsilon)`, then
/// `v = momentum * v - lr * r * (g + weight_decay * p); p += v`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lars {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// Share of the last change that is made again.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub momentum: f64,
    /// Length of a step as a share of the weights' length.
    #[serde(deserialize_with = "crate::range::positive")]
    pub trust: f64,
    /// Added to the divisor.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub epsilon: f64,
    /// Share of the weights in the direction.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Lars {
    fn default() -> Self {
        Self {
            learning_rate: 0.1,
            momentum: 0.9,
            trust: 1e-3,
            epsilon: 0.0,
            weight_decay: 1e-4,
        }
    }
}

/// LARS with its state.
pub(super) struct LarsOptimizer<B: Backend> {
    spec: Lars,
    /// The momentum.
    state: Vec<B::Buffer<f32>>,
    trust: TrustRates<B>,
}

impl<B: Backend> LarsOptimizer<B> {
    pub(super) fn new(
        spec: Lars,
        backend: &mut B,
        layout: &Layout,
        segments: &[Segment],
    ) -> Result<Self, BackendError> {
        Ok(Self {
            spec,
            state: allocate(backend, 1, segments)?,
            trust: TrustRates::new(backend, layout, segments)?,
        })
    }
}

impl<B: Backend> Optimizer<B> for LarsOptimizer<B> {
    fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        let preparation = Preparation {
            scale: step.gradient_scale,
            limit: step.gradient_limit,
            decay: 1.0,
        };
        for run in runs(step.segments) {
            let parameters = B::slice(B::shared(&step.parameters), run.arena.clone());
            let sums = self.trust.parameters.blocks(run.blocks.clone());
            step.backend
                .block_sums_of_squares(Preparation::NONE, parameters, sums);
            let gradients = B::slice(step.gradients, run.arena.clone());
            let sums = self.trust.directions.blocks(run.blocks.clone());
            step.backend
                .block_sums_of_squares(preparation, gradients, sums);
        }
        let trust = TrustRule {
            rate: step.rate,
            trust: self.spec.trust,
            weight_decay: self.spec.weight_decay,
            epsilon: self.spec.epsilon,
        };
        self.trust.compute(step.backend, trust, step.exchange)?;
        let rule = LarsRule {
            preparation,
            momentum: self.spec.momentum as f32,
            weight_decay: self.spec.weight_decay as f32,
        };
        for run in runs(step.segments) {
            step.backend.lars(
                rule,
                Weights {
                    p: B::slice_mut(B::reborrow(&mut step.parameters), run.arena.clone()),
                    g: B::slice(step.gradients, run.arena.clone()),
                    spared: Some(B::slice(B::view(&self.trust.spared), run.blocks.clone())),
                },
                self.trust.rates(run.blocks.clone()),
                B::slice_mut(B::view_mut(&mut self.state[0]), run.state),
            );
        }
        Ok(())
    }

    fn state_names(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn state(&self, index: usize) -> View<'_, B> {
        B::view(&self.state[index])
    }

    fn state_mut(&mut self, index: usize) -> ViewMut<'_, B> {
        B::view_mut(&mut self.state[index])
    }
}

//! LAMB (You et al., 2020): Adam whose step has, tensor by tensor, the length of the weights.

use super::elementwise::allocate;
use super::norms::TrustRates;
use super::segments::runs;
use super::{Optimizer, Segment, Step, StepError};
use crate::backend::{
    Backend, BackendError, LambRule, Preparation, TrustRule, View, ViewMut, Weights,
};
use crate::params::Layout;

/// `u = m' / (sqrt(v') + epsilon) + weight_decay * p; p -= lr * |p| / |u| * u`, where `m'` and `v'`
/// are Adam's averages without their bias.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lamb {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// Decay of the average gradient.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub beta_1: f64,
    /// Decay of the average square.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub beta_2: f64,
    /// Added to the root.
    #[serde(deserialize_with = "crate::range::positive")]
    pub epsilon: f64,
    /// Share of the weights in the direction.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
        }
    }
}

/// LAMB with its state.
pub(super) struct LambOptimizer<B: Backend> {
    spec: Lamb,
    /// `m` and `v`.
    state: Vec<B::Buffer<f32>>,
    trust: TrustRates<B>,
}

impl<B: Backend> LambOptimizer<B> {
    pub(super) fn new(
        spec: Lamb,
        backend: &mut B,
        layout: &Layout,
        segments: &[Segment],
    ) -> Result<Self, BackendError> {
        Ok(Self {
            spec,
            state: allocate(backend, 2, segments)?,
            trust: TrustRates::new(backend, layout, segments)?,
        })
    }

    fn rule(&self, step: &Step<'_, B>) -> LambRule {
        let correction = |beta: f64| (1.0 - beta.powf(step.t as f64)).recip() as f32;
        LambRule {
            preparation: Preparation {
                scale: step.gradient_scale,
                limit: step.gradient_limit,
                decay: 1.0,
            },
            mix_1: (1.0 - self.spec.beta_1) as f32,
            mix_2: (1.0 - self.spec.beta_2) as f32,
            correction_1: correction(self.spec.beta_1),
            correction_2: correction(self.spec.beta_2),
            epsilon: self.spec.epsilon as f32,
            weight_decay: self.spec.weight_decay as f32,
        }
    }
}

impl<B: Backend> Optimizer<B> for LambOptimizer<B> {
    fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        let rule = self.rule(&step);
        let [m, v] = self.state.as_mut_slice() else {
            unreachable!("LAMB has two state arrays")
        };
        for run in runs(step.segments) {
            let TrustRates {
                spared,
                parameters,
                directions,
                ..
            } = &mut self.trust;
            step.backend.lamb_averages(
                rule,
                Weights {
                    p: B::slice_mut(B::reborrow(&mut step.parameters), run.arena.clone()),
                    g: B::slice(step.gradients, run.arena.clone()),
                    spared: Some(B::slice(B::view(spared), run.blocks.clone())),
                },
                B::slice_mut(B::view_mut(m), run.state.clone()),
                B::slice_mut(B::view_mut(v), run.state.clone()),
                parameters.blocks(run.blocks.clone()),
                directions.blocks(run.blocks.clone()),
            );
        }
        let trust = TrustRule {
            rate: step.rate,
            trust: 1.0,
            weight_decay: 0.0,
            epsilon: 0.0,
        };
        self.trust.compute(step.backend, trust, step.exchange)?;
        for run in runs(step.segments) {
            step.backend.lamb_step(
                rule,
                Weights {
                    p: B::slice_mut(B::reborrow(&mut step.parameters), run.arena.clone()),
                    g: B::slice(step.gradients, run.arena.clone()),
                    spared: Some(B::slice(B::view(&self.trust.spared), run.blocks.clone())),
                },
                self.trust.rates(run.blocks.clone()),
                B::slice(B::view(m), run.state.clone()),
                B::slice(B::view(v), run.state),
            );
        }
        Ok(())
    }

    fn state_names(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn state(&self, index: usize) -> View<'_, B> {
        B::view(&self.state[index])
    }

    fn state_mut(&mut self, index: usize) -> ViewMut<'_, B> {
        B::view_mut(&mut self.state[index])
    }
}

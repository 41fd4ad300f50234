//! LAMB (You et al., 2020): Adam whose step has, tensor by tensor, the length of the weights.

use std::ops::Range;

use super::elementwise::allocate;
use super::norms::{BlockSums, by_tensor, norm, tensor_blocks};
use super::segments::{Groups, runs};
use super::{Optimizer, Segment, Step, StepError};
use crate::backend::{Backend, BackendError, LambRule, Preparation, View, ViewMut};
use crate::params::{Group, Layout};

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
    tensor_blocks: Vec<Range<usize>>,
    parameter_sums: BlockSums<B>,
    direction_sums: BlockSums<B>,
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
            tensor_blocks: tensor_blocks(layout),
            parameter_sums: BlockSums::new(backend, layout)?,
            direction_sums: BlockSums::new(backend, layout)?,
        })
    }

    fn rule(&self, step: &Step<'_, B>, group: Group) -> LambRule {
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
            weight_decay: match group {
                Group::Decay => self.spec.weight_decay as f32,
                Group::NoDecay => 0.0,
            },
        }
    }
}

impl<B: Backend> Optimizer<B> for LambOptimizer<B> {
    fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        for run in runs(step.segments, Groups::Apart) {
            let rule = self.rule(&step, run.group);
            let [m, v] = self.state.as_mut_slice() else {
                unreachable!("LAMB has two state arrays")
            };
            step.backend.lamb_averages(
                rule,
                B::slice(B::shared(&step.parameters), run.arena.clone()),
                B::slice(step.gradients, run.arena.clone()),
                B::slice_mut(B::view_mut(m), run.state.clone()),
                B::slice_mut(B::view_mut(v), run.state.clone()),
                self.parameter_sums.blocks(run.blocks()),
                self.direction_sums.blocks(run.blocks()),
            );
        }
        self.parameter_sums.complete(step.backend, step.exchange)?;
        self.direction_sums.complete(step.backend, step.exchange)?;
        for tensor in by_tensor(step.segments) {
            let (group, blocks) = (
                tensor[0].group,
                self.tensor_blocks[tensor[0].tensor].clone(),
            );
            let lengths = (
                norm(&self.parameter_sums.all()[blocks.clone()]),
                norm(&self.direction_sums.all()[blocks]),
            );
            let ratio = match (group, lengths) {
                (Group::NoDecay, _) | (_, (0.0, _) | (_, 0.0)) => 1.0,
                (Group::Decay, (parameters, direction)) => parameters / direction,
            };
            let rule = self.rule(&step, group);
            for segment in tensor {
                step.backend.lamb_step(
                    rule,
                    (step.rate * ratio) as f32,
                    B::slice_mut(B::reborrow(&mut step.parameters), segment.arena.clone()),
                    B::slice(B::view(&self.state[0]), segment.state.clone()),
                    B::slice(B::view(&self.state[1]), segment.state.clone()),
                );
            }
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

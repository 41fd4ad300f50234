//! LARS (You et al., 2017): momentum whose step is, tensor by tensor, a share of the weights.

use std::ops::Range;

use super::elementwise::allocate;
use super::norms::{BlockSums, by_tensor, norm, tensor_blocks};
use super::segments::{Groups, runs};
use super::{Optimizer, Segment, Step, StepError};
use crate::backend::{Backend, BackendError, LarsRule, Preparation, View, ViewMut};
use crate::params::{Group, Layout};

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
    tensor_blocks: Vec<Range<usize>>,
    parameter_sums: BlockSums<B>,
    gradient_sums: BlockSums<B>,
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
            tensor_blocks: tensor_blocks(layout),
            parameter_sums: BlockSums::new(backend, layout)?,
            gradient_sums: BlockSums::new(backend, layout)?,
        })
    }

    /// How long a tensor's step is for its gradient, and its weight decay.
    fn ratio(&self, group: Group, blocks: Range<usize>) -> (f64, f64) {
        if group == Group::NoDecay {
            return (1.0, 0.0);
        }
        let weights = norm(&self.parameter_sums.all()[blocks.clone()]);
        let gradient = norm(&self.gradient_sums.all()[blocks]);
        let Lars {
            trust,
            epsilon,
            weight_decay,
            ..
        } = self.spec;
        match (weights, gradient) {
            (0.0, _) | (_, 0.0) => (1.0, weight_decay),
            _ => (
                trust * weights / (gradient + weight_decay * weights + epsilon),
                weight_decay,
            ),
        }
    }
}

impl<B: Backend> Optimizer<B> for LarsOptimizer<B> {
    fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        let preparation = Preparation {
            scale: step.gradient_scale,
            limit: step.gradient_limit,
            decay: 1.0,
        };
        for run in runs(step.segments, Groups::Alike) {
            let parameters = B::slice(B::shared(&step.parameters), run.arena.clone());
            let sums = self.parameter_sums.blocks(run.blocks());
            step.backend
                .block_sums_of_squares(Preparation::NONE, parameters, sums);
            let gradients = B::slice(step.gradients, run.arena.clone());
            let sums = self.gradient_sums.blocks(run.blocks());
            step.backend
                .block_sums_of_squares(preparation, gradients, sums);
        }
        self.parameter_sums.complete(step.backend, step.exchange)?;
        self.gradient_sums.complete(step.backend, step.exchange)?;
        for tensor in by_tensor(step.segments) {
            let blocks = self.tensor_blocks[tensor[0].tensor].clone();
            let (ratio, weight_decay) = self.ratio(tensor[0].group, blocks);
            let rule = LarsRule {
                preparation,
                rate: (step.rate * ratio) as f32,
                momentum: self.spec.momentum as f32,
                weight_decay: weight_decay as f32,
            };
            for segment in tensor {
                step.backend.lars(
                    rule,
                    B::slice_mut(B::reborrow(&mut step.parameters), segment.arena.clone()),
                    B::slice(step.gradients, segment.arena.clone()),
                    B::slice_mut(B::view_mut(&mut self.state[0]), segment.state.clone()),
                );
            }
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

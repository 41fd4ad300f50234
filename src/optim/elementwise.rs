//! Optimizers whose rule knows one element at a time: one kernel call steps as many tensors as lie
//! side by side.

use std::ops::Range;

use super::segments::{runs, spared, state_len};
use super::{Optimizer, Segment, Step, StepError};
use crate::backend::{Backend, BackendError, Preparation, View, ViewMut, Weights};

/// An update rule for one element with its settings.
pub(super) trait Rule: Copy + Send + 'static {
    /// Names of the state arrays.
    fn state_names(&self) -> &'static [&'static str];

    /// What the first state array starts from.
    fn initial(&self) -> f64 {
        0.0
    }

    /// Decoupled weight decay.
    fn weight_decay(&self) -> f64;

    /// Steps one run of elements.
    fn apply<B: Backend>(&self, call: Call<'_, B>);
}

/// One run of elements to step.
pub(super) struct Call<'a, B: Backend> {
    pub(super) backend: &'a mut B,
    /// Number of the step, from 1.
    pub(super) t: f64,
    /// Learning rate.
    pub(super) rate: f64,
    pub(super) preparation: Preparation,
    pub(super) weights: Weights<'a, B>,
    state: &'a mut [B::Buffer<f32>],
    range: Range<usize>,
}

/// The parts of a [`Call`].
pub(super) struct Parts<'a, B: Backend, const N: usize> {
    pub(super) backend: &'a mut B,
    pub(super) weights: Weights<'a, B>,
    pub(super) state: [ViewMut<'a, B>; N],
}

impl<'a, B: Backend> Call<'a, B> {
    /// The parts with the run's place in `N` state arrays, as many as the rule names.
    pub(super) fn parts<const N: usize>(self) -> Parts<'a, B, N> {
        let arrays: &mut [B::Buffer<f32>; N] = self
            .state
            .try_into()
            .expect("a rule asks for the arrays it names");
        let range = self.range;
        Parts {
            backend: self.backend,
            weights: self.weights,
            state: arrays
                .each_mut()
                .map(|array| B::slice_mut(B::view_mut(array), range.clone())),
        }
    }
}

/// A rule with its state.
pub(super) struct Elementwise<B: Backend, R> {
    rule: R,
    state: Vec<B::Buffer<f32>>,
    /// What weight decay spares, block by block, where there is any.
    spared: Option<B::Buffer<u32>>,
}

impl<B: Backend, R: Rule> Elementwise<B, R> {
    pub(super) fn new(
        rule: R,
        backend: &mut B,
        segments: &[Segment],
    ) -> Result<Self, BackendError> {
        let mut state = allocate(backend, rule.state_names().len(), segments)?;
        if let Some(first) = state.first_mut()
            && rule.initial() != 0.0
        {
            // Not the padding, which stays zero.
            for segment in segments {
                let elements = B::slice_mut(B::view_mut(first), segment.state.clone());
                backend.fill(elements, rule.initial() as f32);
            }
        }
        let spared = match rule.weight_decay() == 0.0 {
            true => None,
            false => Some(spared(backend, segments)?),
        };
        Ok(Self {
            rule,
            state,
            spared,
        })
    }
}

/// Zeroed state arrays for `segments`.
pub(super) fn allocate<B: Backend>(
    backend: &mut B,
    arrays: usize,
    segments: &[Segment],
) -> Result<Vec<B::Buffer<f32>>, BackendError> {
    let len = state_len(segments);
    (0..arrays)
        .map(|_| backend.allocate("optimizer state", len))
        .collect()
}

impl<B: Backend, R: Rule> Optimizer<B> for Elementwise<B, R> {
    fn step(&mut self, mut step: Step<'_, B>) -> Result<(), StepError> {
        let decay = 1.0 - step.rate * self.rule.weight_decay();
        for run in runs(step.segments) {
            let spared = self.spared.as_ref();
            let parameters = B::reborrow(&mut step.parameters);
            self.rule.apply(Call {
                backend: &mut *step.backend,
                t: step.t as f64,
                rate: step.rate,
                preparation: Preparation {
                    scale: step.gradient_scale,
                    limit: step.gradient_limit,
                    decay: decay as f32,
                },
                weights: Weights {
                    p: B::slice_mut(parameters, run.arena.clone()),
                    g: B::slice(step.gradients, run.arena.clone()),
                    spared: spared.map(|spared| B::slice(B::view(spared), run.blocks.clone())),
                },
                state: &mut self.state,
                range: run.state,
            });
        }
        Ok(())
    }

    fn state_names(&self) -> &'static [&'static str] {
        self.rule.state_names()
    }

    fn initial(&self, index: usize) -> f32 {
        match index {
            0 => self.rule.initial() as f32,
            _ => 0.0,
        }
    }

    fn state(&self, index: usize) -> View<'_, B> {
        B::view(&self.state[index])
    }

    fn state_mut(&mut self, index: usize) -> ViewMut<'_, B> {
        B::view_mut(&mut self.state[index])
    }
}

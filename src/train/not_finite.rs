//! What is not finite in a step, and whose it is.

use super::{TrainError, Trainer};
use crate::backend::Backend;
use crate::models::Model;

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// The error.
    pub(super) fn not_finite(
        &self,
        what: &'static str,
        rank: usize,
        micro_batch: String,
        tensor: String,
    ) -> TrainError {
        TrainError::NotFinite {
            step: self.step + 1,
            what,
            rank,
            micro_batch,
            tensor,
        }
    }

    /// The first tensor with a gradient of `rank` that is not finite, as its magnitudes tell.
    pub(super) fn first_gradient_not_finite(&self, rank: usize) -> Option<String> {
        let index = self.gradient_not_finite(rank)?;
        Some(format!(
            "gradient of '{}'",
            self.layout.tensors()[index].name
        ))
    }

    /// Whether there is one.
    pub(super) fn has_gradient_not_finite(&self, rank: usize) -> bool {
        self.gradient_not_finite(rank).is_some()
    }

    fn gradient_not_finite(&self, rank: usize) -> Option<usize> {
        let infinite = f32::INFINITY.to_bits();
        let bad = |index: &usize| self.board.magnitude(rank, *index) >= infinite;
        (0..self.layout.tensors().len()).find(bad)
    }

    /// The first moving statistic to which `rank` would add something that is not finite.
    pub(super) fn first_statistic_not_finite(&self, rank: usize) -> Option<String> {
        let (infinite, tensors) = (f32::INFINITY.to_bits(), self.layout.tensors().len());
        let mut states = self.model.states().iter().enumerate();
        let bad = states.find(|(i, _)| self.board.magnitude(rank, tensors + i) >= infinite);
        bad.map(|(_, state)| format!("what '{}' follows", state.name))
    }

    /// The first tensor, parameters before gradients, that is not finite. Allocates: the run is
    /// over.
    pub(super) fn first_not_finite(&mut self, rank: usize) -> String {
        let mut host = vec![0.0; self.parameters.len()];
        let parameters = self.parameters_view();
        self.backend.clone().download(parameters, &mut host);
        let bad = |tensor: &&crate::params::Tensor| {
            host[tensor.range()].iter().any(|value| !value.is_finite())
        };
        match self.layout.tensors().iter().find(bad) {
            Some(tensor) => format!("parameter '{}'", tensor.name),
            None => self
                .first_gradient_not_finite(rank)
                .unwrap_or_else(|| "an activation or the input".to_owned()),
        }
    }
}

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

    /// The error of the first rank with such a gradient.
    pub(super) fn gradient_not_finite(&self, micro_batches: usize) -> TrainError {
        let world = self.board.world();
        let found = (0..world).find_map(|rank| Some((rank, self.first_gradient(rank)?)));
        let (rank, tensor) = found.expect("the largest magnitude is some rank's");
        self.not_finite("gradient", rank, format!("one of {micro_batches}"), tensor)
    }

    /// The error of the first rank that would add such a thing to a moving statistic.
    pub(super) fn statistic_not_finite(&self, micro_batches: usize) -> TrainError {
        let tensors = self.layout.tensors().len();
        let bad = |rank: usize| {
            let mut states = self.model.states().iter().enumerate();
            let bad = states.find(|(i, _)| !is_finite(&self.board.magnitude(rank, tensors + i)));
            Some((rank, format!("what '{}' follows", bad?.1.name)))
        };
        let found = (0..self.board.world()).find_map(bad);
        let (rank, tensor) = found.expect("the largest magnitude is some rank's");
        self.not_finite("statistic", rank, format!("one of {micro_batches}"), tensor)
    }

    /// The first tensor with a gradient of `rank` that is not finite, as its magnitudes tell.
    fn first_gradient(&self, rank: usize) -> Option<String> {
        let mut tensors = self.layout.tensors().iter().enumerate();
        let bad = tensors.find(|(i, _)| !is_finite(&self.board.magnitude(rank, *i)));
        bad.map(|(_, tensor)| format!("gradient of '{}'", tensor.name))
    }

    /// The first tensor, parameters and statistics before gradients, that is not finite. Allocates: the
    /// run is over.
    pub(super) fn first_not_finite(&mut self, rank: usize) -> String {
        let host = self.host_tensors();
        self.first_bad(&host)
            .or_else(|| self.first_gradient(rank))
            .unwrap_or_else(|| "an activation or the input".to_owned())
    }
}

/// Whether the number with this magnitude is finite.
pub(super) fn is_finite(magnitude: &u32) -> bool {
    *magnitude < f32::INFINITY.to_bits()
}

//! Stochastic gradient descent.

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{Backend, SgdRule};

/// `p -= lr * g`, with momentum `v = momentum * v - lr * g; p += v`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// Share of the last change that is made again; 0 keeps no state.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub momentum: f64,
    /// Looks ahead: `p += momentum * v - lr * g`.
    pub nesterov: bool,
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Self {
        Self {
            learning_rate: 0.01,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

impl Rule for Sgd {
    fn state_names(&self) -> &'static [&'static str] {
        match self.momentum == 0.0 {
            true => &[],
            false => &["momentum"],
        }
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        let rule = SgdRule {
            preparation: call.preparation,
            rate: call.rate as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
        };
        if self.momentum == 0.0 {
            call.backend.sgd(rule, call.weights);
        } else {
            let Parts {
                backend,
                weights,
                state: [v],
            } = call.parts();
            backend.sgd_momentum(rule, weights, v);
        }
    }
}

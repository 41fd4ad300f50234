//! Adagrad (Duchi et al., 2011).

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{AdagradRule, Backend};

/// `a += g^2; p -= lr * g / (sqrt(a) + epsilon)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adagrad {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// What the sum of squares starts from.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub initial_accumulator: f64,
    /// Added to the root.
    #[serde(deserialize_with = "crate::range::positive")]
    pub epsilon: f64,
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Adagrad {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            initial_accumulator: 0.1,
            epsilon: 1e-7,
            weight_decay: 0.0,
        }
    }
}

impl Rule for Adagrad {
    fn state_names(&self) -> &'static [&'static str] {
        &["accumulator"]
    }

    fn initial(&self) -> f64 {
        self.initial_accumulator
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        let rule = AdagradRule {
            preparation: call.preparation,
            rate: call.rate as f32,
            epsilon: self.epsilon as f32,
        };
        let Parts {
            backend,
            weights,
            state: [a],
        } = call.parts();
        backend.adagrad(rule, weights, a);
    }
}

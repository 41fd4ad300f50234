//! Lion (Chen et al., 2023).

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{Backend, LionRule};

/// `p -= lr * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// Weight of the average in the direction.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub beta_1: f64,
    /// Decay of the average.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub beta_2: f64,
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Lion {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta_1: 0.9,
            beta_2: 0.99,
            weight_decay: 0.0,
        }
    }
}

impl Rule for Lion {
    fn state_names(&self) -> &'static [&'static str] {
        &["m"]
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        let rule = LionRule {
            preparation: call.preparation,
            rate: call.rate as f32,
            beta_1: self.beta_1 as f32,
            mix_1: (1.0 - self.beta_1) as f32,
            beta_2: self.beta_2 as f32,
            mix_2: (1.0 - self.beta_2) as f32,
        };
        let Parts {
            backend,
            weights,
            state: [m],
        } = call.parts();
        backend.lion(rule, weights, m);
    }
}

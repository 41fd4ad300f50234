//! Follow the regularised leader (McMahan et al., 2013).

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{Backend, FtrlRule};

/// `n' = n + g^2; z += g - (n'^-power - n^-power) / lr * p`, then `p = 0` where `|z| <= l1`, else
/// `p = (sign(z) * l1 - z) / (n'^-power / lr + beta / lr + 2 * l2)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ftrl {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// At most 0; -0.5 divides by the root of the sum of squares.
    #[serde(deserialize_with = "crate::range::not_positive")]
    pub learning_rate_power: f64,
    /// What the sum of squares starts from.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub initial_accumulator: f64,
    /// Strength of the absolute penalty, which makes weights zero.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub l1: f64,
    /// Strength of the squared penalty.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub l2: f64,
    /// A squared penalty whose gradient, `2 * l2_shrinkage * p`, is added to `g` in `z` only.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub l2_shrinkage: f64,
    /// Added to the root of the sum of squares.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub beta: f64,
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Ftrl {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            learning_rate_power: -0.5,
            initial_accumulator: 0.1,
            l1: 0.0,
            l2: 0.0,
            l2_shrinkage: 0.0,
            beta: 0.0,
            weight_decay: 0.0,
        }
    }
}

impl Rule for Ftrl {
    fn state_names(&self) -> &'static [&'static str] {
        &["accumulator", "linear"]
    }

    fn initial(&self) -> f64 {
        self.initial_accumulator
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        // At rate 0, as at the start of a warm-up, nothing moves; the formula would divide by it.
        if call.rate == 0.0 {
            return;
        }
        let rule = FtrlRule {
            preparation: call.preparation,
            slowness: call.rate.recip() as f32,
            power: -self.learning_rate_power as f32,
            l1: self.l1 as f32,
            ridge: (2.0 * self.l2 + self.beta / call.rate) as f32,
            shrinkage: (2.0 * self.l2_shrinkage) as f32,
        };
        let Parts {
            backend,
            weights,
            state: [n, z],
        } = call.parts();
        backend.ftrl(rule, weights, n, z);
    }
}

//! Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, 2019).

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{AdamRule, Backend};

/// `p -= lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)`, where `m` and `v` are
/// moving averages of the gradient and its square.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
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
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            weight_decay: 0.0,
        }
    }
}

/// [`Adam`] whose weight decay is on by default.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
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
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        let Adam {
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            ..
        } = Adam::default();
        Self {
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            weight_decay: 0.004,
        }
    }
}

impl From<AdamW> for Adam {
    fn from(spec: AdamW) -> Self {
        Self {
            learning_rate: spec.learning_rate,
            beta_1: spec.beta_1,
            beta_2: spec.beta_2,
            epsilon: spec.epsilon,
            weight_decay: spec.weight_decay,
        }
    }
}

impl Rule for Adam {
    fn state_names(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        // All in single precision, as TensorFlow has it: the step size is then off by some 1e-5 in the first
        // steps, and a run whose losses are to be TensorFlow's has to be off with it.
        let [beta_1, beta_2] = [self.beta_1, self.beta_2].map(|beta| beta as f32);
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(call.t) as f32;
        let rule = AdamRule {
            preparation: call.preparation,
            rate: call.rate as f32 * correction(beta_2).sqrt() / correction(beta_1),
            mix_1: 1.0 - beta_1,
            mix_2: 1.0 - beta_2,
            epsilon: self.epsilon as f32,
        };
        let Parts {
            backend,
            weights,
            state: [m, v],
        } = call.parts();
        backend.adam(rule, weights, m, v);
    }
}

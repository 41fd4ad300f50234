//! RMSprop (Tieleman & Hinton, 2012), as Keras and as TensorFlow 1 have it.

use super::elementwise::{Call, Parts, Rule};
use crate::backend::{Backend, RmsPropRule};

/// `s = rho * s + (1 - rho) * g^2; p -= lr * g / sqrt(s + epsilon)`.
///
/// Centred, the square of the average gradient is taken from `s`. With momentum the quotient is
/// added to `momentum` times the last change first.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmsProp {
    /// Learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub learning_rate: f64,
    /// Decay of the averages.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub rho: f64,
    /// Share of the last change that is made again.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub momentum: f64,
    /// Keeps the divisor off zero.
    #[serde(deserialize_with = "crate::range::positive")]
    pub epsilon: f64,
    /// Where `epsilon` is added.
    pub epsilon_placement: EpsilonPlacement,
    /// Divides by an estimate of the standard deviation rather than of the root mean square.
    pub centered: bool,
    /// What the average square starts from; 1 in TensorFlow 1.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub initial_mean_square: f64,
    /// Share of a parameter that decays per unit of learning rate.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub weight_decay: f64,
}

/// Where RMSprop adds its `epsilon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonPlacement {
    /// `sqrt(s + epsilon)`: Keras from 2.11 on, and TensorFlow 1.
    #[default]
    UnderRoot,
    /// `sqrt(s) + epsilon`: Keras before.
    BesideRoot,
}

impl Default for RmsProp {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            rho: 0.9,
            momentum: 0.0,
            epsilon: 1e-7,
            epsilon_placement: EpsilonPlacement::UnderRoot,
            centered: false,
            initial_mean_square: 0.0,
            weight_decay: 0.0,
        }
    }
}

impl Rule for RmsProp {
    fn state_names(&self) -> &'static [&'static str] {
        match (self.centered, self.momentum == 0.0) {
            (false, true) => &["mean_square"],
            (false, false) => &["mean_square", "momentum"],
            (true, true) => &["mean_square", "mean"],
            (true, false) => &["mean_square", "mean", "momentum"],
        }
    }

    fn initial(&self) -> f64 {
        self.initial_mean_square
    }

    fn weight_decay(&self) -> f64 {
        self.weight_decay
    }

    fn apply<B: Backend>(&self, call: Call<'_, B>) {
        let (inner, outer) = match self.epsilon_placement {
            EpsilonPlacement::UnderRoot => (self.epsilon, 0.0),
            EpsilonPlacement::BesideRoot => (0.0, self.epsilon),
        };
        let rule = RmsPropRule {
            preparation: call.preparation,
            rate: call.rate as f32,
            rho: self.rho as f32,
            mix: (1.0 - self.rho) as f32,
            inner: inner as f32,
            outer: outer as f32,
            momentum: self.momentum as f32,
        };
        match (self.centered, self.momentum == 0.0) {
            (false, true) => {
                let Parts {
                    backend,
                    weights,
                    state: [s],
                } = call.parts();
                backend.rms_prop(rule, weights, s, None, None);
            }
            (false, false) => {
                let Parts {
                    backend,
                    weights,
                    state: [s, v],
                } = call.parts();
                backend.rms_prop(rule, weights, s, None, Some(v));
            }
            (true, true) => {
                let Parts {
                    backend,
                    weights,
                    state: [s, a],
                } = call.parts();
                backend.rms_prop(rule, weights, s, Some(a), None);
            }
            (true, false) => {
                let Parts {
                    backend,
                    weights,
                    state: [s, a, v],
                } = call.parts();
                backend.rms_prop(rule, weights, s, Some(a), Some(v));
            }
        }
    }
}

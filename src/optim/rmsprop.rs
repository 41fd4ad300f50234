//! RMSprop (Tieleman & Hinton, 2012), as Keras and as TensorFlow 1 have it.

/// `s = rho * s + (1 - rho) * g^2; p -= lr * g / sqrt(s + epsilon)`.
///
/// Centred, the square of the average gradient is taken from `s`. With momentum the quotient is
/// added to `momentum` times the last change first.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RmsProp {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the averages.
    pub rho: f64,
    /// Share of the last change that is made again.
    pub momentum: f64,
    /// Keeps the divisor off zero.
    pub epsilon: f64,
    /// Where `epsilon` is added.
    pub epsilon_placement: EpsilonPlacement,
    /// Divides by an estimate of the standard deviation rather than of the root mean square.
    pub centered: bool,
    /// What the average square starts from; 1 in TensorFlow 1.
    pub initial_mean_square: f64,
    /// Share of a parameter that decays per unit of learning rate.
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

//! LAMB (You et al., 2020): Adam whose step has, tensor by tensor, the length of the weights.

/// `u = m' / (sqrt(v') + epsilon) + weight_decay * p; p -= lr * |p| / |u| * u`, where `m'` and `v'`
/// are Adam's averages without their bias.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lamb {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the average gradient.
    pub beta_1: f64,
    /// Decay of the average square.
    pub beta_2: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Share of the weights in the direction.
    pub weight_decay: f64,
}

impl Default for Lamb {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
        }
    }
}

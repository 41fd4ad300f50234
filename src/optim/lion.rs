//! Lion (Chen et al., 2023).

/// `p -= lr * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// Learning rate.
    pub learning_rate: f64,
    /// Weight of the average in the direction.
    pub beta_1: f64,
    /// Decay of the average.
    pub beta_2: f64,
    /// Share of a parameter that decays per unit of learning rate.
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

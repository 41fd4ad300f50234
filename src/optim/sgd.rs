//! Stochastic gradient descent.

/// `p -= lr * g`, with momentum `v = momentum * v - lr * g; p += v`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate.
    pub learning_rate: f64,
    /// Share of the last change that is made again; 0 keeps no state.
    pub momentum: f64,
    /// Looks ahead: `p += momentum * v - lr * g`.
    pub nesterov: bool,
    /// Share of a parameter that decays per unit of learning rate.
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

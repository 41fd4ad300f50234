//! LARS (You et al., 2017): momentum whose step is, tensor by tensor, a share of the weights.

/// `r = trust * |p| / (|g| + weight_decay * |p| + epsilon)`, then
/// `v = momentum * v - lr * r * (g + weight_decay * p); p += v`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lars {
    /// Learning rate.
    pub learning_rate: f64,
    /// Share of the last change that is made again.
    pub momentum: f64,
    /// Length of a step as a share of the weights' length.
    pub trust: f64,
    /// Added to the divisor.
    pub epsilon: f64,
    /// Share of the weights in the direction.
    pub weight_decay: f64,
}

impl Default for Lars {
    fn default() -> Self {
        Self {
            learning_rate: 0.1,
            momentum: 0.9,
            trust: 1e-3,
            epsilon: 0.0,
            weight_decay: 1e-4,
        }
    }
}

//! Follow the regularised leader (McMahan et al., 2013).

/// `n' = n + g^2; z += g - (n'^-power - n^-power) / lr * p`, then `p = 0` where `|z| <= l1`, else
/// `p = (sign(z) * l1 - z) / (n'^-power / lr + beta / lr + 2 * l2)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ftrl {
    /// Learning rate.
    pub learning_rate: f64,
    /// At most 0; -0.5 divides by the root of the sum of squares.
    pub learning_rate_power: f64,
    /// What the sum of squares starts from.
    pub initial_accumulator: f64,
    /// Strength of the absolute penalty, which makes weights zero.
    pub l1: f64,
    /// Strength of the squared penalty.
    pub l2: f64,
    /// A squared penalty whose gradient, `2 * l2_shrinkage * p`, is added to `g` in `z` only.
    pub l2_shrinkage: f64,
    /// Added to the root of the sum of squares.
    pub beta: f64,
    /// Share of a parameter that decays per unit of learning rate.
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

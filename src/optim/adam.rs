//! Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, 2019).

/// `p -= lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)`, where `m` and `v` are
/// moving averages of the gradient and its square.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the average gradient.
    pub beta_1: f64,
    /// Decay of the average square.
    pub beta_2: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Share of a parameter that decays per unit of learning rate.
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
    pub learning_rate: f64,
    /// Decay of the average gradient.
    pub beta_1: f64,
    /// Decay of the average square.
    pub beta_2: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Share of a parameter that decays per unit of learning rate.
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

//! Limits on gradients, with Keras's meaning.

/// How gradients are limited before the update.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipSpec {
    /// Every element to `[-value, value]`.
    Value(f64),
    /// All gradients by one factor, so that their common norm is at most this.
    GlobalNorm(f64),
}

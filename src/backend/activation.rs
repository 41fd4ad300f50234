//! Element-wise functions, softmax, dropout, sums over rows, and additions.

use super::Memory;

/// An element-wise function that follows a layer's sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x`
    Linear,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        slope: f32,
    },
    /// `x` where positive, else `alpha * (exp(x) - 1)`.
    Elu {
        /// Negated limit at minus infinity.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x * Φ(x)` with the normal distribution's Φ.
    Gelu,
    /// Gelu by its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`
    Silu,
}

/// Element-wise functions, softmax, dropout, sums over rows, and additions.
pub trait Activate: Memory {}

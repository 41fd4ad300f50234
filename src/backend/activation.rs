//! Element-wise functions, softmax, dropout, sums over rows, and additions.

use super::{Accumulate, Memory, View, ViewMut};

/// Rows that [`Activate::sum_rows`] adds before it adds the sums of blocks: keeps rounding errors
/// small.
pub(super) const BLOCK: usize = 64;

/// An element-wise function that follows a layer's sum.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// What a gradient is computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The function's input.
    Input,
    /// Its output, so that the input can be overwritten.
    Output,
}

impl Activation {
    /// What [`Activate::activate_backward`] wants to be given.
    pub fn saved(self) -> Saved {
        match self {
            Self::Gelu | Self::GeluTanh | Self::Silu => Saved::Input,
            _ => Saved::Output,
        }
    }
}

/// Which elements a dropout keeps: a function of all this and the element, not of the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// Global step.
    pub step: u64,
    /// The layer's number.
    pub layer: u32,
    /// Place of the first row in the global batch.
    pub first_sample: u64,
}

/// Element-wise functions, softmax, dropout, sums over rows, and additions.
///
/// Matrices are `[rows, columns]`, row-major; `columns` divides the length.
pub trait Activate: Memory {
    /// `y = f(x)`.
    fn activate(&mut self, activation: Activation, x: View<'_, Self>, y: ViewMut<'_, Self>);

    /// `y = f(y)`.
    fn activate_in_place(&mut self, activation: Activation, y: ViewMut<'_, Self>);

    /// `dy = dy * f'`, from what [`Activation::saved`] says.
    fn activate_backward(
        &mut self,
        activation: Activation,
        saved: View<'_, Self>,
        dy: ViewMut<'_, Self>,
    );

    /// `y = softmax(x)` over each row.
    fn softmax(&mut self, columns: usize, x: View<'_, Self>, y: ViewMut<'_, Self>);

    /// `dy = ` the gradient of the input of `y = softmax(x)`.
    fn softmax_backward(&mut self, columns: usize, y: View<'_, Self>, dy: ViewMut<'_, Self>);

    /// `sum = a + b`.
    fn add(&mut self, a: View<'_, Self>, b: View<'_, Self>, sum: ViewMut<'_, Self>);

    /// `sum += a`.
    fn add_assign(&mut self, a: View<'_, Self>, sum: ViewMut<'_, Self>);

    /// `sums = ` or `sums += ` the sum of each column, `[columns]`: rows are added in order within
    /// blocks, and the blocks in order.
    fn sum_rows(
        &mut self,
        columns: usize,
        x: View<'_, Self>,
        sums: ViewMut<'_, Self>,
        write: Accumulate,
    );

    /// `y = x / (1 - rate)` where kept, else 0. Element `e` of sample `s` is dropped if word `e % 4`
    /// of `philox([e / 4, s, layer, step], seed)` is below `rate * 2^32`. The same call on `dy` is
    /// the gradient.
    fn dropout(
        &mut self,
        key: DropoutKey,
        rate: f32,
        columns: usize,
        x: View<'_, Self>,
        y: ViewMut<'_, Self>,
    );
}

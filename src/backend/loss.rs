//! Losses with their gradient in one pass.

use super::{Memory, View, ViewMut};

/// A loss of one row of `outputs` numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// `log Σ exp(x) - Σ y x` over logits `x`, where `y` sums to 1.
    SoftmaxCrossEntropy {
        /// Share of `y` that is spread evenly over all classes.
        smoothing: f32,
    },
    /// `max(x, 0) - x y + log(1 + exp(-|x|))`, the mean over the outputs.
    SigmoidCrossEntropy {
        /// Share of `y` that is replaced by one half.
        smoothing: f32,
    },
    /// `(x - y)^2`, the mean over the outputs.
    SquaredError,
    /// `|x - y|`, the mean over the outputs.
    AbsoluteError,
    /// `(x - y)^2 / 2` up to `delta`, then `delta |x - y| - delta^2 / 2`; the mean over the outputs.
    Huber {
        /// Where the line starts.
        delta: f32,
    },
}

/// What a loss compares.
#[derive(Clone, Copy)]
pub struct Compared<'a, B: Memory> {
    /// `[rows, outputs]`
    pub outputs: View<'a, B>,
    /// `[rows, outputs]`, or `[rows]` class indices for a softmax cross entropy.
    pub targets: View<'a, B>,
    /// `[rows]`; `None` counts every row as 1.
    pub weights: Option<View<'a, B>>,
}

/// Losses with their gradient in one pass.
pub trait Losses: Memory {
    /// `report = ` the weighted sum of the rows' losses, the sum of weights, the sum of the metric,
    /// the number of rows; `gradient = ` the gradient of the weighted sum, `[rows, outputs]`, where
    /// asked.
    ///
    /// The metric of a row is 1 where the largest output is the largest target (cross entropies;
    /// for the sigmoid, the share of outputs on the right side of 0), or the mean absolute error.
    /// Rows are added in order, in double precision. The loss of a class index that is none is NaN.
    fn loss(
        &mut self,
        loss: Loss,
        rows: usize,
        compared: Compared<'_, Self>,
        report: Self::ViewMut<'_, f64>,
        gradient: Option<ViewMut<'_, Self>>,
    );
}

//! The end of a model: loss, its gradient, and the metric.

use crate::named::registry;

registry! {
    /// What is minimised, and which metric goes with it.
    pub enum LossSpec ("a loss") {
        SoftmaxCrossEntropy(SoftmaxCrossEntropy) = "softmax_cross_entropy":
            "one class of several, from logits; labels are class indices or probabilities",
        SigmoidCrossEntropy(SigmoidCrossEntropy) = "sigmoid_cross_entropy":
            "yes or no for each output, from logits",
        SquaredError(SquaredError) = "squared_error": "mean of squared differences over the outputs",
        AbsoluteError(AbsoluteError) = "absolute_error":
            "mean of absolute differences over the outputs",
        Huber(Huber) = "huber": "squared near zero, absolute further out, mean over the outputs",
    }
}

/// Cross entropy of a softmax over the outputs.
///
/// Labels are one class index a row, or one probability an output.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoftmaxCrossEntropy {
    /// Share of each label that is spread evenly over all classes, as in Keras.
    pub label_smoothing: f64,
}

/// Cross entropy of a sigmoid for each output, the mean over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigmoidCrossEntropy {
    /// How far labels are drawn towards one half, as in Keras.
    pub label_smoothing: f64,
}

/// Squared difference, the mean over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquaredError {}

/// Absolute difference, the mean over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsoluteError {}

/// Half the squared difference up to `delta`, then a straight line; the mean over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Huber {
    /// Where the line starts.
    pub delta: f64,
}

impl Default for Huber {
    fn default() -> Self {
        Self { delta: 1.0 }
    }
}

/// What the sum of the losses over a global batch is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossReduction {
    /// Nothing.
    Sum,
    /// The number of rows, whatever their weights; Keras's `sum_over_batch_size`.
    #[default]
    Mean,
    /// The sum of the rows' weights.
    WeightedMean,
}

impl LossReduction {
    /// The divisor of a global batch; 0 where a weighted mean has no weight.
    pub fn denominator(self, weight_sum: f64, rows: f64) -> f64 {
        match self {
            Self::Sum => 1.0,
            Self::Mean => rows,
            Self::WeightedMean => weight_sum,
        }
    }

    /// What gradients of the sum are multiplied by: one over the denominator, or 0 where that is 0.
    pub fn gradient_scale(self, weight_sum: f64, rows: f64) -> f64 {
        match self.denominator(weight_sum, rows) {
            0.0 => 0.0,
            denominator => denominator.recip(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_weight_gives_no_gradient() {
        assert_eq!(LossReduction::WeightedMean.gradient_scale(0.0, 3.0), 0.0);
        assert_eq!(LossReduction::WeightedMean.gradient_scale(4.0, 3.0), 0.25);
        assert_eq!(LossReduction::Mean.gradient_scale(4.0, 2.0), 0.5);
        assert_eq!(LossReduction::Sum.gradient_scale(0.0, 3.0), 1.0);
    }
}

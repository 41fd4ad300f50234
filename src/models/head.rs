//! The end of a model: loss, its gradient, and the metric.

use super::{MicroBatch, Report};
use crate::backend::{Activation, Backend, Compared, Loss, View, ViewMut};
use crate::data::Targets;
use crate::layers::{ActivationSpec, Build, Context, LayerError, RowBuffer, Shape};
use crate::named::{listed, registry};
use crate::onnx::{Graph, Value};

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
    #[serde(deserialize_with = "crate::range::below_one")]
    pub label_smoothing: f64,
}

/// Cross entropy of a sigmoid for each output, the mean over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigmoidCrossEntropy {
    /// How far labels are drawn towards one half, as in Keras.
    #[serde(deserialize_with = "crate::range::below_one")]
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
    #[serde(deserialize_with = "crate::range::positive")]
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
    /// Nothing, and a row counts the sum of so many numbers' losses, whose mean its loss is.
    #[serde(skip)]
    SumOfNumbers(usize),
}

impl LossReduction {
    /// The divisor of a global batch; 0 where a weighted mean has no weight.
    pub fn denominator(self, weight_sum: f64, rows: f64) -> f64 {
        match self {
            Self::Sum => 1.0,
            Self::Mean => rows,
            Self::WeightedMean => weight_sum,
            Self::SumOfNumbers(numbers) => (numbers as f64).recip(),
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

/// The end of a model for one loss: keeps the gradient of the outputs between forward and backward.
pub struct Head<B: Backend> {
    loss: Loss,
    target_width: usize,
    outputs: usize,
    gradient: RowBuffer<B>,
}

impl<B: Backend> Head<B> {
    /// For rows of `output` that are compared with `targets`.
    ///
    /// # Errors
    /// If the last layer's output does not fit the loss and the targets.
    pub fn new(
        build: &mut Build<'_, B>,
        spec: &LossSpec,
        targets: &Targets,
        output: &Shape,
    ) -> Result<Self, LayerError> {
        let outputs = output.elements();
        let wanted = spec.outputs(targets)?;
        if outputs != wanted {
            let classes = match targets {
                Targets::Classes(names) => format!(", the classes being {}", listed(names)),
                Targets::Numbers(_) => String::new(),
            };
            return Err(build.argument_error(format!(
                "it gives {outputs} outputs {output}, but the data and the loss {} need {wanted}\
                 {classes}",
                spec.name()
            )));
        }
        let gradient = build.rows("loss gradient", output)?;
        Ok(Self {
            loss: spec.kernel(),
            target_width: targets.width(),
            outputs,
            gradient,
        })
    }

    /// Numbers per row of targets.
    pub fn target_width(&self) -> usize {
        self.target_width
    }

    /// Compares `outputs` (logits where the loss is a cross entropy) of `cx.rows` rows with the
    /// targets, writes the report and, in training, the gradient.
    pub fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        outputs: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        let len = cx.rows * self.outputs;
        let compared = Compared {
            outputs: B::slice(outputs, 0..len),
            targets: B::slice(batch.targets, 0..cx.rows * self.target_width),
            weights: batch.weights.map(|weights| B::slice(weights, 0..cx.rows)),
        };
        let gradient = cx.is_training().then(|| self.gradient.view_mut(cx.rows));
        cx.backend
            .loss(self.loss, cx.rows, compared, report, gradient);
    }

    /// The gradient of the outputs of the last `forward` over `rows` rows, for backward to overwrite.
    pub fn gradient(&mut self, rows: usize) -> ViewMut<'_, B> {
        self.gradient.view_mut(rows)
    }

    /// What the outputs predict: probabilities for cross entropies, else themselves.
    pub fn predict(&self, cx: &mut Context<'_, B>, outputs: View<'_, B>, out: ViewMut<'_, B>) {
        match self.loss {
            Loss::SoftmaxCrossEntropy { .. } => cx.backend.softmax(self.outputs, outputs, out),
            Loss::SigmoidCrossEntropy { .. } => {
                cx.backend.activate(Activation::Sigmoid, outputs, out);
            }
            _ => cx.backend.copy(outputs, out),
        }
    }

    /// Adds to `graph` what [`Self::predict`] makes of `outputs`.
    pub fn export(&self, graph: &mut Graph<'_>, outputs: Value) -> Value {
        match self.loss {
            Loss::SoftmaxCrossEntropy { .. } => {
                // Over all that a row holds, whatever its shape.
                let shape = outputs.shape().to_vec();
                let logits = graph.reshape(outputs, &[self.outputs]);
                let probabilities = graph.softmax(&logits);
                graph.reshape(probabilities, &shape)
            }
            Loss::SigmoidCrossEntropy { .. } => graph.apply("Sigmoid", &outputs, &[]),
            _ => outputs,
        }
    }
}

impl LossSpec {
    /// Numbers per row that a model has to give to be compared with `targets`.
    ///
    /// # Errors
    /// If the loss cannot tell that many classes apart.
    pub fn outputs(&self, targets: &Targets) -> Result<usize, LayerError> {
        match (targets, self) {
            (Targets::Classes(classes), Self::SoftmaxCrossEntropy(_)) => Ok(classes.len()),
            (Targets::Classes(classes), Self::SigmoidCrossEntropy(_)) if classes.len() == 2 => {
                Ok(1)
            }
            (Targets::Classes(classes), _) => Err(LayerError::Model {
                problem: format!(
                    "the loss {} cannot tell {} classes apart; use softmax_cross_entropy",
                    self.name(),
                    classes.len()
                ),
            }),
            (Targets::Numbers(width), _) => Ok(*width),
        }
    }

    /// Whether its targets are classes; those of the others are numbers.
    pub fn is_classification(&self) -> bool {
        self.link().is_some()
    }

    /// What makes probabilities of its outputs, where it is their cross entropy.
    pub fn link(&self) -> Option<ActivationSpec> {
        match self {
            Self::SoftmaxCrossEntropy(_) => Some(ActivationSpec::Softmax),
            Self::SigmoidCrossEntropy(_) => Some(ActivationSpec::Sigmoid),
            Self::SquaredError(_) | Self::AbsoluteError(_) | Self::Huber(_) => None,
        }
    }

    fn kernel(&self) -> Loss {
        match self {
            Self::SoftmaxCrossEntropy(spec) => Loss::SoftmaxCrossEntropy {
                smoothing: spec.label_smoothing as f32,
            },
            Self::SigmoidCrossEntropy(spec) => Loss::SigmoidCrossEntropy {
                smoothing: spec.label_smoothing as f32,
            },
            Self::SquaredError(_) => Loss::SquaredError,
            Self::AbsoluteError(_) => Loss::AbsoluteError,
            Self::Huber(spec) => Loss::Huber {
                delta: spec.delta as f32,
            },
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
        let numbers = LossReduction::SumOfNumbers(4);
        assert_eq!(numbers.gradient_scale(0.0, 3.0), 4.0);
    }
}

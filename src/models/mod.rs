//! Models: what the trainer drives. A stack of layers with a loss, or a user's own.

mod build;
mod head;
mod keras;
mod metrics;
mod sequential;
mod structure;
mod wide_deep;

pub use build::{BuildAnywhere, BuildModel, BuildOn, CustomModel};
pub use head::{
    AbsoluteError, Head, Huber, LossReduction, LossSpec, SigmoidCrossEntropy, SoftmaxCrossEntropy,
    SquaredError,
};
pub use keras::{KerasError, KerasModel};
pub use metrics::{JUDGED, Judge, Judging};
pub use sequential::{Layers, Sequential};
pub use structure::Structure;
pub use wide_deep::{
    DeepSpec, DenseColumn, EmbeddingTable, Ids, LinearSpec, WideDeep, WideDeepSpec,
};

use crate::backend::{Backend, Memory, View, ViewMut};
use crate::layers::{Context, Shape, StateTensor};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{GradSink, Layout};

/// Rows that go through a model together, in backend memory.
pub struct MicroBatch<'a, B: Backend> {
    /// `[rows, input shape]`
    pub features: View<'a, B>,
    /// `[rows, target width]`: class indices or numbers.
    pub targets: View<'a, B>,
    /// `[rows]`; `None` counts every row as 1.
    pub weights: Option<View<'a, B>>,
}

/// Numbers of a [`Report`].
pub const REPORT: usize = 4;

/// What one micro-batch tells about itself, written to `[REPORT]` doubles: the weighted sum of the
/// losses, the sum of weights, the sum of the metric (correct rows, or absolute errors), the number
/// of rows.
pub type Report<'a, B> = <B as Memory>::ViewMut<'a, f64>;

/// A trainable function with a loss.
///
/// The trainer calls `forward` and then `backward` for each micro-batch of this rank. The gradient
/// handed to the sink is that of the weighted SUM of the losses of the micro-batch's rows; the
/// trainer divides once per step.
pub trait Model<B: Backend>: Send {
    /// What it consists of, without its numbers.
    fn structure(&self) -> &Structure;

    /// The trainable tensors, in forward order.
    fn layout(&self) -> &Layout {
        &self.structure().layout
    }

    /// The non-trainable state.
    fn states(&self) -> &[StateTensor] {
        &self.structure().states
    }

    /// Shape of one row of input.
    fn input(&self) -> &Shape {
        &self.structure().input
    }

    /// Shape of one row of output.
    fn output(&self) -> &Shape {
        &self.structure().output
    }

    /// Numbers per row of targets.
    fn target_width(&self) -> usize {
        self.structure().target_width
    }

    /// Runs the micro-batch through the layers and the loss, and writes the report.
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    );

    /// The gradients of the last `forward`, finished from the end of the arena to its start.
    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    );

    /// The logits, or the numbers, of the last `forward` or `predict` over `rows` rows, `[rows, output
    /// shape]`; `None` where the model does not keep them.
    fn logits(&self, _rows: usize) -> Option<View<'_, B>> {
        None
    }

    /// Writes the outputs of inference to `out`, `[rows, output shape]`: probabilities where the
    /// loss is a cross entropy.
    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    );

    /// Adds to `graph` what [`Self::predict`] computes from `features`; returns the outputs.
    ///
    /// # Errors
    /// If the model does not say, which is what happens by default, or one of its layers does not.
    fn export(&self, _graph: &mut Graph<'_>, _features: Value) -> Result<Value, OnnxError> {
        Err(OnnxError::NoDescription {
            what: "the model".to_owned(),
        })
    }
}

impl<B: Backend, M: Model<B> + ?Sized> Model<B> for Box<M> {
    fn structure(&self) -> &Structure {
        (**self).structure()
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        (**self).forward(cx, parameters, batch, report);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    ) {
        (**self).backward(cx, parameters, batch, sink);
    }

    fn logits(&self, rows: usize) -> Option<View<'_, B>> {
        (**self).logits(rows)
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    ) {
        (**self).predict(cx, parameters, features, out);
    }

    fn export(&self, graph: &mut Graph<'_>, features: Value) -> Result<Value, OnnxError> {
        (**self).export(graph, features)
    }
}

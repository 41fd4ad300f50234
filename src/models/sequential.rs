//! Layers one after another, with a loss at the end.

use super::{Head, LossSpec, MicroBatch, Model, Report};
use crate::backend::{Backend, View, ViewMut};
use crate::data::Targets;
use crate::layers::{Build, Context, LayerError, LayerSpec, Shape, Stack, StateTensor};
use crate::params::{GradSink, Grads, Layout};

/// A stack of layers with a loss.
///
/// A softmax at the end is computed together with the cross entropy: the stack runs without it, and
/// [`Model::predict`] applies it.
pub struct Sequential<B: Backend> {
    stack: Stack<B>,
    head: Head<B>,
    layout: Layout,
    states: Vec<StateTensor>,
    input: Shape,
    output: Shape,
}

impl<B: Backend> Sequential<B> {
    /// Builds `layers` on `backend` for rows of shape `input` in micro-batches of at most
    /// `max_rows`.
    ///
    /// # Errors
    /// If a layer cannot take what the one before it gives, or the last one's output does not fit
    /// loss and targets.
    pub fn new(
        backend: &mut B,
        input: &Shape,
        layers: &[LayerSpec],
        loss: &LossSpec,
        targets: &Targets,
        max_rows: usize,
    ) -> Result<Self, LayerError> {
        let mut build = Build::new(backend, max_rows);
        let fused = fuse_softmax(layers, loss);
        let stack = Stack::new(&mut build, fused.as_deref().unwrap_or(layers), input)?;
        let output = stack.shape().clone();
        let head = Head::new(&mut build, loss, targets, &output)?;
        let (layout, states) = build.finish();
        Ok(Self {
            stack,
            head,
            layout,
            states,
            input: input.clone(),
            output,
        })
    }
}

/// The layers without a final softmax, where the loss is its cross entropy.
fn fuse_softmax(layers: &[LayerSpec], loss: &LossSpec) -> Option<Vec<LayerSpec>> {
    let LossSpec::SoftmaxCrossEntropy(_) = loss else {
        return None;
    };
    let (last, before) = layers.split_last()?;
    let rest = last.split_softmax()?;
    Some(before.iter().cloned().chain(rest).collect())
}

impl<B: Backend> Model<B> for Sequential<B> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn states(&self) -> &[StateTensor] {
        &self.states
    }

    fn input(&self) -> &Shape {
        &self.input
    }

    fn output(&self) -> &Shape {
        &self.output
    }

    fn target_width(&self) -> usize {
        self.head.target_width()
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        self.stack.forward(cx, parameters, batch.features);
        let features = B::slice(batch.features, 0..B::len(batch.features));
        let outputs = self.stack.output(cx.rows, features);
        self.head.forward(cx, outputs, batch, report);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    ) {
        let dy = self.head.gradient(cx.rows);
        let mut grads = Grads::new(sink, 0);
        self.stack
            .backward(cx, parameters, batch.features, dy, None, &mut grads);
        grads.done(0);
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    ) {
        self.stack.forward(cx, parameters, features);
        let features = B::slice(features, 0..B::len(features));
        let outputs = self.stack.output(cx.rows, features);
        self.head.predict(cx, outputs, out);
    }
}

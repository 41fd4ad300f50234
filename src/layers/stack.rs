//! Layers one after another: what a sequential model and a residual block have in common.

use super::Layer;
use super::{Backward, Build, Context, LayerError, LayerSpec, RowBuffer, Shape};
use crate::backend::{Backend, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// A list of built layers with the buffers between them.
///
/// A layer that only gives its input another shape is never run: its neighbours share a buffer.
/// Parameters and gradients are those of whatever the stack is built in: of the layer, or of the
/// model. So a model of several stacks hands each of them all it was handed, and goes backward
/// through them in the reverse of the order in which they were built.
pub struct Stack<B: Backend> {
    children: Vec<Child<B>>,
    /// Gradients between neighbours, `[max_rows, widest]`, used in turn.
    gradients: [B::Buffer<f32>; 2],
    shape: Shape,
}

struct Child<B: Backend> {
    layer: Box<dyn Layer<B>>,
    /// Its parameters, from the start of those of what the stack is built in.
    start: usize,
    end: usize,
    name: String,
    /// Shape of one row of input.
    input: Shape,
    /// Numbers per row of output.
    outputs: usize,
    output: RowBuffer<B>,
}

impl<B: Backend> Stack<B> {
    /// Builds `layers` for inputs of shape `input`.
    ///
    /// # Errors
    /// If a layer cannot take what the one before it gives.
    pub fn new(
        build: &mut Build<'_, B>,
        layers: &[LayerSpec],
        input: &Shape,
    ) -> Result<Self, LayerError> {
        let (mut children, mut shape, mut widest) = (Vec::new(), input.clone(), 0);
        for layer in layers {
            let start = build.start();
            let place = build.summary().len();
            let built = layer.build(build, &shape)?;
            if built.layer.is_view() {
                shape = built.output;
                continue;
            }
            widest = widest.max(shape.elements());
            children.push(Child {
                layer: built.layer,
                name: build.summary()[place].name.clone(),
                input: shape,
                start,
                end: build.start(),
                outputs: built.output.elements(),
                output: build.rows("activations", &built.output)?,
            });
            shape = built.output;
        }
        let mut gradient = || {
            build
                .backend
                .allocate("gradients", build.max_rows.saturating_mul(widest))
        };
        Ok(Self {
            children,
            gradients: [gradient()?, gradient()?],
            shape,
        })
    }

    /// Shape of one row of output.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Runs all layers on `x` and returns the output, as [`Self::output`] does.
    pub fn forward<'a, 'x: 'a>(
        &'a mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'x, B>,
    ) -> View<'a, B> {
        let rows = cx.rows;
        for index in 0..self.children.len() {
            let (before, after) = self.children.split_at_mut(index);
            let Child {
                layer,
                start,
                end,
                output,
                ..
            } = &mut after[0];
            let own = B::slice(parameters, *start..*end);
            match before.last() {
                Some(before) => {
                    layer.forward(cx, own, before.output.view(rows), output.view_mut(rows));
                }
                None => layer.forward(cx, own, x, output.view_mut(rows)),
            }
        }
        self.output(rows, x)
    }

    /// The output of the last forward pass over `rows` rows; `x` itself where there is no layer.
    pub fn output<'a, 'x: 'a>(&'a self, rows: usize, x: View<'x, B>) -> View<'a, B> {
        match self.children.last() {
            Some(last) => last.output.view(rows),
            None => B::slice(x, 0..B::len(x)),
        }
    }

    /// The gradients of the last forward pass, which was over `x`: each layer's are handed over to
    /// `grads` as soon as they are finished, last layer first. Overwrites `dy`.
    pub fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        dy: ViewMut<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        self.backward_layers(cx, parameters, x, dy, grads, Input::Ignored);
    }

    /// As [`Self::backward`], and returns the gradient of `x`, for the caller to overwrite.
    pub fn backward_to_input<'a, 'dy: 'a>(
        &'a mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        mut dy: ViewMut<'dy, B>,
        grads: &mut Grads<'_, B>,
    ) -> ViewMut<'a, B> {
        let through = B::reborrow(&mut dy);
        self.backward_layers(cx, parameters, x, through, grads, Input::Wanted);
        match self.children.first() {
            Some(first) => {
                let written = &mut self.gradients[(self.children.len() - 1) % 2];
                B::slice_mut(B::view_mut(written), 0..cx.rows * first.input.elements())
            }
            None => {
                let len = B::len_mut(&dy);
                B::slice_mut(dy, 0..len)
            }
        }
    }

    /// Adds to `graph` what all layers do to `x` in inference; returns the output.
    ///
    /// # Errors
    /// If a layer does not say what it does.
    pub fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let mut y = x;
        for child in &self.children {
            // What only gives rows another shape is no child.
            let x = graph.reshape(y, &child.input.0);
            y = graph.layer(&child.name, |graph| child.layer.export(graph, x))?;
        }
        Ok(graph.reshape(y, &self.shape.0))
    }

    /// The gradient of the last layer's input goes to the first of the two buffers, that of the one
    /// before it to the second, and so on in turn.
    fn backward_layers(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        mut dy: ViewMut<'_, B>,
        grads: &mut Grads<'_, B>,
        input: Input,
    ) {
        let rows = cx.rows;
        let [to, from] = &mut self.gradients;
        let (mut to, mut from) = (to, from);
        let last = self.children.len().saturating_sub(1);
        for index in (0..self.children.len()).rev() {
            let (before, after) = self.children.split_at_mut(index);
            let child = &mut after[0];
            let own = B::slice(parameters, child.start..child.end);
            let io = Backward {
                x: match before.last() {
                    Some(before) => before.output.view(rows),
                    None => B::slice(x, 0..B::len(x)),
                },
                y: child.output.view(rows),
                dy: match index == last {
                    true => B::reborrow(&mut dy),
                    false => B::slice_mut(B::view_mut(from), 0..rows * child.outputs),
                },
                dx: match (index, input) {
                    (0, Input::Ignored) => None,
                    _ => Some(B::slice_mut(
                        B::view_mut(to),
                        0..rows * child.input.elements(),
                    )),
                },
            };
            child
                .layer
                .backward(cx, own, io, &mut grads.child(child.start));
            grads.done(child.start);
            std::mem::swap(&mut from, &mut to);
        }
    }
}

/// Whether anybody needs the gradient of a stack's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Wanted,
    Ignored,
}

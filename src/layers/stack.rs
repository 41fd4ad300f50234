//! Layers one after another: what a sequential model and a residual block have in common.

use super::Layer;
use super::{Backward, Build, Context, LayerError, LayerSpec, Shape};
use crate::backend::{Backend, View, ViewMut};
use crate::params::Grads;

/// A list of built layers with the buffers between them.
///
/// A layer that only gives its input another shape is never run: its neighbours share a buffer.
pub struct Stack<B: Backend> {
    children: Vec<Child<B>>,
    /// One buffer per child, `[max_rows, elements]`.
    outputs: Vec<B::Buffer<f32>>,
    /// Gradients between neighbours, used in turn.
    gradients: [B::Buffer<f32>; 2],
    shape: Shape,
    end: usize,
}

struct Child<B: Backend> {
    layer: Box<dyn Layer<B>>,
    /// Its parameters, from the start of the stack's.
    start: usize,
    end: usize,
    inputs: usize,
    outputs: usize,
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
        let first = build.start();
        let (mut children, mut outputs, mut shape) = (Vec::new(), Vec::new(), input.clone());
        let mut widest = 0;
        for layer in layers {
            let start = build.start() - first;
            let built = layer.build(build, &shape)?;
            if built.layer.is_view() {
                shape = built.output;
                continue;
            }
            let (inputs, elements) = (shape.elements(), built.output.elements());
            outputs.push(
                build
                    .backend
                    .allocate("activations", build.max_rows * elements)?,
            );
            let end = build.start() - first;
            children.push(Child {
                layer: built.layer,
                start,
                end,
                inputs,
                outputs: elements,
            });
            widest = widest.max(inputs);
            shape = built.output;
        }
        let mut gradient = || build.backend.allocate("gradients", build.max_rows * widest);
        let gradients = [gradient()?, gradient()?];
        let end = build.start() - first;
        Ok(Self {
            children,
            outputs,
            gradients,
            shape,
            end,
        })
    }

    /// Shape of one row of output.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Length of its parameters in the arena.
    pub fn parameters(&self) -> usize {
        self.end
    }

    /// Runs all layers on `x`; the result is in [`Self::output`].
    pub fn forward(&mut self, cx: &mut Context<'_, B>, parameters: View<'_, B>, x: View<'_, B>) {
        let rows = cx.rows;
        for (index, child) in self.children.iter_mut().enumerate() {
            let (before, after) = self.outputs.split_at_mut(index);
            let y = B::slice_mut(B::view_mut(&mut after[0]), 0..rows * child.outputs);
            let own = B::slice(parameters, child.start..child.end);
            match before.last() {
                Some(x) => {
                    let x = B::slice(B::view(x), 0..rows * child.inputs);
                    child.layer.forward(cx, own, x, y);
                }
                None => child.layer.forward(cx, own, x, y),
            }
        }
    }

    /// The output of the last forward pass over `rows` rows; `x` itself where there is no layer.
    pub fn output<'a>(&'a self, rows: usize, x: View<'a, B>) -> View<'a, B> {
        match self.outputs.last() {
            Some(output) => B::slice(B::view(output), 0..rows * self.shape.elements()),
            None => x,
        }
    }

    /// The gradients of the last forward pass, which was over `x`: parameters to `grads`, each
    /// layer's handed over as soon as it is finished, last layer first; the input's to `dx`.
    /// Overwrites `dy`.
    pub fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        mut dy: ViewMut<'_, B>,
        mut dx: Option<ViewMut<'_, B>>,
        grads: &mut Grads<'_, B>,
    ) {
        let rows = cx.rows;
        if self.children.is_empty()
            && let Some(dx) = dx.take()
        {
            cx.backend.copy(B::shared(&dy), dx);
        }
        let [from, to] = &mut self.gradients;
        let (mut from, mut to) = (from, to);
        let last = self.children.len().saturating_sub(1);
        for (index, child) in self.children.iter_mut().enumerate().rev() {
            let own = B::slice(parameters, child.start..child.end);
            let y = B::slice(B::view(&self.outputs[index]), 0..rows * child.outputs);
            let dy = match index == last {
                true => B::reborrow(&mut dy),
                false => B::slice_mut(B::view_mut(from), 0..rows * child.outputs),
            };
            let io = match index.checked_sub(1) {
                Some(before) => {
                    let x = B::slice(B::view(&self.outputs[before]), 0..rows * child.inputs);
                    let dx = Some(B::slice_mut(B::view_mut(to), 0..rows * child.inputs));
                    Backward { x, y, dy, dx }
                }
                None => {
                    let dx = dx.as_mut().map(|dx| B::reborrow(dx));
                    Backward {
                        x: B::slice(x, 0..B::len(x)),
                        y,
                        dy,
                        dx,
                    }
                }
            };
            child
                .layer
                .backward(cx, own, io, &mut grads.child(child.start));
            grads.done(child.start);
            std::mem::swap(&mut from, &mut to);
        }
    }
}

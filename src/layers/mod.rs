//! Layers: what a user writes ([`LayerSpec`]), what runs ([`Layer`]), and how one becomes the other
//! ([`Build`]).
//!
//! A layer sees its own parameters, inputs and outputs as slices; it knows no rank, arena or
//! stream. Data is channels last and row-major; the batch is the first dimension and not part of a
//! [`Shape`].

mod activation;
mod batch_norm;
mod build;
mod context;
mod conv2d;
mod dense;
mod dropout;
mod embedding;
mod error;
mod flatten;
mod layer_norm;
mod pooling;
mod residual;
mod rows;
mod shape;
mod spec;
mod stack;

pub use activation::{Activate, ActivationSpec, Elu, LeakyRelu, Softmax};
pub use batch_norm::BatchNorm;
pub use build::{Build, LayerSummary, StateTensor, Table, WorkingSets};
pub use context::{Context, Mode};
pub use conv2d::{Conv2D, Pair};
pub use dense::Dense;
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use error::LayerError;
pub use flatten::Flatten;
pub use layer_norm::LayerNorm;
pub use pooling::{AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D};
pub use residual::Residual;
pub use rows::RowBuffer;
pub use shape::Shape;
pub use spec::LayerSpec;
pub use stack::Stack;

pub use crate::params::Initializer;

use crate::backend::{Backend, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// One step of a model: `y = f(x)`, and its gradients.
pub trait Layer<B: Backend>: Send {
    /// Writes `y` for `cx.rows` rows of `x`.
    ///
    /// What backward needs beyond `x` and `y` is kept in the layer's own buffers.
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    );

    /// Writes the gradients of the parameters to `grads` (set or add, as the sink says) and, where
    /// asked, `dx = ` the gradient of the input.
    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    );

    /// Whether `y` is `x` under another shape: such a layer is never run.
    fn is_view(&self) -> bool {
        false
    }

    /// Adds to `graph` what the layer does in inference; returns `y`.
    ///
    /// # Errors
    /// If it does not say, which is what happens by default.
    fn export(&self, graph: &mut Graph<'_>, _x: Value) -> Result<Value, OnnxError> {
        Err(graph.no_description())
    }
}

/// Inputs and outputs of a backward pass; `x` and `y` are those of the forward pass before it.
pub struct Backward<'a, B: Backend> {
    /// The input, `[rows, in]`.
    pub x: View<'a, B>,
    /// The output, `[rows, out]`.
    pub y: View<'a, B>,
    /// Gradient of the output, `[rows, out]`. Scratch once read: the layer may overwrite it.
    pub dy: ViewMut<'a, B>,
    /// Gradient of the input, `[rows, in]`, to be set; `None` where nobody needs it.
    pub dx: Option<ViewMut<'a, B>>,
}

/// A built layer with its place in the arena.
pub struct Built<B: Backend> {
    /// What runs.
    pub layer: Box<dyn Layer<B>>,
    /// Shape of one row of its output.
    pub output: Shape,
}

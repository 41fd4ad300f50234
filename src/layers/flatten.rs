//! All dimensions as one; data stays where it is.

use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Backend, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// All dimensions as one, row-major, channels last.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flatten {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Flatten {
    pub(super) fn build<B: Backend>(
        &self,
        _: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        Ok(Built {
            layer: Box::new(FlattenLayer),
            output: [input.elements()].into(),
        })
    }
}

struct FlattenLayer;

impl<B: Backend> Layer<B> for FlattenLayer {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        cx.backend.copy(x, y);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        _: &mut Grads<'_, B>,
    ) {
        if let Some(dx) = io.dx {
            cx.backend.copy(B::shared(&io.dy), dx);
        }
    }

    fn is_view(&self) -> bool {
        true
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let elements = x.shape().iter().product();
        Ok(graph.reshape(x, &[elements]))
    }
}

//! `y = x + body(x)`.

use super::stack::Stack;
use super::{Backward, Build, Built, Context, Layer, LayerError, LayerSpec, Shape};
use crate::backend::{Backend, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// Adds its input to the output of the layers inside it, whose shapes must be equal.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The body.
    pub layers: Vec<LayerSpec>,
}

impl Residual {
    /// Around a body of these layers.
    pub fn new(layers: Vec<LayerSpec>) -> Self {
        Self { name: None, layers }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        let name = build.name().to_owned();
        let body = Stack::new(build, &self.layers, input)?;
        if body.shape() != input {
            return Err(LayerError::Shape {
                layer: name,
                needs: format!("adds its body's output to its input {input}"),
                previous: build.name().to_owned(),
                got: body.shape().clone(),
            });
        }
        Ok(Built {
            layer: Box::new(ResidualLayer { body }),
            output: input.clone(),
        })
    }
}

struct ResidualLayer<B: Backend> {
    body: Stack<B>,
}

impl<B: Backend> Layer<B> for ResidualLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let output = self.body.forward(cx, parameters, x);
        cx.backend.add(x, output, y);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let Some(mut dx) = io.dx else {
            return self.body.backward(cx, parameters, io.x, io.dy, grads);
        };
        // The body overwrites dy, so what flows past it is saved first.
        cx.backend.copy(B::shared(&io.dy), B::reborrow(&mut dx));
        let through = self
            .body
            .backward_to_input(cx, parameters, io.x, io.dy, grads);
        cx.backend.add_assign(B::shared(&through), dx);
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let body = self.body.export(graph, x.clone())?;
        Ok(graph.sum(x, &body))
    }
}

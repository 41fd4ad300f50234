//! A learned vector for each index.

use std::ops::Range;

use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Accumulate, Backend, Bag, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{Grads, Group, Initializer, RandomUniform};
use crate::range::{MOST, size};

/// A learned vector of `output_dim` numbers for each index from 0 to below `input_dim`.
///
/// The input's numbers are taken as indices; its gradient is zero.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of different indices.
    #[serde(deserialize_with = "size")]
    pub input_dim: usize,
    /// Length of the vectors.
    #[serde(deserialize_with = "size")]
    pub output_dim: usize,
    /// How the vectors start out.
    #[serde(default = "random_uniform")]
    pub embeddings_initializer: Initializer,
}

fn random_uniform() -> Initializer {
    RandomUniform::default().into()
}

impl Embedding {
    /// Vectors of `output_dim` numbers for indices below `input_dim`, everything else by default.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Self {
            name: None,
            input_dim,
            output_dim,
            embeddings_initializer: random_uniform(),
        }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        let (rows, width) = (self.input_dim, self.output_dim);
        if rows == 0 || width == 0 || rows > MOST || width > MOST {
            let problem = format!(
                "input_dim is {rows} and output_dim {width}, but both must be from 1 to {MOST}"
            );
            return Err(build.argument_error(problem));
        }
        let initializer = self.embeddings_initializer.clone();
        let table = build.parameter("embeddings", &[rows, width], initializer, Group::Decay);
        let mut output = input.clone();
        output.0.push(width);
        Ok(Built {
            layer: Box::new(EmbeddingLayer { table, width }),
            output,
        })
    }
}

struct EmbeddingLayer {
    table: Range<usize>,
    width: usize,
}

impl<B: Backend> Layer<B> for EmbeddingLayer {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let table = B::slice(parameters, self.table.clone());
        cx.backend
            .gather_bags(Bag::rows(self.width), table, x, y, Accumulate::Set);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let (gradient, write) = grads.tensor(&self.table);
        let dy = B::shared(&io.dy);
        cx.backend
            .scatter_bags(Bag::rows(self.width), io.x, dy, gradient, write);
        if let Some(dx) = io.dx {
            cx.backend.fill(dx, 0.0);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        // What was scaled to an index may be one rounding away from it, and the cast cuts off.
        let rounded = graph.apply("Round", &x, &[]);
        let table = graph.weight("embeddings");
        Ok(graph.gather(&table, rounded, self.width))
    }
}

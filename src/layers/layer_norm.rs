//! Layer normalisation (J. Ba et al., 2016), with Keras's meaning.

use std::ops::Range;

use super::batch_norm::{affine, write_sums};
use super::dense::yes;
use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Affine, Backend, View, ViewMut};
use crate::onnx::{Attribute, Graph, OnnxError, Value};
use crate::params::{Grads, Group, Ones, Zeros};

/// The last dimension to mean 0 and variance 1.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LayerNorm {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Added to the variance.
    #[serde(deserialize_with = "crate::range::positive")]
    pub epsilon: f32,
    /// Whether a learned offset is added.
    #[serde(default = "yes")]
    pub center: bool,
    /// Whether a learned factor is applied.
    #[serde(default = "yes")]
    pub scale: bool,
}

impl Default for LayerNorm {
    fn default() -> Self {
        Self {
            name: None,
            epsilon: 1e-3,
            center: true,
            scale: true,
        }
    }
}

impl LayerNorm {
    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        if input.0.is_empty() {
            return Err(build.shape_error("needs at least one dimension", input));
        }
        let columns = input.channels();
        let rows = build.max_rows.saturating_mul(input.elements()) / columns.max(1);
        let gamma = self
            .scale
            .then(|| build.parameter("gamma", &[columns], Ones {}.into(), Group::NoDecay));
        let beta = self
            .center
            .then(|| build.parameter("beta", &[columns], Zeros {}.into(), Group::NoDecay));
        let layer = LayerNormLayer {
            gamma,
            beta,
            epsilon: self.epsilon,
            columns,
            moments: build.backend.allocate("layer statistics", 2 * rows)?,
            sums: build.backend.allocate("layer gradients", 2 * columns)?,
        };
        Ok(Built {
            layer: Box::new(layer),
            output: input.clone(),
        })
    }
}

struct LayerNormLayer<B: Backend> {
    gamma: Option<Range<usize>>,
    beta: Option<Range<usize>>,
    epsilon: f32,
    columns: usize,
    moments: B::Buffer<f32>,
    sums: B::Buffer<f32>,
}

impl<B: Backend> Layer<B> for LayerNormLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let affine = Affine {
            scale: self.gamma.clone().map(|gamma| B::slice(parameters, gamma)),
            offset: self.beta.clone().map(|beta| B::slice(parameters, beta)),
        };
        let len = 2 * B::len(x) / self.columns;
        let moments = B::slice_mut(B::view_mut(&mut self.moments), 0..len);
        cx.backend
            .normalize_rows(self.columns, self.epsilon, x, affine, y, moments);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let moments = B::slice(B::view(&self.moments), 0..2 * B::len(io.x) / self.columns);
        let scale = self.gamma.clone().map(|gamma| B::slice(parameters, gamma));
        let sums = B::view_mut(&mut self.sums);
        let dy = B::shared(&io.dy);
        cx.backend
            .normalize_rows_backward(io.x, moments, scale, dy, sums, io.dx);
        let sums = B::view(&self.sums);
        write_sums(
            cx.backend,
            grads,
            sums,
            self.beta.as_ref(),
            self.gamma.as_ref(),
        );
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let x = graph.channels_last(x);
        let (gamma, beta) = affine(graph, self.gamma.as_ref(), self.beta.as_ref(), self.columns);
        let attributes = [
            ("axis", Attribute::Int(-1)),
            ("epsilon", Attribute::Float(self.epsilon)),
        ];
        Ok(graph.map(
            "LayerNormalization",
            &x,
            &[&gamma, &beta],
            &attributes,
            x.shape(),
        ))
    }
}

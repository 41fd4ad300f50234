//! Batch normalisation (S. Ioffe and C. Szegedy, 2015), with Keras's meaning.

use std::ops::Range;

use super::dense::yes;
use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Accumulate, Affine, Backend, Normalized, View, ViewMut};
use crate::onnx::{Attribute, Graph, OnnxError, Value};
use crate::params::{Grads, Group, Ones, Zeros};

/// Each channel to mean 0 and variance 1 over the micro-batch, in inference by moving statistics.
///
/// Statistics are those of a micro-batch, whichever rank computes it; the moving ones follow the
/// mean over all micro-batches of the global batch. As in Keras the moving variance follows the
/// unbiased variance of images and the biased one of plain features.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchNorm {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Share of the moving statistics that survives a step.
    #[serde(deserialize_with = "crate::range::up_to_one")]
    pub momentum: f32,
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

impl Default for BatchNorm {
    fn default() -> Self {
        Self {
            name: None,
            momentum: 0.99,
            epsilon: 1e-3,
            center: true,
            scale: true,
        }
    }
}

impl BatchNorm {
    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        if input.0.is_empty() {
            return Err(build.shape_error("needs at least one dimension", input));
        }
        if !(0.0..=1.0).contains(&self.momentum) {
            let problem = format!("momentum is {}, but must be from 0 to 1", self.momentum);
            return Err(build.argument_error(problem));
        }
        let columns = input.channels();
        let shape = [columns];
        let mut allocate = || build.backend.allocate("batch statistics", columns);
        let (mean, variance) = (allocate()?, allocate()?);
        let sums = build.backend.allocate("batch gradients", 2 * columns)?;
        let gamma = self
            .scale
            .then(|| build.parameter("gamma", &shape, Ones {}.into(), Group::NoDecay));
        let beta = self
            .center
            .then(|| build.parameter("beta", &shape, Zeros {}.into(), Group::NoDecay));
        let layer = BatchNormLayer {
            gamma,
            beta,
            moving_mean: build.state("moving_mean", &shape, 0.0, self.momentum),
            moving_variance: build.state("moving_variance", &shape, 1.0, self.momentum),
            epsilon: self.epsilon,
            columns,
            is_image: input.0.len() == 3,
            mean,
            variance,
            sums,
        };
        Ok(Built {
            layer: Box::new(layer),
            output: input.clone(),
        })
    }
}

struct BatchNormLayer<B: Backend> {
    gamma: Option<Range<usize>>,
    beta: Option<Range<usize>>,
    moving_mean: Range<usize>,
    moving_variance: Range<usize>,
    epsilon: f32,
    columns: usize,
    is_image: bool,
    mean: B::Buffer<f32>,
    variance: B::Buffer<f32>,
    sums: B::Buffer<f32>,
}

impl<B: Backend> BatchNormLayer<B> {
    /// What this micro-batch adds to the moving statistics: its moments, times its rows.
    fn contribute(&self, cx: &mut Context<'_, B>, samples: usize) {
        let rows = cx.rows as f32;
        let unbiased = match self.is_image && samples > 1 {
            true => samples as f32 / (samples - 1) as f32,
            false => 1.0,
        };
        for (moving, moment, factor) in [
            (&self.moving_mean, &self.mean, rows),
            (&self.moving_variance, &self.variance, rows * unbiased),
        ] {
            let to = B::slice_mut(B::reborrow(&mut cx.statistics), moving.clone());
            cx.backend.scale(factor, B::view(moment), to);
        }
    }
}

impl<B: Backend> Layer<B> for BatchNormLayer<B> {
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
        if cx.is_training() {
            let (mean, variance) = (B::view_mut(&mut self.mean), B::view_mut(&mut self.variance));
            cx.backend.column_moments(self.columns, x, mean, variance);
            self.contribute(cx, B::len(x) / self.columns);
            let (mean, variance) = (B::view(&self.mean), B::view(&self.variance));
            cx.backend
                .normalize_columns(self.epsilon, x, mean, variance, affine, y);
        } else {
            let (mean, variance) = (cx.state(&self.moving_mean), cx.state(&self.moving_variance));
            cx.backend
                .normalize_columns(self.epsilon, x, mean, variance, affine, y);
        }
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let x = B::slice(io.x, 0..B::len(io.x));
        let dy = B::shared(&io.dy);
        let training = cx.is_training();
        let (mean, variance) = match training {
            true => (B::view(&self.mean), B::view(&self.variance)),
            false => (
                B::slice(cx.state(&self.moving_mean), 0..self.columns),
                B::slice(cx.state(&self.moving_variance), 0..self.columns),
            ),
        };
        let sums = B::view_mut(&mut self.sums);
        cx.backend
            .column_gradients(self.epsilon, x, mean, variance, dy, sums);
        let sums = B::view(&self.sums);
        write_sums(
            cx.backend,
            grads,
            sums,
            self.beta.as_ref(),
            self.gamma.as_ref(),
        );
        if let Some(dx) = io.dx {
            let normalized = Normalized { x, mean, variance };
            let scale = self.gamma.clone().map(|gamma| B::slice(parameters, gamma));
            let sums = training.then_some(sums);
            cx.backend
                .normalize_columns_backward(self.epsilon, normalized, scale, sums, dy, dx);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let x = graph.channels_first(x);
        let (gamma, beta) = affine(graph, self.gamma.as_ref(), self.beta.as_ref(), self.columns);
        let mean = graph.weight("moving_mean");
        let variance = graph.weight("moving_variance");
        let others = [gamma.as_str(), &beta, &mean, &variance];
        let epsilon = [("epsilon", Attribute::Float(self.epsilon))];
        Ok(graph.map("BatchNormalization", &x, &others, &epsilon, x.shape()))
    }
}

/// The names of scale and offset, which stand for nothing where the layer has none.
pub(super) fn affine(
    graph: &mut Graph<'_>,
    scale: Option<&Range<usize>>,
    offset: Option<&Range<usize>>,
    columns: usize,
) -> (String, String) {
    let gamma = match scale {
        Some(_) => graph.weight("gamma"),
        None => graph.filled(columns, 1.0),
    };
    let beta = match offset {
        Some(_) => graph.weight("beta"),
        None => graph.filled(columns, 0.0),
    };
    (gamma, beta)
}

/// Writes the two halves of `sums` to the gradients of offset and scale.
pub(super) fn write_sums<B: Backend>(
    backend: &mut B,
    grads: &mut Grads<'_, B>,
    sums: View<'_, B>,
    offset: Option<&Range<usize>>,
    scale: Option<&Range<usize>>,
) {
    let columns = B::len(sums) / 2;
    // From the end of the layer's parameters to their start: offset, then scale.
    for (tensor, part) in [(offset, 0..columns), (scale, columns..2 * columns)] {
        if let Some(tensor) = tensor {
            let (gradient, write) = grads.tensor(tensor);
            let sums = B::slice(sums, part);
            match write {
                Accumulate::Set => backend.copy(sums, gradient),
                Accumulate::Add => backend.add_assign(sums, gradient),
            }
        }
    }
}

//! Sets a random share of its input to zero in training.

use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Backend, DropoutKey, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// Sets a random share of its input to zero in training and scales the rest up; does nothing in
/// inference.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The share, from 0 to below 1.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub rate: f32,
}

impl Dropout {
    /// Drops this share of its input, from 0 to below 1.
    pub fn new(rate: f32) -> Self {
        Self { name: None, rate }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        if !(0.0..1.0).contains(&self.rate) {
            let problem = format!("rate is {}, but must be at least 0 and below 1", self.rate);
            return Err(build.argument_error(problem));
        }
        let layer = DropoutLayer {
            rate: self.rate,
            columns: input.elements(),
            key: build.key(),
        };
        Ok(Built {
            layer: Box::new(layer),
            output: input.clone(),
        })
    }
}

struct DropoutLayer {
    rate: f32,
    columns: usize,
    key: u32,
}

impl DropoutLayer {
    fn drop<B: Backend>(&self, cx: &mut Context<'_, B>, from: View<'_, B>, to: ViewMut<'_, B>) {
        if !cx.is_training() {
            return cx.backend.copy(from, to);
        }
        let (seed, step, first_sample) = (cx.seed, cx.step, cx.first_sample);
        let key = DropoutKey {
            seed,
            step,
            layer: self.key,
            first_sample,
        };
        cx.backend.dropout(key, self.rate, self.columns, from, to);
    }
}

impl<B: Backend> Layer<B> for DropoutLayer {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        self.drop(cx, x, y);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        _: &mut Grads<'_, B>,
    ) {
        if let Some(dx) = io.dx {
            self.drop(cx, B::shared(&io.dy), dx);
        }
    }

    fn export(&self, _: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        Ok(x)
    }
}

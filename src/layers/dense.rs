//! `y = activation(x · kernel + bias)` on the last dimension.

use std::ops::Range;

use super::activation::Epilogue;
use super::{ActivationSpec, Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Backend, MatmulShape, View, ViewMut};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{GlorotUniform, Grads, Group, Initializer, Zeros};
use crate::range::size;

/// Every output from every input of the last dimension.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of outputs.
    #[serde(deserialize_with = "size")]
    pub units: usize,
    /// What follows.
    #[serde(default)]
    pub activation: ActivationSpec,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// How the kernel starts out.
    #[serde(default = "glorot_uniform")]
    pub kernel_initializer: Initializer,
    /// How the bias starts out.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn glorot_uniform() -> Initializer {
    GlorotUniform {}.into()
}

pub(super) fn zeros() -> Initializer {
    Zeros {}.into()
}

impl Dense {
    /// `units` outputs, everything else by default.
    pub fn new(units: usize) -> Self {
        Self {
            name: None,
            units,
            activation: ActivationSpec::Linear,
            use_bias: true,
            kernel_initializer: glorot_uniform(),
            bias_initializer: zeros(),
        }
    }

    /// With another activation.
    #[must_use]
    pub fn activation(self, activation: ActivationSpec) -> Self {
        Self { activation, ..self }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        if self.units == 0 {
            return Err(build.argument_error("units is 0, but must be at least 1"));
        }
        if input.0.is_empty() {
            return Err(build.shape_error("needs at least one dimension", input));
        }
        let inputs = input.channels();
        let kernel = self.kernel_initializer.clone();
        let kernel = build.parameter("kernel", &[inputs, self.units], kernel, Group::Decay);
        let bias = self.use_bias.then(|| {
            let initializer = self.bias_initializer.clone();
            build.parameter("bias", &[self.units], initializer, Group::NoDecay)
        });
        let mut output = input.clone();
        if let Some(last) = output.0.last_mut() {
            *last = self.units;
        }
        build.check_room(&output)?;
        let layer = DenseLayer {
            kernel,
            bias,
            inputs,
            units: self.units,
            epilogue: Epilogue::new(self.activation, build, output.elements(), self.units)?,
        };
        Ok(Built {
            layer: Box::new(layer),
            output,
        })
    }
}

struct DenseLayer<B: Backend> {
    kernel: Range<usize>,
    bias: Option<Range<usize>>,
    inputs: usize,
    units: usize,
    epilogue: Epilogue<B>,
}

impl<B: Backend> Layer<B> for DenseLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let shape = MatmulShape::nn(B::len(x) / self.inputs, self.units, self.inputs);
        let kernel = B::slice(parameters, self.kernel.clone());
        let bias = self.bias.clone().map(|bias| B::slice(parameters, bias));
        self.epilogue
            .forward(cx.backend, y, |backend, activation, y| {
                backend.matmul_bias_activation(shape, x, kernel, bias, activation, y);
            });
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        mut io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        self.epilogue
            .backward(cx.backend, io.y, B::reborrow(&mut io.dy));
        let dz = B::shared(&io.dy);
        let (inputs, units) = (self.inputs, self.units);
        let rows = B::len(dz) / units;
        if let Some(bias) = &self.bias {
            let (gradient, write) = grads.tensor(bias);
            cx.backend.sum_rows(units, dz, gradient, write);
        }
        let (gradient, write) = grads.tensor(&self.kernel);
        cx.backend.matmul(
            MatmulShape::tn(inputs, units, rows),
            io.x,
            dz,
            gradient,
            write,
        );
        if let Some(dx) = io.dx {
            let kernel = B::slice(parameters, self.kernel.clone());
            let shape = MatmulShape::nt(rows, inputs, units);
            cx.backend
                .matmul(shape, dz, kernel, dx, crate::backend::Accumulate::Set);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let x = graph.channels_last(x);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.units;
        }
        let kernel = graph.weight("kernel");
        let mut sum = graph.map("MatMul", &x, &[&kernel], &[], &shape);
        if self.bias.is_some() {
            let bias = graph.weight("bias");
            sum = graph.apply("Add", &sum, &[&bias]);
        }
        Ok(self.epilogue.export(graph, sum))
    }
}

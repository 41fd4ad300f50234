//! Activations, as an argument of other layers and as layers of their own.

use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Activation, Backend, Saved, View, ViewMut};
use crate::onnx::{Attribute, Graph, OnnxError, Value};
use crate::params::Grads;

/// An activation by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationSpec {
    /// `x`
    #[default]
    Linear,
    /// `max(x, 0)`
    Relu,
    /// `x`, or `0.3 x` where negative; the layer `leaky_relu` takes another slope.
    LeakyRelu,
    /// `x`, or `e^x - 1` where negative; the layer `elu` takes another scale.
    Elu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x Φ(x)`, exactly.
    Gelu,
    /// Gelu by its tanh approximation.
    GeluTanh,
    /// `x sigmoid(x)`
    #[serde(alias = "swish")]
    Silu,
    /// Probabilities over the last dimension.
    Softmax,
}

impl ActivationSpec {
    /// The element-wise function; `None` for softmax, which looks at a whole row.
    pub fn elementwise(self) -> Option<Activation> {
        Some(match self {
            Self::Linear => Activation::Linear,
            Self::Relu => Activation::Relu,
            Self::LeakyRelu => Activation::LeakyRelu { slope: 0.3 },
            Self::Elu => Activation::Elu { alpha: 1.0 },
            Self::Sigmoid => Activation::Sigmoid,
            Self::Tanh => Activation::Tanh,
            Self::Gelu => Activation::Gelu,
            Self::GeluTanh => Activation::GeluTanh,
            Self::Silu => Activation::Silu,
            Self::Softmax => return None,
        })
    }
}

/// What follows a layer's sum: kept where the backward pass needs the sum itself.
pub(super) struct Epilogue<B: Backend> {
    function: Option<Activation>,
    columns: usize,
    sum: Option<B::Buffer<f32>>,
}

impl<B: Backend> Epilogue<B> {
    /// For `elements` values a row, the last dimension of which is `columns`.
    pub(super) fn new(
        spec: ActivationSpec,
        build: &mut Build<'_, B>,
        elements: usize,
        columns: usize,
    ) -> Result<Self, LayerError> {
        let function = spec.elementwise();
        let keeps_sum = function.is_some_and(|function| function.saved() == Saved::Input);
        let len = build.max_rows.saturating_mul(elements);
        let sum = match keeps_sum || function.is_none() {
            true => Some(build.backend.allocate("pre-activations", len)?),
            false => None,
        };
        Ok(Self {
            function,
            columns,
            sum,
        })
    }

    /// Runs `layer`, which writes its sum with a function fused, so that `y` is the activation.
    pub(super) fn forward(
        &mut self,
        backend: &mut B,
        y: ViewMut<'_, B>,
        layer: impl FnOnce(&mut B, Activation, ViewMut<'_, B>),
    ) {
        let Some(sum) = &mut self.sum else {
            return layer(backend, self.function.unwrap_or(Activation::Linear), y);
        };
        let len = B::len_mut(&y);
        layer(
            backend,
            Activation::Linear,
            B::slice_mut(B::view_mut(sum), 0..len),
        );
        let sum = B::slice(B::view(sum), 0..len);
        match self.function {
            Some(function) => backend.activate(function, sum, y),
            None => backend.softmax(self.columns, sum, y),
        }
    }

    /// Adds the function behind the layer's sum to a graph.
    pub(super) fn export(&self, graph: &mut Graph<'_>, sum: Value) -> Value {
        export(self.function, graph, sum)
    }

    /// Turns the gradient of the activation into that of the sum, in place.
    pub(super) fn backward(&self, backend: &mut B, y: View<'_, B>, dy: ViewMut<'_, B>) {
        let len = B::len(y);
        match (self.function, &self.sum) {
            (Some(function), Some(sum)) => {
                backend.activate_backward(function, B::slice(B::view(sum), 0..len), dy);
            }
            (Some(function), None) => backend.activate_backward(function, y, dy),
            (None, _) => backend.softmax_backward(self.columns, y, dy),
        }
    }
}

/// An activation as a layer.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which function.
    pub function: ActivationSpec,
}

/// `x`, or `slope * x` where negative.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeakyRelu {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Factor of negative values.
    #[serde(deserialize_with = "crate::range::finite")]
    pub slope: f32,
}

impl Default for LeakyRelu {
    fn default() -> Self {
        Self {
            name: None,
            slope: 0.3,
        }
    }
}

/// `x`, or `alpha * (e^x - 1)` where negative.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elu {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Negated limit at minus infinity.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub alpha: f32,
}

impl Default for Elu {
    fn default() -> Self {
        Self {
            name: None,
            alpha: 1.0,
        }
    }
}

/// Probabilities over the last dimension.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Softmax {
    /// Its name; by default made from the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Activate {
    /// The layer that applies `function`.
    pub fn new(function: ActivationSpec) -> Self {
        Self {
            name: None,
            function,
        }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        built(self.function.elementwise(), build, input)
    }
}

impl LeakyRelu {
    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        built(
            Some(Activation::LeakyRelu { slope: self.slope }),
            build,
            input,
        )
    }
}

impl Elu {
    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        // Its slope is computed from the output, which tells the side only for alpha >= 0.
        if self.alpha.is_nan() || self.alpha < 0.0 {
            return Err(
                build.argument_error(format!("alpha is {}, but must not be negative", self.alpha))
            );
        }
        built(Some(Activation::Elu { alpha: self.alpha }), build, input)
    }
}

impl Softmax {
    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        built(None, build, input)
    }
}

fn built<B: Backend>(
    function: Option<Activation>,
    build: &mut Build<'_, B>,
    input: &Shape,
) -> Result<Built<B>, LayerError> {
    if function.is_none() && input.0.is_empty() {
        return Err(build.shape_error("needs at least one dimension", input));
    }
    let layer = ActivationLayer {
        function,
        columns: input.channels(),
    };
    Ok(Built {
        layer: Box::new(layer),
        output: input.clone(),
    })
}

struct ActivationLayer {
    function: Option<Activation>,
    columns: usize,
}

impl<B: Backend> Layer<B> for ActivationLayer {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        match self.function {
            Some(function) => cx.backend.activate(function, x, y),
            None => cx.backend.softmax(self.columns, x, y),
        }
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        _: &mut Grads<'_, B>,
    ) {
        let Some(mut dx) = io.dx else { return };
        cx.backend.copy(B::shared(&io.dy), B::reborrow(&mut dx));
        match self.function {
            Some(function) if function.saved() == Saved::Input => {
                cx.backend.activate_backward(function, io.x, dx);
            }
            Some(function) => cx.backend.activate_backward(function, io.y, dx),
            None => cx.backend.softmax_backward(self.columns, io.y, dx),
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        Ok(export(self.function, graph, x))
    }
}

/// Adds an element-wise function, or where it is none softmax over the channels, to a graph.
fn export(function: Option<Activation>, graph: &mut Graph<'_>, x: Value) -> Value {
    let Some(function) = function else {
        return graph.softmax(&x);
    };
    match function {
        Activation::Linear => x,
        Activation::Relu => graph.apply("Relu", &x, &[]),
        Activation::LeakyRelu { slope } => with_alpha("LeakyRelu", graph, &x, slope),
        Activation::Elu { alpha } => with_alpha("Elu", graph, &x, alpha),
        Activation::Sigmoid => graph.apply("Sigmoid", &x, &[]),
        Activation::Tanh => graph.apply("Tanh", &x, &[]),
        Activation::Gelu => {
            // Φ(x) = (1 + erf(x / √2)) / 2.
            let scaled = graph.multiply(&x, std::f32::consts::FRAC_1_SQRT_2);
            let curve = graph.apply("Erf", &scaled, &[]);
            half_of_one_plus(graph, &curve, &x)
        }
        Activation::GeluTanh => {
            // tanh(√(2/π) (x + 0.044715 x³)) in place of erf(x / √2).
            let square = graph.apply("Mul", &x, &[x.name()]);
            let cubic = graph.multiply(&square, 0.044_715);
            let factor = graph.add(&cubic, 1.0);
            let inner = graph.apply("Mul", &factor, &[x.name()]);
            let scale = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
            let scaled = graph.multiply(&inner, scale);
            let curve = graph.apply("Tanh", &scaled, &[]);
            half_of_one_plus(graph, &curve, &x)
        }
        Activation::Silu => {
            let gate = graph.apply("Sigmoid", &x, &[]);
            graph.apply("Mul", &x, &[gate.name()])
        }
    }
}

/// The operator's only setting is its alpha.
fn with_alpha(operator: &str, graph: &mut Graph<'_>, x: &Value, alpha: f32) -> Value {
    let alpha = [("alpha", Attribute::Float(alpha))];
    graph.map(operator, x, &[], &alpha, x.shape())
}

/// `x * (1 + curve) / 2`
fn half_of_one_plus(graph: &mut Graph<'_>, curve: &Value, x: &Value) -> Value {
    let raised = graph.add(curve, 1.0);
    let gated = graph.apply("Mul", &raised, &[x.name()]);
    graph.multiply(&gated, 0.5)
}

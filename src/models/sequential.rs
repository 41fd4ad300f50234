//! Layers one after another, with a loss at the end.

use super::{BuildModel, Head, LossSpec, MicroBatch, Model, Report, Structure};
use crate::backend::{Backend, View, ViewMut};
use crate::data::Description;
use crate::layers::{ActivationSpec, Build, Context, LayerError, LayerSpec, Shape, Stack};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{GradSink, Grads};

/// Layers in forward order, to be written one after another:
///
/// ```
/// use ringstep::layers::{ActivationSpec, Conv2D, Dense, Flatten};
/// use ringstep::models::Layers;
///
/// let layers = Layers::new()
///     .then(Conv2D::new(16, 3).activation(ActivationSpec::Relu))
///     .then(Flatten::default())
///     .then(Dense::new(10));
/// assert_eq!(layers.specs().len(), 3);
/// ```
///
/// As serde sees it, it is the list `model.layers` of a run file.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Layers {
    specs: Vec<LayerSpec>,
}

impl Layers {
    /// No layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another layer at the end.
    #[must_use]
    pub fn then(mut self, layer: impl Into<LayerSpec>) -> Self {
        self.specs.push(layer.into());
        self
    }

    /// Builds them for inputs of shape `input`: a part of a model.
    ///
    /// # Errors
    /// If a layer cannot take what the one before it gives.
    pub fn stack<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Stack<B>, LayerError> {
        Stack::new(build, &self.specs, input)
    }

    /// The layers, in forward order.
    pub fn specs(&self) -> &[LayerSpec] {
        &self.specs
    }
}

impl From<Vec<LayerSpec>> for Layers {
    fn from(specs: Vec<LayerSpec>) -> Self {
        Self { specs }
    }
}

impl BuildModel for Layers {
    fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError> {
        Ok(Box::new(Sequential::new(build, &self.specs, data, loss)?))
    }

    fn indices(&self) -> Option<usize> {
        let mut specs = self.specs.iter();
        match specs.find(|spec| !matches!(spec, LayerSpec::Flatten(_)))? {
            LayerSpec::Embedding(embedding) => Some(embedding.input_dim),
            _ => None,
        }
    }
}

/// A stack of layers with a loss.
///
/// A softmax or a sigmoid at the end is computed together with its cross entropy: the stack runs without it,
/// and [`Model::predict`] applies it.
pub struct Sequential<B: Backend> {
    stack: Stack<B>,
    head: Head<B>,
    structure: Structure,
}

impl<B: Backend> Sequential<B> {
    /// Builds `layers` for rows as `data` describes them.
    ///
    /// # Errors
    /// If a layer cannot take what the one before it gives, or the last one's output does not fit
    /// loss and targets.
    pub fn new(
        mut build: Build<'_, B>,
        layers: &[LayerSpec],
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Self, LayerError> {
        check_indices(layers)?;
        let fused = fuse(layers, loss)?;
        let layers = fused.as_deref().unwrap_or(layers);
        let stack = Stack::new(&mut build, layers, &data.shape)?;
        let head = Head::new(&mut build, loss, &data.targets, stack.shape())?;
        let structure = Structure::new(build, &data.shape, stack.shape(), head.target_width());
        Ok(Self {
            stack,
            head,
            structure,
        })
    }
}

/// Refuses layers that make numbers before one that looks up indices: there is nothing to learn for those.
fn check_indices(layers: &[LayerSpec]) -> Result<(), LayerError> {
    let mut behind = layers
        .iter()
        .skip_while(|spec| matches!(spec, LayerSpec::Flatten(_)));
    // Which may be one.
    behind.next();
    match behind.any(looks_up) {
        true => Err(LayerError::Model {
            problem: "an embedding looks up the data's indices, but other layers stand before it; put it \
                      first"
                .to_owned(),
        }),
        false => Ok(()),
    }
}

/// Whether a layer is an embedding, or has one in it.
fn looks_up(spec: &LayerSpec) -> bool {
    match spec {
        LayerSpec::Embedding(_) => true,
        LayerSpec::Residual(residual) => residual.layers.iter().any(looks_up),
        _ => false,
    }
}

/// The layers without a final activation that makes probabilities, where the loss is their cross entropy.
fn fuse(layers: &[LayerSpec], loss: &LossSpec) -> Result<Option<Vec<LayerSpec>>, LayerError> {
    let (Some(link), Some((last, before))) = (loss.link(), layers.split_last()) else {
        return Ok(None);
    };
    match last.split_activation() {
        (function, rest) if function == link => {
            Ok(Some(before.iter().cloned().chain(rest).collect()))
        }
        (ActivationSpec::Sigmoid | ActivationSpec::Softmax, _) => Err(LayerError::Model {
            problem: format!(
                "the last layer already makes probabilities, and the loss {} would make others of them; \
                 leave out its activation, or use the loss that belongs to it",
                loss.name()
            ),
        }),
        _ => Ok(None),
    }
}

impl<B: Backend> Model<B> for Sequential<B> {
    fn structure(&self) -> &Structure {
        &self.structure
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        let outputs = self.stack.forward(cx, parameters, batch.features);
        self.head.forward(cx, outputs, batch, report);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    ) {
        let dy = self.head.gradient(cx.rows);
        let mut grads = Grads::new(sink, 0);
        self.stack
            .backward(cx, parameters, batch.features, dy, &mut grads);
        grads.done(0);
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    ) {
        let outputs = self.stack.forward(cx, parameters, features);
        self.head.predict(cx, outputs, out);
    }

    fn export(&self, graph: &mut Graph<'_>, features: Value) -> Result<Value, OnnxError> {
        let outputs = self.stack.export(graph, features)?;
        Ok(self.head.export(graph, outputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Dense, Embedding, Flatten, Residual};

    #[test]
    fn only_the_data_are_indices() {
        let check = |layers: Layers| check_indices(layers.specs()).is_ok();
        let embedding = || Embedding::new(5, 2);
        assert!(check(Layers::new().then(embedding()).then(Dense::new(1))));
        let flat = Layers::new().then(Flatten::default());
        assert!(check(flat.clone().then(embedding())));
        let behind = flat.then(Dense::new(3)).then(embedding());
        assert!(!check(behind.clone()));
        let within = Residual::new(vec![embedding().into()]);
        assert!(!check(Layers::new().then(Dense::new(3)).then(within)));
        let twice = Layers::new().then(embedding()).then(embedding());
        assert!(!check(twice));
    }
}

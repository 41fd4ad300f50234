//! The registry of layers.

use std::mem;

use super::{
    Activate, BatchNorm, Dense, Dropout, Elu, Embedding, Flatten, LayerError, LayerNorm, LeakyRelu,
    Residual, Softmax,
};
use super::{ActivationSpec, Build, Built, Shape};
use super::{AveragePooling2D, Conv2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D};
use crate::backend::Backend;
use crate::named::registry;

registry! {
    /// A layer as a run file, a checkpoint and a builder name it.
    pub enum LayerSpec ("a layer") {
        Dense(Dense) = "dense": "every output from every input of the last dimension",
        Activation(Activate) = "activation": "an element-wise function, or softmax",
        LeakyRelu(LeakyRelu) = "leaky_relu": "a slope for negative values",
        Elu(Elu) = "elu": "an exponential for negative values",
        Softmax(Softmax) = "softmax": "probabilities over the last dimension",
        Conv2D(Conv2D) = "conv2d": "every output from a window of the image",
        MaxPooling2D(MaxPooling2D) = "max_pooling2d": "the largest value of each window",
        AveragePooling2D(AveragePooling2D) = "average_pooling2d": "the mean of each window",
        GlobalMaxPooling2D(GlobalMaxPooling2D) = "global_max_pooling2d": "the largest value of each channel",
        GlobalAveragePooling2D(GlobalAveragePooling2D) = "global_average_pooling2d": "the mean of each channel",
        Flatten(Flatten) = "flatten": "all dimensions as one",
        Dropout(Dropout) = "dropout": "sets a random share of its input to zero in training",
        BatchNorm(BatchNorm) = "batch_normalization":
            "each channel to mean 0 and variance 1 over the micro-batch",
        LayerNorm(LayerNorm) = "layer_normalization":
            "the last dimension to mean 0 and variance 1",
        Embedding(Embedding) = "embedding": "a learned vector for each index",
        Residual(Residual) = "residual": "adds its input to the output of the layers inside it",
    }
}

/// Does `$body` with the settings of whichever kind it is.
macro_rules! each {
    ($self:expr, $spec:ident => $body:expr) => {
        match $self {
            LayerSpec::Dense($spec) => $body,
            LayerSpec::Activation($spec) => $body,
            LayerSpec::LeakyRelu($spec) => $body,
            LayerSpec::Elu($spec) => $body,
            LayerSpec::Softmax($spec) => $body,
            LayerSpec::Conv2D($spec) => $body,
            LayerSpec::MaxPooling2D($spec) => $body,
            LayerSpec::AveragePooling2D($spec) => $body,
            LayerSpec::GlobalMaxPooling2D($spec) => $body,
            LayerSpec::GlobalAveragePooling2D($spec) => $body,
            LayerSpec::Flatten($spec) => $body,
            LayerSpec::Dropout($spec) => $body,
            LayerSpec::BatchNorm($spec) => $body,
            LayerSpec::LayerNorm($spec) => $body,
            LayerSpec::Embedding($spec) => $body,
            LayerSpec::Residual($spec) => $body,
        }
    };
}

impl LayerSpec {
    /// Builds the layer for inputs of shape `input`.
    pub fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        let name = each!(self, spec => spec.name.as_deref());
        build.layer(
            self.name(),
            name,
            |build| each!(self, spec => spec.build(build, input)),
        )
    }

    /// The activation that is its last step, and the layer without it; `None` where nothing is left.
    pub fn split_activation(&self) -> (ActivationSpec, Option<Self>) {
        let linear = ActivationSpec::Linear;
        match self.clone() {
            Self::Softmax(_) => (ActivationSpec::Softmax, None),
            Self::Activation(layer) => (layer.function, None),
            Self::Dense(mut layer) => {
                let function = mem::replace(&mut layer.activation, linear);
                (function, Some(layer.into()))
            }
            Self::Conv2D(mut layer) => {
                let function = mem::replace(&mut layer.activation, linear);
                (function, Some(layer.into()))
            }
            other => (linear, Some(other)),
        }
    }
}

//! Where models come from: one trait for what a run file lists and what is written in Rust.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LossSpec, Model};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::data::Description;
use crate::layers::{Build, LayerError};

/// Something that a model can be built from, on any backend: a list of layers, or settings of a
/// program's own.
///
/// Every rank builds the model for itself, and so does every command that opens the run later. All
/// of them have to come to the same tensors, so that nothing but `self`, `data` and `loss` may
/// decide what is built.
pub trait BuildModel: Send + Sync {
    /// Builds the model for rows as `data` describes them, to minimise `loss`. Layers and buffers
    /// are made by `build`; what it has collected in the end is the model's
    /// [`Structure`](super::Structure).
    ///
    /// # Errors
    /// If layers do not fit one another, the data or the loss, or there is no memory.
    /// [`LayerError::Model`] is for settings that make no sense.
    fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError>;

    /// Below which number all features have to be, and whole, where the model looks them up: data that
    /// are not are refused before anything is trained or predicted.
    fn indices(&self) -> Option<usize> {
        None
    }
}

/// A model of a program's own that run files can name: `custom = "residual"`, or
/// `custom = { kind = "residual", filters = 32 }`.
///
/// The type holds the settings, as serde reads and writes them. `#[serde(default,
/// deny_unknown_fields)]` gives them defaults and refuses what it does not know, with line and
/// nearest key. No setting is called `kind`. They are written to the run's folder with every default spelled out, compared
/// between ranks, and compared again when the run is resumed.
pub trait CustomModel: BuildModel + Serialize + DeserializeOwned + 'static {
    /// Its name in run files.
    const KIND: &'static str;
}

/// [`BuildModel`] on one backend, so that what models are built from can be a trait object.
pub trait BuildOn<B: Backend>: Send + Sync {
    /// As [`BuildModel::build`].
    ///
    /// # Errors
    /// As there.
    fn build_on(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError>;
}

impl<B: Backend, M: BuildModel> BuildOn<B> for M {
    fn build_on(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError> {
        self.build(build, data, loss)
    }
}

/// [`BuildOn`] every backend there is.
pub trait BuildAnywhere: BuildOn<Cpu> + BuildOn<Cuda> {
    /// As [`BuildModel::indices`].
    fn indices(&self) -> Option<usize>;
}

impl<M: BuildModel> BuildAnywhere for M {
    fn indices(&self) -> Option<usize> {
        BuildModel::indices(self)
    }
}

//! A run that was trained, as the commands that read it see it.

use std::path::Path;

use super::Failure;
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::RunConfig;
use crate::data::{Split, Table, load};
use crate::models::Sequential;
use crate::train::{Inference, RunFolder};

/// A run's folder and what its configuration says.
pub(super) struct Run {
    pub(super) folder: RunFolder,
    pub(super) config: RunConfig,
}

impl Run {
    /// The run in the folder at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let folder = RunFolder::open(path)?;
        let config = RunConfig::load(&folder.config_path(), &[])?;
        Ok(Self { folder, config })
    }

    /// What the model was trained on: its rows' shape, columns and classes are what the model knows.
    pub(super) fn training_data(&self) -> Result<Table, Failure> {
        let task = self.config.task();
        Ok(load(&self.config.data, task, Split::Train, None)?)
    }

    /// The checkpoint of that name, or the newest whole one; warns of those it skips.
    pub(super) fn checkpoint(&self, name: Option<&str>) -> Result<Checkpoint, Failure> {
        let checkpoints = self.folder.checkpoints();
        if let Some(name) = name {
            return Ok(Checkpoint::named(&checkpoints, name)?);
        }
        let newest = Checkpoint::newest(&checkpoints)?;
        for skipped in &newest.skipped {
            tracing::warn!("{skipped}");
        }
        let missing = || CheckpointError::NotFound {
            wanted: "whole checkpoint".to_owned(),
            checkpoints,
            present: "none".to_owned(),
        };
        Ok(newest.checkpoint.ok_or_else(missing)?)
    }

    /// The run's model with the weights of `checkpoint`.
    pub(super) fn inference(
        &self,
        training: &Table,
        checkpoint: &Checkpoint,
    ) -> Result<Inference<Cpu, Sequential<Cpu>>, Failure> {
        let rows = self.config.train.micro_batch;
        let mut backend = Cpu::new();
        let model = Sequential::new(
            &mut backend,
            &training.shape,
            &self.config.model.layers,
            &self.config.model.loss,
            &training.target_kind,
            rows,
        )?;
        let mut inference = Inference::new(backend, model, rows)?;
        inference.load(checkpoint)?;
        Ok(inference)
    }
}

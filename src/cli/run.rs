//! A run that was trained, as the commands that read it see it.

use std::fs;
use std::path::Path;

use super::Failure;
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{CustomModels, RunConfig};
use crate::layers::Build;
use crate::models::Model;
use crate::train::{Inference, RunFolder};

/// A run's model, to be applied.
pub(super) type ModelInference = Inference<Cpu, Box<dyn Model<Cpu>>>;

/// A run's folder and what its configuration says.
pub(super) struct Run {
    pub(super) folder: RunFolder,
    pub(super) config: RunConfig,
}

impl Run {
    /// The run in the folder at `path`, whose model may be one of `models`.
    pub(super) fn open(path: &Path, models: &CustomModels) -> Result<Self, Failure> {
        let folder = RunFolder::open(path)?;
        let config = RunConfig::load_with(&folder.config_path(), &[], models)?;
        Ok(Self { folder, config })
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

    /// What the run consists of is not replaced by the `output` that `flag` names.
    pub(super) fn refuse_own_files(&self, flag: &str, output: &Path) -> Result<(), Failure> {
        let Ok(target) = fs::canonicalize(output) else {
            return Ok(());
        };
        let folder = &self.folder;
        for own in [
            folder.config_path(),
            folder.metrics_path(),
            folder.checkpoints(),
            folder.exports(),
            folder.events(),
        ] {
            if fs::canonicalize(&own).is_ok_and(|own| target.starts_with(own)) {
                return Err(format!(
                    "{flag} {} belongs to the run; name another file, or it would be lost",
                    output.display()
                )
                .into());
            }
        }
        Ok(())
    }

    /// The run's model with the weights of `checkpoint`, in the precision it was trained in. All that it has to know of the training
    /// data stands there: the files may be gone.
    pub(super) fn inference(&self, checkpoint: &Checkpoint) -> Result<ModelInference, Failure> {
        let rows = self.config.train.micro_batch;
        let mut backend = Cpu::new().with_precision(self.config.train.precision);
        let build = Build::new(&mut backend, rows);
        let model = self.config.model.build(build, &checkpoint.facts().data)?;
        let mut inference = Inference::new(backend, model, rows)?;
        inference.load(checkpoint)?;
        Ok(inference)
    }
}

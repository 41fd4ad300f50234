//! A run that was trained, to be read, evaluated and applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use super::resume::compare_applied;
use super::{Evaluated, Inference, RunFolder, Totals, TrainError};
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{CustomModels, RunConfig};
use crate::data::Table;
use crate::layers::Build;
use crate::models::Model;
use crate::params::partition;

/// A run's model, to be applied.
pub type ModelInference = Inference<Cpu, Box<dyn Model<Cpu>>>;

/// A run's folder and what its configuration says.
#[derive(Debug)]
pub struct Run {
    /// Where it lies.
    pub folder: RunFolder,
    /// What it was trained by.
    pub config: RunConfig,
}

impl Run {
    /// The run in the folder at `path`, whose model may be one of `models`.
    ///
    /// # Errors
    /// If there is none, or its configuration cannot be used.
    pub fn open(path: &Path, models: &CustomModels) -> Result<Self, TrainError> {
        let folder = RunFolder::open(path)?;
        let config = RunConfig::load_with(&folder.config_path(), &[], models)?;
        Ok(Self { folder, config })
    }

    /// The checkpoint of that name, or the newest whole one; warns of those it skips.
    ///
    /// # Errors
    /// If there is none, or the configuration is not what it was trained with.
    pub fn checkpoint(&self, name: Option<&str>) -> Result<Checkpoint, TrainError> {
        let checkpoint = self.find(name)?;
        compare_applied(&checkpoint, (&self.folder.config_path(), &self.config))?;
        Ok(checkpoint)
    }

    fn find(&self, name: Option<&str>) -> Result<Checkpoint, CheckpointError> {
        let checkpoints = self.folder.checkpoints();
        if let Some(name) = name {
            return Checkpoint::named(&checkpoints, name);
        }
        let newest = Checkpoint::newest(&checkpoints)?;
        for skipped in &newest.skipped {
            tracing::warn!("{skipped}");
        }
        newest.whole(&checkpoints)
    }

    /// The run's model with the weights of `checkpoint`, in the precision it was trained in. All that it
    /// has to know of the training data stands there: the files may be gone.
    ///
    /// # Errors
    /// If the checkpoint is damaged or of another model, or there is no memory.
    pub fn inference(&self, checkpoint: &Checkpoint) -> Result<ModelInference, TrainError> {
        let rows = self.config.train.micro_batch;
        let mut backend = Cpu::new().with_precision(self.config.train.precision);
        let build = Build::new(&mut backend, rows);
        let model = self.config.model.build(build, &checkpoint.facts().data)?;
        let mut inference = Inference::new(backend, model, rows)?;
        inference.load(checkpoint)?;
        Ok(inference)
    }

    /// Metrics of `checkpoint` on a table, by name: `loss`, `accuracy`, ... The rows are shared by so many
    /// threads, at least 1, and summed in their order whatever the number.
    ///
    /// # Errors
    /// As [`Self::inference`], and if the rows are not like those that were trained on.
    pub fn evaluate(
        &self,
        checkpoint: &Checkpoint,
        table: &Table,
        ranks: usize,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        self.config.check_test(table, &checkpoint.facts().data)?;
        let micro_batches = table.rows.div_ceil(self.config.train.micro_batch);
        let ranks = ranks.clamp(1, micro_batches.max(1));
        let judge = self.config.judging().map(|judging| judging.judge);
        let rank = |rank| -> Result<_, TrainError> {
            let mut inference = self.inference(checkpoint)?;
            Ok(inference.evaluate(table, partition(micro_batches, ranks, rank), judge)?)
        };
        let rank = &rank;
        let parts = thread::scope(|scope| {
            let start = |index| scope.spawn(move || rank(index));
            let threads: Vec<_> = (0..ranks).map(start).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(reports) => reports,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads
                .into_iter()
                .map(join)
                .collect::<Result<Vec<_>, TrainError>>()
        })?;
        let (mut totals, mut rows) = (Totals::default(), Vec::new());
        for part in parts {
            part.reports
                .into_iter()
                .for_each(|report| totals.add(report));
            rows.extend(part.judged);
        }
        let evaluated = Evaluated { totals, rows };
        Ok(evaluated.metrics(table, self.config.judging()))
    }
}

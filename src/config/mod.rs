//! What a user typed (a run file and `--set` overrides) and what it means ([`RunConfig`]).
//!
//! The run file is TOML with sections `[data]`, `[columns]`, `[model]` or `[estimator]`, and `[train]`.
//! Every mistake in it is reported with its line, and unknown names with the nearest known one.
//! [`RunConfig::to_toml`] writes the resolved configuration, every default spelled out, as a run file again.

mod cadence;
mod columns_section;
mod control;
mod data_rows;
mod data_section;
mod deserialize;
mod document;
mod error;
mod explain;
mod file;
mod given;
mod load;
mod model_section;
mod one_or_more;
mod paths;
mod train_section;

use std::io;
use std::path::Path;

pub use cadence::{Cadence, Keep, Length, Patience, Seconds};
pub use control::{
    EarlyStopping, Export, ExportFormat, ExportWhen, Goal, Measure, Plateau, Stagnation, Threshold,
    WarmStart,
};
pub use document::Override;
pub use error::ConfigError;
pub use model_section::{Custom, CustomModels};

use crate::backend::{Backend, DeviceChoice, MatmulChoice, Precision};
use crate::columns::Columns;
use crate::comm::nccl::NcclAlgorithm;
use crate::comm::{CollectiveChoice, ReduceMode};
use crate::data::{Augmentation, DataConfig, Description, Sampler, Table, Task, files};
use crate::estimators::EstimatorSpec;
use crate::layers::{Build, LayerError};
use crate::models::{
    BuildAnywhere, BuildModel, BuildOn, Judge, Judging, Layers, LossReduction, LossSpec, Model,
};
use crate::optim::{ClipSpec, OptimizerSpec, ScheduleSpec};
use crate::params::BUCKET_MIB;
use file::RunFile;

/// Everything that defines a run, all defaults filled in.
///
/// As serde writes it, it is a run file: equal configurations serialise equally.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(into = "RunFile")]
pub struct RunConfig {
    /// Name of the run's folder.
    pub name: String,
    /// What is learned from.
    pub data: DataConfig,
    /// How named columns of the data become what a model reads; `None` reads their numbers as they are.
    pub columns: Option<Columns>,
    /// What learns.
    pub model: ModelConfig,
    /// How it learns.
    pub train: TrainConfig,
}

/// What learns, and what it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// What is minimised.
    pub loss: LossSpec,
    /// What the model is built from.
    pub architecture: Architecture,
}

/// What a model is built from.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// `model.layers`: a list of layers.
    Layers(Layers),
    /// `model.custom`: a model of the program's own.
    Custom(Custom),
    /// `[estimator]`: a premade one.
    Estimator(EstimatorSpec),
}

impl ModelConfig {
    /// Builds the model for rows as `data` describes them: the one place where models are built.
    ///
    /// # Errors
    /// If layers do not fit one another, the data or the loss, or there is no memory.
    pub fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
    ) -> Result<Box<dyn Model<B>>, LayerError>
    where
        dyn BuildAnywhere: BuildOn<B>,
    {
        match &self.architecture {
            Architecture::Layers(layers) => layers.build(build, data, &self.loss),
            Architecture::Estimator(estimator) => estimator.build(build, data, &self.loss),
            Architecture::Custom(custom) => {
                <dyn BuildAnywhere as BuildOn<B>>::build_on(custom.model(), build, data, &self.loss)
            }
        }
    }
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainConfig {
    /// Rows of one step, over all ranks; at least 1.
    pub global_batch: usize,
    /// Rows that go through the model together; at least 1, at most `global_batch`.
    pub micro_batch: usize,
    /// When training is over.
    pub length: Length,
    /// Key of all randomness; at most 2^63 - 1.
    pub seed: u64,
    /// Number of ranks, at least 1.
    pub ranks: usize,
    /// Where each rank computes.
    pub device: DeviceChoice,
    /// How gradients are added; unless it is said, exactly on CPUs and as `f32` on GPUs.
    pub reduce: Option<ReduceMode>,
    /// What operands of products are rounded to.
    pub precision: Precision,
    /// Whether a GPU's kernels are launched together, as CUDA graphs.
    pub graphs: bool,
    /// What multiplies matrices on GPUs.
    pub matmul: MatmulChoice,
    /// How rows' losses become one number; unless it is said, an Estimator's are summed, others averaged.
    pub loss_reduction: Option<LossReduction>,
    /// The update rule; `None` where an Estimator has its own.
    pub optimizer: Option<OptimizerSpec>,
    /// How the learning rate changes over the steps.
    pub schedule: ScheduleSpec,
    /// Bounds on the gradient.
    pub clip: Option<ClipSpec>,
    /// Whether the learning rate is multiplied by the number of ranks.
    pub scale_rate_with_ranks: bool,
    /// Whether each rank steps only its shard of the parameters (ZeRO-1).
    pub sharded: bool,
    /// Size of a gradient bucket in MiB, above 0.
    pub bucket_mib: f64,
    /// How ranks exchange gradients.
    pub collective: CollectiveChoice,
    /// What NCCL is asked for, where it exchanges them.
    pub nccl_algo: NcclAlgorithm,
    /// Steps between two lines of the log, at least 1.
    pub log_every: u64,
    /// Whether TensorBoard's event files are written, too.
    pub tensorboard: bool,
    /// When the test split is evaluated; always after the last step.
    pub evaluate_every: Cadence,
    /// Evaluations that come sooner after the one before are left out.
    pub evaluate_throttle: Option<Seconds>,
    /// When a checkpoint is written; always after the last step.
    pub checkpoint_every: Cadence,
    /// Whether there is a checkpoint of what a run begins with.
    pub checkpoint_at_start: bool,
    /// How many checkpoints are kept.
    pub keep: Keep,
    /// The best checkpoint by this is kept, too.
    pub best: Option<Measure>,
    /// When training ends before its length.
    pub early_stopping: Option<EarlyStopping>,
    /// How the learning rate falls where a metric does not improve.
    pub plateau: Option<Plateau>,
    /// What is exported on the way.
    pub export: Option<Export>,
    /// Which weights the run begins with.
    pub warm_start: Option<WarmStart>,
}

/// Rows of a micro-batch unless it is said otherwise.
const MICRO_BATCH: usize = 32;

impl TrainConfig {
    /// As a run file has it that says nothing else: every default stands here. Whatever is not an Estimator
    /// needs an `optimizer`, too.
    pub fn new(global_batch: usize, length: Length) -> Self {
        Self {
            global_batch,
            micro_batch: MICRO_BATCH.min(global_batch),
            length,
            seed: 0,
            ranks: 1,
            device: DeviceChoice::default(),
            reduce: None,
            precision: Precision::default(),
            graphs: true,
            matmul: MatmulChoice::default(),
            loss_reduction: None,
            optimizer: None,
            schedule: ScheduleSpec::default(),
            clip: None,
            scale_rate_with_ranks: false,
            sharded: false,
            bucket_mib: BUCKET_MIB as f64,
            collective: CollectiveChoice::default(),
            nccl_algo: NcclAlgorithm::default(),
            log_every: 10,
            tensorboard: false,
            evaluate_every: Cadence::Epoch,
            evaluate_throttle: None,
            checkpoint_every: Cadence::Epoch,
            checkpoint_at_start: false,
            keep: Keep::Newest(3),
            best: None,
            early_stopping: None,
            plateau: None,
            export: None,
            warm_start: None,
        }
    }

    /// How gradients are added on the device as it is chosen.
    pub fn reduce(&self) -> ReduceMode {
        self.reduce.unwrap_or(match self.device {
            DeviceChoice::Cuda(_) => ReduceMode::F32,
            DeviceChoice::Cpu | DeviceChoice::Auto => ReduceMode::Exact,
        })
    }

    /// What multiplies matrices on the device as it is chosen: own kernels unless it is said where sums are
    /// exact, for the bits of cuBLASLt depend on its version.
    pub fn matmul(&self) -> MatmulChoice {
        let is_cuda = matches!(self.device, DeviceChoice::Cuda(_));
        match self.matmul {
            MatmulChoice::Auto if !is_cuda || self.reduce() == ReduceMode::Exact => {
                MatmulChoice::Kernels
            }
            choice => choice,
        }
    }

    /// Size of a gradient bucket in bytes, at least 4.
    pub fn bucket_bytes(&self) -> usize {
        ((self.bucket_mib * f64::from(1 << 20)) as usize).max(4)
    }
}

impl<E: Into<EstimatorSpec>> From<E> for ModelConfig {
    fn from(estimator: E) -> Self {
        let estimator = estimator.into();
        Self {
            loss: estimator.loss(),
            architecture: Architecture::Estimator(estimator),
        }
    }
}

impl RunConfig {
    /// A run without `[columns]`: what a program has in place of a run file. [`Self::check`] says whether it
    /// can be.
    ///
    /// ```
    /// use ringstep::config::{Length, RunConfig, TrainConfig};
    /// use ringstep::data::{ColumnFormat, ColumnSource, DataConfig};
    /// use ringstep::estimators::DnnClassifier;
    ///
    /// let source = ColumnSource::new(ColumnFormat::Csv, "iris/train.csv", "species");
    /// let model = DnnClassifier {
    ///     n_classes: 3,
    ///     hidden_units: vec![10, 10],
    ///     ..DnnClassifier::default()
    /// };
    /// let train = TrainConfig::new(32, Length::Epochs(100));
    /// let config = RunConfig::new("iris", DataConfig::new(source), model, train);
    /// assert!(config.check().is_ok());
    /// ```
    pub fn new(
        name: impl Into<String>,
        data: DataConfig,
        model: impl Into<ModelConfig>,
        train: TrainConfig,
    ) -> Self {
        Self {
            name: name.into(),
            data,
            columns: None,
            model: model.into(),
            train,
        }
    }

    /// Refuses what a run file could not say either.
    ///
    /// # Errors
    /// For the first thing that is wrong, with its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_with(self.data.has_test())
    }

    /// The same where test rows are there, or not, whatever the data say.
    pub(crate) fn check_with(&self, has_test: bool) -> Result<(), ConfigError> {
        file::check(self, has_test)
    }

    /// As [`Self::load_with`], of a program without models of its own.
    ///
    /// # Errors
    /// As there.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        Self::load_with(path, overrides, &CustomModels::new())
    }

    /// Reads the run file at `path`, which may name `models`, and applies `overrides`, the last one
    /// winning.
    ///
    /// Relative paths in the file count from its folder, those in overrides from the current
    /// directory. The run is called after the file, or after its folder where the file is called
    /// `run.toml`.
    ///
    /// # Errors
    /// For the first thing that is wrong, with its line or override.
    pub fn load_with(
        path: &Path,
        overrides: &[Override],
        models: &CustomModels,
    ) -> Result<Self, ConfigError> {
        let read = files::opened(path).and_then(io::read_to_string);
        let text = read.map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        file::read(path, &text, overrides, models)
    }

    /// The configuration with all that depends on this machine decided: on which device, and how
    /// gradients are added there. On GPUs that decides whether there is a choice of what multiplies; CPUs
    /// have none, so that a run keeps its own for the GPUs that it may go on on.
    pub fn resolve(mut self) -> Self {
        let train = &mut self.train;
        train.device = train.device.resolve();
        train.reduce = Some(train.reduce());
        if let DeviceChoice::Cuda(_) = train.device {
            train.matmul = train.matmul();
        }
        self
    }

    /// Names of the columns of `[columns]` that the model reads, in the order of a row.
    pub fn used_columns(&self) -> Vec<String> {
        let named = match &self.model.architecture {
            Architecture::Estimator(estimator) => estimator.columns(),
            Architecture::Layers(_) | Architecture::Custom(_) => None,
        };
        let all = || -> Vec<&str> { self.columns.iter().flat_map(Columns::names).collect() };
        let names = named.unwrap_or_else(all).into_iter();
        names.map(str::to_owned).collect()
    }

    /// Whether the model learns from labels alone.
    fn reads_nothing(&self) -> bool {
        match &self.model.architecture {
            Architecture::Estimator(estimator) => {
                estimator.columns().is_some_and(|names| names.is_empty())
            }
            Architecture::Layers(_) | Architecture::Custom(_) => false,
        }
    }

    /// The update rules, one for each side of the model.
    pub fn optimizers(&self) -> Vec<OptimizerSpec> {
        match &self.model.architecture {
            Architecture::Estimator(estimator) => estimator.optimizers(),
            Architecture::Layers(_) | Architecture::Custom(_) => {
                self.train.optimizer.iter().cloned().collect()
            }
        }
    }

    /// What a step's sum of losses is divided by. TensorFlow's Estimators sum over the numbers of a label too.
    pub fn loss_reduction(&self) -> LossReduction {
        match (&self.model.architecture, self.named_reduction()) {
            (Architecture::Estimator(estimator), LossReduction::Sum) => match estimator.judge() {
                Judge::Numbers(numbers) => LossReduction::SumOfNumbers(numbers),
                Judge::Binary | Judge::Classes(_) => LossReduction::Sum,
            },
            (_, reduction) => reduction,
        }
    }

    /// The same as a run file names it: Estimators sum what everybody else averages, unless it is said.
    fn named_reduction(&self) -> LossReduction {
        let default = match &self.model.architecture {
            Architecture::Estimator(_) => LossReduction::Sum,
            Architecture::Layers(_) | Architecture::Custom(_) => LossReduction::default(),
        };
        self.train.loss_reduction.unwrap_or(default)
    }

    /// How the rows of an evaluation are judged one by one; `None` where sums over all of them do.
    pub fn judging(&self) -> Option<Judging> {
        match &self.model.architecture {
            Architecture::Estimator(estimator) => Some(Judging {
                judge: estimator.judge(),
                batch: self.train.global_batch,
                reduction: self.loss_reduction(),
            }),
            Architecture::Layers(_) | Architecture::Custom(_) => None,
        }
    }

    /// Which rows of a table come when.
    pub fn sampler(&self, table: &Table) -> Sampler {
        Sampler {
            rows: table.rows,
            global_batch: self.train.global_batch,
            micro_batch: self.train.micro_batch,
            seed: self.train.seed,
            shuffle: self.data.shuffle,
            tables: Vec::new(),
            remainder: self.data.remainder,
            augmentation: self.augmentation(table),
        }
    }

    fn augmentation(&self, table: &Table) -> Option<Augmentation> {
        let augment = self.data.augment.clone()?;
        Augmentation::new(augment, &table.shape, self.data.normalize.as_ref())
    }

    /// What the label is for, by the loss: cross entropies tell classes apart.
    pub fn task(&self) -> Task {
        match self.model.loss {
            LossSpec::SigmoidCrossEntropy(_) => Task::Classification { classes: Some(2) },
            LossSpec::SoftmaxCrossEntropy(_) => Task::Classification {
                classes: match &self.model.architecture {
                    Architecture::Estimator(estimator) => estimator.classes(),
                    Architecture::Layers(_) | Architecture::Custom(_) => None,
                },
            },
            LossSpec::SquaredError(_) | LossSpec::AbsoluteError(_) | LossSpec::Huber(_) => {
                Task::Regression
            }
        }
    }

    /// The configuration as a run file, every default spelled out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables with string keys and numbers within TOML's range")
    }
}

//! Why training stopped.

use super::{ExportError, ResumeError, RunFolderError, WarmStartError};
use crate::backend::BackendError;
use crate::checkpoint::{CheckpointError, FileError};
use crate::comm::nccl::LoadError;
use crate::comm::{CommError, Disagreement};
use crate::config::ConfigError;
use crate::data::DataError;
use crate::layers::LayerError;
use crate::optim::StepError;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The same, of a rank: kernels are queued, so it may have failed a step before it was noticed.
    #[error("rank {rank}{}: {source}", after(*.step))]
    Device {
        /// The rank.
        rank: usize,
        /// Steps that had been taken, where it was training.
        step: Option<u64>,
        /// What failed.
        source: BackendError,
    },
    /// NCCL was asked for, and cannot be used.
    #[error(transparent)]
    Nccl(#[from] LoadError),
    /// A collective failed, or another rank gave up.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The loss or a gradient is NaN or infinite; the step was not applied.
    #[error(
        "step {step}: the {what} is not finite on rank {rank} (micro-batch {micro_batch}); first \
         tensor that is not: {tensor}; the step was not applied; lower the learning rate, clip \
         gradients, or check the data"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// "loss", "gradient" or "statistic".
        what: &'static str,
        /// The first rank that saw it.
        rank: usize,
        /// The micro-batch of the global batch, or how many the rank had.
        micro_batch: String,
        /// The first tensor, in forward order, that holds a value that is not finite.
        tensor: String,
    },
    /// A model that computes something else when a step is computed again.
    #[error(
        "step {step}: gradients grew beyond what was made ready for them each time they were computed; \
         forward and backward of a model must give the same when they are repeated"
    )]
    Unrepeatable {
        /// The step, counted from 1.
        step: u64,
    },
    /// What was trained so far is of no use any more; it was not saved.
    #[error(
        "after step {step} {tensor} is not finite on rank {rank}; it was not saved, and earlier \
         checkpoints are kept; lower the learning rate, clip gradients or check the data, and go on \
         with --resume"
    )]
    Diverged {
        /// Steps taken.
        step: u64,
        /// The rank that saw it.
        rank: usize,
        /// The first tensor, or optimizer state, that holds a value that is not finite.
        tensor: String,
    },
    /// What is to be judged by a metric that evaluations do not give.
    #[error("train.{key}: evaluations give no '{name}'; they give {known}")]
    UnknownMetric {
        /// The key of `[train]`.
        key: &'static str,
        /// What it says.
        name: String,
        /// What there is.
        known: String,
    },
    /// There are no such weights to begin with.
    #[error(transparent)]
    WarmStart(#[from] WarmStartError),
    /// The model cannot be exported on the way.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The run's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The run would not go on as it was begun.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be built.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The ranks were not started alike.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// A model whose backward leaves a gradient out.
    #[error(
        "backward did not finish the gradient of '{tensor}': a model hands over every tensor in every micro-batch"
    )]
    Unfinished {
        /// The first such tensor.
        tensor: String,
    },
    /// A rank's thread panicked.
    #[error("rank {rank} panicked: {message}")]
    Panic {
        /// The rank.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// No threads.
    #[error("cannot start a thread for rank {rank}: {source}")]
    Spawn {
        /// The rank.
        rank: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

impl TrainError {
    /// What a rank says that has taken so many steps: a device does not know whose it is.
    pub(super) fn on_rank(self, rank: usize, step: Option<u64>) -> Self {
        match self {
            Self::Backend(source)
            | Self::Comm(CommError::Backend(source))
            | Self::Layer(LayerError::Backend(source)) => Self::Device { rank, step, source },
            other => other,
        }
    }
}

/// `, after step 3`
fn after(step: Option<u64>) -> String {
    step.map_or_else(String::new, |step| format!(", after step {step}"))
}

impl From<StepError> for TrainError {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Backend(error) => Self::Backend(error),
            StepError::Comm(error) => Self::Comm(error),
        }
    }
}

//! Training: ranks and their reducer threads, the one step, and what runs around it.

mod board;
mod control;
mod devices;
mod error;
mod evaluate;
mod events;
mod exact;
mod exchange;
mod export;
mod exports;
mod inference;
mod fit;
mod gpus;
mod hooks;
mod judged;
mod launch;
mod loss_scaling;
mod metrics;
mod not_finite;
mod progress;
mod reducer;
mod reduction;
mod resume;
mod run;
mod run_folder;
mod session;
mod snapshot;
mod tables;
mod trainer;
mod trainer_options;
mod warm_start;

pub use board::Totals;
pub use error::TrainError;
pub use evaluate::Evaluation;
pub use exact::Scales;
pub use export::{ExportError, export_onnx};
pub use fit::Outcome;
pub(crate) use gpus::gpu_of_rank;
pub use hooks::Hooks;
pub use inference::Inference;
pub use judged::{Evaluated, Reported};
pub use launch::{Connect, RankError, connect_mpi, connect_threads, run_rank, run_threads};
pub use metrics::{
    EvaluateRecord, MatmulRecord, MetricsWriter, Record, StartRecord, TrainRecord, read_metrics,
};
pub use progress::{Console, Progress, Tick};
pub use reducer::{Call, Connection, Job, Reducer, Wrap};
pub use reduction::{Reduction, ReductionOptions};
pub use resume::{Bits, ResumeError};
pub use run::{ModelInference, Run};
pub use run_folder::{CHECKPOINTS, Existing, RunFolder, RunFolderError};
pub use session::{Begin, Ranks, Session, Tables};
pub use trainer::{StepReport, Trainer};
pub use trainer_options::TrainerOptions;
pub use warm_start::WarmStartError;

//! Training: ranks and their reducer threads, the one step, and what runs around it.

mod board;
mod error;
mod exact;
mod launch;
mod reducer;
mod reduction;

pub use board::Totals;
pub use error::TrainError;
pub use exact::Scales;
pub use launch::{Connect, RankError, run_rank, run_threads};
pub use reducer::{Connection, Job, Reducer};
pub use reduction::{ReduceMode, Reduction, ReductionOptions};

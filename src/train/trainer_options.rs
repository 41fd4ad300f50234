//! How to train: what a trainer has to know beside the data and the model.

use crate::comm::ReduceMode;
use crate::models::LossReduction;
use crate::optim::{ClipSpec, LossScale, OptimizerSpec};
use crate::params::BUCKET_MIB;

/// How to train; what the data and the model do not say.
#[derive(Debug, Clone)]
pub struct TrainerOptions {
    /// Key of all random numbers.
    pub seed: u64,
    /// Most rows of a micro-batch.
    pub micro_batch: usize,
    /// Most micro-batches of a global batch.
    pub micro_batches: usize,
    /// How gradients are added.
    pub reduce: ReduceMode,
    /// Bytes of a bucket.
    pub bucket_bytes: usize,
    /// ZeRO-1: sharded optimizer state.
    pub sharded: bool,
    /// What a step's sum of losses is divided by.
    pub loss_reduction: LossReduction,
    /// The update rules, as many as the model has numbers for them.
    pub optimizers: Vec<OptimizerSpec>,
    /// Bounds on the gradient.
    pub clip: Option<ClipSpec>,
    /// What losses are multiplied by at first: for a backend whose products are `f16`.
    pub loss_scale: Option<LossScale>,
}

impl TrainerOptions {
    /// For global batches of up to `micro_batches` micro-batches of `micro_batch` rows, everything else as
    /// a run file has it by default on CPUs.
    pub fn new(
        micro_batch: usize,
        micro_batches: usize,
        optimizer: impl Into<OptimizerSpec>,
    ) -> Self {
        Self {
            seed: 0,
            micro_batch,
            micro_batches,
            reduce: ReduceMode::default(),
            bucket_bytes: BUCKET_MIB << 20,
            sharded: false,
            loss_reduction: LossReduction::default(),
            optimizers: vec![optimizer.into()],
            clip: None,
            loss_scale: None,
        }
    }
}

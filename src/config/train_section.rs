//! The run file's `[train]`.

use serde::{Deserialize, Serialize};

use super::document::LENGTHS;
use super::file::{Problem, at_least_one, invalid, missing, required};
use super::{
    Cadence, EarlyStopping, Export, Keep, Length, Measure, Plateau, Seconds, TrainConfig, WarmStart,
};
use crate::backend::{DeviceChoice, MatmulChoice, Precision};
use crate::comm::nccl::NcclAlgorithm;
use crate::comm::{CollectiveChoice, ReduceMode};
use crate::models::LossReduction;
use crate::optim::{ClipSpec, OptimizerSpec, ScheduleSpec};

/// More ranks than a launcher starts; how many can be threads, `comm` says.
const MOST_RANKS: usize = 1 << 16;

/// Most rows of a table, and of a step.
pub(super) const MOST_ROWS: usize = u32::MAX as usize;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainSection {
    global_batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<DeviceChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reduce: Option<ReduceMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<Precision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    graphs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matmul: Option<MatmulChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_reduction: Option<LossReduction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale_rate_with_ranks: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zero: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    collective: Option<CollectiveChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nccl_algo: Option<NcclAlgorithm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_every: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensorboard: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluate_every: Option<Cadence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluate_throttle: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_every: Option<Cadence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_at_start: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<Keep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    optimizer: Option<OptimizerSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<ScheduleSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clip: Option<ClipSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Measure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    early_stopping: Option<EarlyStopping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plateau: Option<Plateau>,
    #[serde(skip_serializing_if = "Option::is_none")]
    export: Option<Export>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_start: Option<WarmStart>,
}

impl TrainSection {
    /// `is_estimator`: whether what learns is one, which has optimizers of its own.
    pub(super) fn check(self, is_estimator: bool) -> Result<TrainConfig, Problem> {
        let length = self.length()?;
        let optimizer = match (self.optimizer, is_estimator) {
            (Some(_), true) => {
                let text = "an estimator has optimizers of its own; set them in [estimator]";
                return Err(invalid(&["train", "optimizer"], text));
            }
            (None, true) => None,
            (optimizer, false) => {
                let key = &["train", "optimizer"];
                Some(required(
                    optimizer,
                    key,
                    "the update rule, such as \"adam\"",
                )?)
            }
        };
        let default = TrainConfig::new(self.global_batch, length);
        at_least_one(self.global_batch as u64, &["train", "global_batch"])?;
        if self.global_batch > MOST_ROWS {
            let text = format!(
                "expected at most {MOST_ROWS} rows, found {}; a step of all rows has global_batch = their number",
                self.global_batch
            );
            return Err(invalid(&["train", "global_batch"], text));
        }
        let micro_batch = self.micro_batch.unwrap_or(default.micro_batch);
        at_least_one(micro_batch as u64, &["train", "micro_batch"])?;
        if micro_batch > self.global_batch {
            return Err(invalid(
                &["train", "micro_batch"],
                format!(
                    "{micro_batch} is more than global_batch = {}; a global batch is cut into \
                     micro-batches",
                    self.global_batch
                ),
            ));
        }
        let ranks = self.ranks.unwrap_or(default.ranks);
        at_least_one(ranks as u64, &["train", "ranks"])?;
        if ranks > MOST_RANKS {
            let text = format!("expected at most {MOST_RANKS}, found {ranks}");
            return Err(invalid(&["train", "ranks"], text));
        }
        let sharded = match self.zero {
            None => default.sharded,
            Some(0) => false,
            Some(1) => true,
            Some(other) => {
                let text = format!("expected 0 (off) or 1 (ZeRO-1), found {other}");
                return Err(invalid(&["train", "zero"], text));
            }
        };
        let bucket_mib = self.bucket_mib.unwrap_or(default.bucket_mib);
        if !bucket_mib.is_finite() || bucket_mib <= 0.0 {
            return Err(invalid(
                &["train", "bucket_mib"],
                "expected a number above 0",
            ));
        }
        let schedule = self.schedule.unwrap_or(default.schedule);
        if let Err(problem) = schedule.check() {
            return Err(invalid(&["train", "schedule"], problem.to_string()));
        }
        if let Some(ClipSpec::Value(limit) | ClipSpec::GlobalNorm(limit)) = self.clip
            && (limit.is_nan() || limit <= 0.0)
        {
            return Err(invalid(&["train", "clip"], "expected a number above 0"));
        }
        Ok(TrainConfig {
            global_batch: self.global_batch,
            micro_batch,
            length,
            seed: self.seed.unwrap_or(default.seed),
            ranks,
            device: self.device.unwrap_or(default.device),
            reduce: self.reduce,
            precision: self.precision.unwrap_or(default.precision),
            graphs: self.graphs.unwrap_or(default.graphs),
            matmul: self.matmul.unwrap_or(default.matmul),
            loss_reduction: self.loss_reduction,
            optimizer,
            schedule,
            clip: self.clip,
            scale_rate_with_ranks: self
                .scale_rate_with_ranks
                .unwrap_or(default.scale_rate_with_ranks),
            sharded,
            bucket_mib,
            collective: self.collective.unwrap_or(default.collective),
            nccl_algo: self.nccl_algo.unwrap_or(default.nccl_algo),
            log_every: match self.log_every {
                Some(steps) => at_least_one(steps, &["train", "log_every"])?,
                None => default.log_every,
            },
            tensorboard: self.tensorboard.unwrap_or(default.tensorboard),
            evaluate_every: self.evaluate_every.unwrap_or(default.evaluate_every),
            checkpoint_every: self.checkpoint_every.unwrap_or(default.checkpoint_every),
            evaluate_throttle: self.evaluate_throttle,
            checkpoint_at_start: self
                .checkpoint_at_start
                .unwrap_or(default.checkpoint_at_start),
            keep: self.keep.unwrap_or(default.keep),
            best: self.best,
            early_stopping: self.early_stopping,
            plateau: self.plateau,
            export: self.export,
            warm_start: self.warm_start,
        })
    }

    /// How long to train: one of the keys for it says so.
    fn length(&self) -> Result<Length, Problem> {
        let given: Vec<_> = [
            (&["train", "steps"], self.steps),
            (&["train", "max_steps"], self.max_steps),
            (&["train", "epochs"], self.epochs),
        ]
        .into_iter()
        .filter_map(|(key, count)| Some((key, count?)))
        .collect();
        match given[..] {
            [(key @ [_, "epochs"], epochs)] => Ok(Length::Epochs(at_least_one(epochs, key)?)),
            [(key, steps)] => Ok(Length::Steps(at_least_one(steps, key)?)),
            [] => {
                let keys = LENGTHS.map(|key| format!("'{key}'")).join(" or ");
                let text = format!("missing key {keys} in [train]: how long to train");
                Err(missing(&["train"], text))
            }
            [ref others @ .., (key, _)] => {
                let others: Vec<_> = others.iter().map(|([_, name], _)| *name).collect();
                let are = if others.len() == 1 { "is" } else { "are" };
                let text = format!(
                    "{} {are} given, too; keep one of them",
                    others.join(" and ")
                );
                Err(invalid(key, text))
            }
        }
    }
}

impl From<TrainConfig> for TrainSection {
    fn from(train: TrainConfig) -> Self {
        Self {
            global_batch: train.global_batch,
            micro_batch: Some(train.micro_batch),
            steps: match train.length {
                Length::Steps(steps) => Some(steps),
                Length::Epochs(_) => None,
            },
            max_steps: None,
            epochs: match train.length {
                Length::Steps(_) => None,
                Length::Epochs(epochs) => Some(epochs),
            },
            seed: Some(train.seed),
            ranks: Some(train.ranks),
            device: Some(train.device),
            reduce: train.reduce,
            precision: Some(train.precision),
            graphs: Some(train.graphs),
            matmul: Some(train.matmul),
            loss_reduction: train.loss_reduction,
            scale_rate_with_ranks: Some(train.scale_rate_with_ranks),
            zero: Some(train.sharded.into()),
            bucket_mib: Some(train.bucket_mib),
            collective: Some(train.collective),
            nccl_algo: Some(train.nccl_algo),
            log_every: Some(train.log_every),
            tensorboard: Some(train.tensorboard),
            evaluate_every: Some(train.evaluate_every),
            evaluate_throttle: train.evaluate_throttle,
            checkpoint_every: Some(train.checkpoint_every),
            checkpoint_at_start: Some(train.checkpoint_at_start),
            keep: Some(train.keep),
            optimizer: train.optimizer,
            schedule: Some(train.schedule),
            clip: train.clip,
            best: train.best,
            early_stopping: train.early_stopping,
            plateau: train.plateau,
            export: train.export,
            warm_start: train.warm_start,
        }
    }
}

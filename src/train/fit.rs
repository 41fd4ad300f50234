//! The training loop around the step: data, schedule, log, evaluation, checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::devices::Devices;
use super::evaluate::Evaluation;
use super::{
    EvaluateRecord, MatmulRecord, MetricsWriter, Progress, Record, RunFolder, StartRecord,
    StepReport, Tick, TrainError, TrainRecord, Trainer,
};
use crate::backend::{Backend, MatmulChoice, TimedMatmul};
use crate::checkpoint::{Best, Checkpoint, Facts, Goal, Retention};
use crate::config::{BestMetric, RunConfig};
use crate::data::{Prefetch, Table};
use crate::models::Model;
use crate::optim::OptimizerSpec;

/// What the loop works on.
pub(super) struct Fit<'a, B: Backend, M: Model<B>> {
    pub(super) trainer: Trainer<B, M>,
    pub(super) config: &'a RunConfig,
    pub(super) train: Arc<Table>,
    pub(super) test: Option<Arc<Table>>,
    pub(super) folder: &'a RunFolder,
    /// The devices of all ranks.
    pub(super) devices: &'a dyn Devices<B>,
    /// What every checkpoint notes; completed with the place in the run.
    pub(super) facts: Facts,
    /// What only rank 0 has: where people and files are told.
    pub(super) log: Option<Log>,
}

/// Where rank 0 tells how it goes.
pub(super) struct Log {
    pub(super) metrics: MetricsWriter,
    pub(super) progress: Progress,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which rank this is.
    pub rank: usize,
    /// Global steps that had been taken when it began.
    pub begun: u64,
    /// Global steps taken in all.
    pub step: u64,
    /// Metrics of the last evaluation: `test_loss`, `test_accuracy`, ...; empty without test data.
    pub metrics: BTreeMap<String, f64>,
    /// Micro-batches this rank computed in the last step.
    pub micro_batches: usize,
}

/// Sums since the last line of the log.
#[derive(Default)]
struct Window {
    steps: u32,
    rows: f64,
    exposed: Duration,
    input: Duration,
    skipped: u32,
}

impl<B: Backend, M: Model<B>> Fit<'_, B, M> {
    /// Trains to the end of the run; collective.
    pub(super) fn run(mut self) -> Result<Outcome, TrainError> {
        let outcome = self.train_to_end();
        let step = Some(self.trainer.global_step());
        outcome.map_err(|error| error.on_rank(self.trainer.reducer().rank(), step))
    }

    fn train_to_end(&mut self) -> Result<Outcome, TrainError> {
        let train = &self.config.train;
        let mut sampler = self.config.sampler(self.train.rows);
        let tables = self.trainer.model().structure().tables.iter();
        sampler.tables = tables.map(|table| table.indexed.clone()).collect();
        let per_epoch = sampler.steps_per_epoch();
        let end = train.length.steps(per_epoch);
        let start = self.trainer.global_step();
        let (rank, world) = (
            self.trainer.reducer().rank(),
            self.trainer.reducer().world(),
        );
        let factor = if train.scale_rate_with_ranks {
            world as f64
        } else {
            1.0
        };
        let optimizers = self.config.optimizers();
        let base = optimizers.first().map_or(0.0, OptimizerSpec::learning_rate) * factor;
        let mut evaluation = match &self.test {
            Some(test) => {
                let judge = self.config.judging().map(|judging| judging.judge);
                Some(self.trainer.evaluation(Arc::clone(test), judge)?)
            }
            None => None,
        };
        if start >= end && self.log.is_some() {
            tracing::warn!(
                "nothing to train: the run has taken {start} steps and was asked for {end}; set \
                 more with --set train.epochs=N or train.steps=N"
            );
        }
        self.log_start()?;
        let mut prefetch =
            Prefetch::start(Arc::clone(&self.train), sampler, (rank, world), start..end)
                .map_err(|source| TrainError::Spawn { rank, source })?;
        let mut outcome = Outcome {
            rank,
            begun: start,
            step: start,
            metrics: BTreeMap::new(),
            micro_batches: 0,
        };
        let (mut window, mut since) = (Window::default(), Instant::now());
        for step in start..end {
            let share = prefetch.next_share().ok_or_else(|| TrainError::Panic {
                rank,
                message: "the thread that reads its data ended early".to_owned(),
            })?;
            let rate = train.schedule.rate(base, step);
            let report = self.trainer.step(&share, rate)?;
            window.add(&report, prefetch.take_waited());
            self.tell_of_overflow(&report);
            if train.matmul() == MatmulChoice::Auto && self.facts.matmul.is_none() {
                // Now it is known which products there are.
                self.choose_products(None)?;
            }
            prefetch.recycle(share);
            let done = step + 1;
            outcome.step = done;
            outcome.micro_batches = report.micro_batches;
            let is_last = done == end;
            if done.is_multiple_of(train.log_every) || is_last {
                self.log_step(&report, rate, step / per_epoch, &window, since.elapsed())?;
                (window, since) = (Window::default(), Instant::now());
            } else if let Some(log) = &self.log {
                log.progress.step(done);
            }
            let paused = Instant::now();
            let mut evaluated = BTreeMap::new();
            if let Some(evaluation) = &mut evaluation
                && (is_last || train.evaluate_every.is_due(done, per_epoch))
            {
                evaluated = self.evaluate(evaluation, done / per_epoch)?;
                outcome.metrics.clone_from(&evaluated);
            }
            if is_last || train.checkpoint_every.is_due(done, per_epoch) {
                // Only what was measured at this very step may make it the best.
                self.save(done, per_epoch, &evaluated)?;
            }
            since += paused.elapsed();
        }
        if let Some(log) = self.log.take() {
            log.progress.finish();
        }
        Ok(outcome)
    }

    /// Goes on from a checkpoint.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.trainer.restore(checkpoint)?;
        match (self.config.train.matmul(), &checkpoint.facts().matmul) {
            (MatmulChoice::Auto, Some(pinned)) => self.choose_products(Some(pinned)),
            _ => Ok(()),
        }
    }

    /// Lets the devices choose what computes which products, unless it is known; collective.
    fn choose_products(&mut self, pinned: Option<&[TimedMatmul]>) -> Result<(), TrainError> {
        let (backend, reducer) = self.trainer.device();
        let products = self.devices.choose_products(backend, reducer, pinned)?;
        if let Some(log) = &mut self.log {
            let is_library = |timed: &&TimedMatmul| timed.chosen == MatmulChoice::Cublaslt;
            let chosen = products.iter().filter(is_library).count();
            if !products.is_empty() {
                tracing::info!(
                    "matmul: cublaslt for {chosen} of {} products",
                    products.len()
                );
            }
            if pinned.is_none() {
                log.metrics.write(&Record::Matmul(MatmulRecord {
                    step: self.trainer.global_step(),
                    products: products.clone(),
                }))?;
            }
        }
        // What was pinned stays so, also where a rank cannot do it today.
        self.facts.matmul = Some(pinned.map_or(products, <[TimedMatmul]>::to_vec));
        Ok(())
    }

    fn log_start(&mut self) -> Result<(), TrainError> {
        let step = self.trainer.global_step();
        let device = self.trainer.backend.fingerprint();
        let reducer = self.trainer.reducer();
        let world = reducer.world();
        let (collective, staged) = reducer.algorithm()?;
        if let Some(log) = &mut self.log {
            let train = &self.config.train;
            let scaled = match train.scale_rate_with_ranks {
                true => ", learning rate times the number of ranks",
                false => "",
            };
            let through = if staged { " through the host" } else { "" };
            tracing::info!(
                "ranks: {world}, device: {device}, precision: {}, matmul: {}, collective: \
                 {}{through}, reduce: {}, zero: {}{scaled}",
                train.precision,
                train.matmul(),
                collective,
                train.reduce(),
                u8::from(train.sharded),
            );
            log.metrics.write(&Record::Start(StartRecord {
                step,
                world,
                collective,
                staged,
                device,
                reduce: train.reduce(),
                precision: train.precision,
                matmul: train.matmul(),
            }))?;
        }
        Ok(())
    }

    /// Says that a step was not applied, and why.
    fn tell_of_overflow(&self, report: &StepReport) {
        if let (true, Some(scale), Some(_)) = (report.skipped, report.loss_scale, &self.log) {
            tracing::info!(
                "step {}: gradients of a loss times {scale} are beyond f16: the step is not applied, \
                 and the loss scale halved",
                self.trainer.global_step()
            );
        }
    }

    fn log_step(
        &mut self,
        report: &StepReport,
        rate: f64,
        epoch: u64,
        window: &Window,
        elapsed: Duration,
    ) -> Result<(), TrainError> {
        let Some(log) = &mut self.log else {
            return Ok(());
        };
        let step = self.trainer.global_step();
        let mean_ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(window.steps.max(1));
        let samples_per_second = window.rows / elapsed.as_secs_f64().max(1e-9);
        let exposed_comm_ms = mean_ms(window.exposed);
        log.metrics.write(&Record::Train(TrainRecord {
            step,
            epoch,
            loss: report.loss,
            rate,
            samples_per_second,
            exposed_comm_ms,
            input_wait_ms: mean_ms(window.input),
            gradient_norm: report.gradient_norm,
            loss_scale: report.loss_scale,
            skipped: report.loss_scale.map(|_| window.skipped),
        }))?;
        log.progress.log(&Tick {
            step,
            epoch,
            loss: report.loss,
            samples_per_second,
            exposed_comm_ms,
        });
        Ok(())
    }

    /// Evaluates on the test data; every rank gets the same metrics.
    fn evaluate(
        &mut self,
        evaluation: &mut Evaluation,
        epoch: u64,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let evaluated = self.trainer.evaluate(evaluation)?;
        let metrics = evaluated.metrics(evaluation.table(), self.config.judging());
        let named = metrics
            .iter()
            .map(|(name, &value)| (format!("test_{name}"), value))
            .collect();
        if let Some(log) = &mut self.log {
            let step = self.trainer.global_step();
            let record = EvaluateRecord {
                step,
                epoch,
                data: "test".to_owned(),
                rows: evaluated.totals.rows as u64,
                metrics,
            };
            log.progress.evaluation(&record);
            log.metrics.write(&Record::Evaluate(record))?;
        }
        Ok(named)
    }

    fn save(
        &mut self,
        done: u64,
        per_epoch: u64,
        metrics: &BTreeMap<String, f64>,
    ) -> Result<(), TrainError> {
        let facts = Facts {
            epoch: done / per_epoch,
            step_of_epoch: done % per_epoch,
            metrics: metrics.clone(),
            ..self.facts.clone()
        };
        let best = self.config.train.best.map(|metric| match metric {
            BestMetric::Accuracy => Best {
                metric: "test_accuracy".to_owned(),
                goal: Goal::Maximize,
            },
            BestMetric::Loss => Best {
                metric: "test_loss".to_owned(),
                goal: Goal::Minimize,
            },
        });
        let retention = Retention {
            last: self.config.train.keep,
            best,
        };
        self.trainer
            .save(&self.folder.checkpoints(), facts, &retention)?;
        Ok(())
    }
}

impl Window {
    fn add(&mut self, report: &StepReport, input: Duration) {
        self.steps += 1;
        self.rows += report.totals.rows;
        self.exposed += report.exposed;
        self.input += input;
        self.skipped += u32::from(report.skipped);
    }
}

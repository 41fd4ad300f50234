//! The training loop around the step: data, schedule, log, evaluation, checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{Change, Control, name_of_test};
use super::devices::Devices;
use super::evaluate::Evaluation;
use super::events::Events;
use super::exports::Exported;
use super::{
    EvaluateRecord, Hooks, MatmulRecord, MetricsWriter, Progress, Record, RunFolder, StartRecord,
    StepReport, Tick, TrainError, TrainRecord, Trainer,
};
use crate::backend::{Backend, MatmulChoice, TimedMatmul};
use crate::checkpoint::{Best, Checkpoint, Facts, FileError, Retention};
use crate::config::{ExportWhen, RunConfig};
use crate::data::{Prefetch, Table};
use crate::models::Model;
use crate::optim::base_rate;

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
    /// What is due when, and what evaluations decide.
    pub(super) control: Control<'a>,
    /// What only rank 0 has: where people and files are told.
    pub(super) log: Option<Log>,
}

/// Where rank 0 tells how it goes.
pub(super) struct Log {
    pub(super) metrics: MetricsWriter,
    /// TensorBoard's files, where they are asked for.
    pub(super) events: Option<Events>,
    pub(super) progress: Progress,
    pub(super) hooks: Hooks,
}

impl Log {
    fn write(&mut self, record: &Record) -> Result<(), FileError> {
        if let Some(events) = &mut self.events {
            events.write(record)?;
        }
        self.metrics.write(record)?;
        self.hooks.record(record);
        Ok(())
    }
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
    /// Metrics of the last evaluation, or of the one whose weights were taken back: `test_loss`,
    /// `test_accuracy`, ...; empty without test data.
    pub metrics: BTreeMap<String, f64>,
    /// Why it ended before its length, where it did.
    pub stopped: Option<String>,
    /// Micro-batches this rank computed in the last step.
    pub micro_batches: usize,
}

/// Says that there is nothing to train, where a run is over that is to go on.
fn tell_of_the_end(start: u64, end: u64, stopped: Option<&str>) {
    if let Some(reason) = stopped {
        tracing::warn!(
            "nothing to train: the run was stopped early after {start} steps: {reason}; to go on, change \
             what stops it, patience or threshold, by --set train.early_stopping.KEY=N, or take \
             [train.early_stopping] out"
        );
    } else if start >= end {
        tracing::warn!(
            "nothing to train: the run has taken {start} steps and was asked for {end}; set more with \
             --more-steps N, --set train.epochs=N or train.steps=N"
        );
    }
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
        let mut sampler = self.config.sampler(&self.train);
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
        let base = base_rate(&self.config.optimizers()) * factor;
        let mut evaluation = match &self.test {
            Some(test) => {
                let judge = self.config.judging().map(|judging| judging.judge);
                Some(self.trainer.evaluation(Arc::clone(test), judge)?)
            }
            None => None,
        };
        let stopped = self.control.reason_to_stop();
        if self.log.is_some() {
            tell_of_the_end(start, end, stopped.as_deref());
        }
        // What was stopped early stays so until it is asked for something else.
        let end = if stopped.is_some() { start } else { end };
        self.log_start()?;
        let mut prefetch =
            Prefetch::start(Arc::clone(&self.train), sampler, (rank, world), start..end)
                .map_err(|source| TrainError::Spawn { rank, source })?;
        let mut outcome = Outcome {
            rank,
            begun: start,
            step: start,
            metrics: BTreeMap::new(),
            stopped,
            micro_batches: 0,
        };
        if start == 0 && end > 0 && train.checkpoint_at_start {
            self.save(0, per_epoch, &BTreeMap::new())?;
        }
        let (mut window, begun) = (Window::default(), Instant::now());
        let mut since = begun;
        for step in start..end {
            let share = prefetch.next_share().ok_or_else(|| TrainError::Panic {
                rank,
                message: "the thread that reads its data ended early".to_owned(),
            })?;
            let scheduled = train.schedule.rate(base, step);
            let rate = self.control.rate(scheduled);
            self.trainer.board.write_clock(begun.elapsed());
            let report = self.trainer.step(&share, rate)?;
            let now = self.trainer.board.clock();
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
            let mut is_last = done == end;
            if done.is_multiple_of(train.log_every) || is_last {
                self.log_step(&report, rate, step / per_epoch, &window, since.elapsed())?;
                (window, since) = (Window::default(), Instant::now());
            } else if let Some(log) = &self.log {
                log.progress.step(done);
            }
            let paused = Instant::now();
            let (mut evaluated, mut change) = (BTreeMap::new(), Change::default());
            let is_due = self.control.is_evaluation_due(done, now);
            if let Some(evaluation) = &mut evaluation
                && (is_last || is_due)
            {
                evaluated = self.evaluate(evaluation, done / per_epoch)?;
                change = self.control.observe((done, now), rate, &evaluated, is_due);
                self.export_evaluated(change)?;
                if change.lowered && self.log.is_some() {
                    let lower = self.control.rate(scheduled);
                    tracing::info!("step {done}: learning rate {rate} falls to {lower}");
                }
                outcome.stopped = self.control.reason_to_stop();
                if outcome.stopped.is_some() {
                    if !is_last && window.steps > 0 {
                        let elapsed = paused - since;
                        self.log_step(&report, rate, step / per_epoch, &window, elapsed)?;
                    }
                    is_last = true;
                    self.take_best_back(&mut evaluated)?;
                }
                outcome.metrics.clone_from(&evaluated);
            }
            if is_last || change.is_needed || self.control.is_save_due(done, now) {
                // Only what was measured at this very step may make it the best.
                self.save(done, per_epoch, &evaluated)?;
                self.control.saved(now);
            }
            since += paused.elapsed();
            if is_last {
                self.export(&[ExportWhen::Final])?;
                break;
            }
        }
        if let Some(log) = self.log.take() {
            log.progress.finish();
        }
        Ok(outcome)
    }

    /// Exports what was evaluated.
    fn export_evaluated(&mut self, change: Change) -> Result<(), TrainError> {
        match change.is_best {
            true => self.export(&[ExportWhen::Best, ExportWhen::Latest]),
            false => self.export(&[ExportWhen::Latest]),
        }
    }

    /// Gives a run that was stopped early the weights and metrics of its best evaluation, where it is to
    /// end with them.
    fn take_best_back(&mut self, metrics: &mut BTreeMap<String, f64>) -> Result<(), TrainError> {
        let Some(step) = self.control.needed() else {
            return Ok(());
        };
        let checkpoint = Checkpoint::named(&self.folder.checkpoints(), &step.to_string())?;
        self.trainer.restore_model(&checkpoint)?;
        metrics.clone_from(&checkpoint.facts().metrics);
        Ok(())
    }

    /// Exports the model as it is, on rank 0, at those of these times at which that is to be done.
    fn export(&mut self, when: &[ExportWhen]) -> Result<(), TrainError> {
        let Some(export) = self.config.train.export.as_ref() else {
            return Ok(());
        };
        let due = when.iter().copied();
        let due: Vec<_> = due.filter(|when| export.when.contains(when)).collect();
        if !due.is_empty() && self.log.is_some() {
            let exported = Exported {
                config: self.config,
                data: &self.facts.data,
                tensors: &self.trainer.tensors(),
            };
            let step = self.trainer.global_step();
            exported.write(export, &self.folder.exports(), &due, step)?;
        }
        Ok(())
    }

    /// Goes on from a checkpoint.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.trainer.restore(checkpoint)?;
        self.control.restore(&checkpoint.facts().steering);
        if let Some(step) = self.control.needed() {
            // Better known before hours of training than after.
            Checkpoint::named(&self.folder.checkpoints(), &step.to_string())?;
        }
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
                // Two or three lines for each dense layer, and none for others: a dozen, as a rule.
                for timed in &products {
                    tracing::info!("matmul: {timed}");
                }
                log.write(&Record::Matmul(MatmulRecord {
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
            log.write(&Record::Start(StartRecord {
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
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let samples_per_second = window.rows / seconds;
        let exposed_comm_ms = mean_ms(window.exposed);
        let input_wait_ms = mean_ms(window.input);
        log.write(&Record::Train(TrainRecord {
            step,
            epoch,
            loss: report.loss,
            rate,
            samples_per_second,
            steps_per_second: f64::from(window.steps) / seconds,
            exposed_comm_ms,
            input_wait_ms,
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
            input_wait_ms,
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
            .map(|(name, &value)| (name_of_test(name), value))
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
            log.write(&Record::Evaluate(record))?;
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
            steering: self.control.seen().clone(),
            ..self.facts.clone()
        };
        let train = &self.config.train;
        let retention = Retention {
            last: train.keep.at_most(),
            best: train.best.as_ref().map(|best| Best {
                metric: name_of_test(&best.name),
                goal: best.goal,
            }),
            needed: self.control.needed(),
        };
        let saved = self
            .trainer
            .save(&self.folder.checkpoints(), facts, &retention)?;
        if let (Some(folder), Some(log)) = (saved, &self.log) {
            log.hooks.checkpoint(&folder);
        }
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

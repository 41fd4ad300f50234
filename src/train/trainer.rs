//! The one training step, for every backend, transport and model.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::board::{Board, Totals};
use super::exact::ExactSums;
use super::exchange::Exchange;
use super::loss_scaling::LossScaling;
use super::not_finite::is_finite;
use super::reducer::{Job, Reducer};
use super::reduction::{Reduction, ReductionOptions};
use super::tables::Table;
use super::{Scales, TrainError, TrainerOptions};
use crate::backend::{Backend, Download, Region, View};
use crate::comm::Span;
use crate::data::Share;
use crate::layers::{Context, Mode};
use crate::models::{MicroBatch, Model, REPORT};
use crate::optim::{Clip, Clipped, Optimizers, Segment, Step, segments};
use crate::params::Layout;

/// How often a step is computed again before it is given up: once is enough where forward and backward
/// give the same again.
const MOST_REPEATS: usize = 4;

/// A replica and everything it takes to step it.
pub struct Trainer<B: Backend, M: Model<B>> {
    pub(super) backend: B,
    pub(super) model: M,
    pub(super) options: TrainerOptions,
    pub(super) layout: Arc<Layout>,
    pub(super) parameters: Region<f32>,
    pub(super) state: B::Buffer<f32>,
    pub(super) statistics: B::Buffer<f32>,
    pub(super) moving: ExactSums<B>,
    pub(super) reduction: Reduction<B>,
    pub(super) optimizers: Optimizers<B>,
    pub(super) tables: Vec<Table<B>>,
    clip: Option<Clip<B>>,
    pub(super) segments: Vec<Segment>,
    exchange: Exchange,
    pub(super) loss_scaling: LossScaling,
    pub(super) inputs: Inputs<B>,
    /// A report for each micro-batch of this rank.
    pub(super) reports: B::Buffer<f64>,
    pub(super) host_reports: Vec<f64>,
    pub(super) board: Board,
    gradient_magnitudes: Vec<u32>,
    state_magnitudes: Vec<u32>,
    pub(super) step: u64,
}

/// Device copies of a micro-batch, where the device cannot read the host's.
pub(super) struct Inputs<B: Backend> {
    pub(super) features: B::Buffer<f32>,
    pub(super) targets: B::Buffer<f32>,
    pub(super) weights: B::Buffer<f32>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Sums over the global batch.
    pub totals: Totals,
    /// The loss that was minimised: the sum of losses over the reduction's denominator.
    pub loss: f64,
    /// Global norm of the gradient before clipping, where clipping asked for it.
    pub gradient_norm: Option<f64>,
    /// How long this rank's compute waited for others: communication that backward did not hide.
    pub exposed: Duration,
    /// Micro-batches this rank computed.
    pub micro_batches: usize,
    /// How often the step was computed again with better scales.
    pub repeats: usize,
    /// What the losses were multiplied by, where they were.
    pub loss_scale: Option<f64>,
    /// Whether that was too much for a gradient, so that the step was not applied.
    pub skipped: bool,
}

/// What the board says of a step.
struct Verdict {
    totals: Totals,
    /// Whether a gradient is not finite and the factor of the loss is to be halved.
    overflowed: bool,
}

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// Allocates the arenas and initialises the parameters, equally on all ranks; collective.
    pub fn new(
        mut backend: B,
        model: M,
        options: TrainerOptions,
        mut reducer: Reducer,
    ) -> Result<Self, TrainError> {
        let layout = Arc::new(model.layout().clone());
        let world = reducer.world();
        let parameters = reducer.allocate_f32("parameters", layout.arena_len(world))?;
        let states: Vec<Range<usize>> = model
            .states()
            .iter()
            .map(|state| state.range.clone())
            .collect();
        let state_len = states.last().map_or(0, |range| range.end);
        let (tensors, state_tensors) = (layout.tensors().len(), states.len());
        let moving = ExactSums::new(&mut backend, states, options.micro_batches, &mut reducer)?;
        let board = Board::new(options.micro_batches, tensors + state_tensors, &mut reducer)?;
        let reduction_options = ReductionOptions {
            mode: options.reduce,
            bucket_bytes: options.bucket_bytes,
            sharded: options.sharded,
            micro_batches: options.micro_batches,
        };
        let mut reduction = Reduction::new(
            backend.clone(),
            Arc::clone(&layout),
            reduction_options,
            reducer,
        )?;
        let segments = segments(&layout, &reduction.owned());
        let optimizers = Optimizers::new(&mut backend, &layout, &segments, &options.optimizers)?;
        let tables = model.structure().tables.iter();
        let tables = tables
            .map(|table| Table::new(&mut backend, table, &layout, &optimizers))
            .collect::<Result<_, _>>()?;
        let clip = match options.clip {
            Some(clip) => Some(clip.build(&mut backend, &layout)?),
            None => None,
        };
        let loss_scaling = LossScaling::new(options.loss_scale, options.micro_batch);
        let exchange = Exchange::new(options.sharded, &layout, reduction.reducer())?;
        let rows = options.micro_batch;
        let inputs = Inputs {
            features: backend.allocate("features", rows * model.input().elements())?,
            targets: backend.allocate("targets", rows * model.target_width())?,
            weights: backend.allocate("weights", rows)?,
        };
        let mut trainer = Self {
            state: backend.allocate("state", state_len)?,
            statistics: backend.allocate("statistics", state_len)?,
            reports: backend.allocate("reports", board.slots() * REPORT)?,
            host_reports: vec![0.0; board.slots() * REPORT],
            gradient_magnitudes: vec![0; tensors],
            state_magnitudes: vec![0; state_tensors],
            backend,
            model,
            options,
            layout,
            parameters,
            moving,
            reduction,
            optimizers,
            tables,
            clip,
            segments,
            exchange,
            loss_scaling,
            inputs,
            board,
            step: 0,
        };
        trainer.initialize();
        Ok(trainer)
    }

    /// Computes this rank's share of a global batch, adds gradients over all ranks, and steps the
    /// parameters with learning rate `rate`; collective.
    ///
    /// A step whose gradients overflowed under a factor of the loss changes nothing but that factor, on all
    /// ranks; it counts as a step of the sample stream, but not of the optimizer.
    ///
    /// On an error before the update nothing has been applied; one in the update itself (a collective of
    /// sharded norms or parameters) leaves the replica of no use. A device may fail at the update after this
    /// returns; the next step or `save` says so.
    pub fn step(&mut self, share: &Share, rate: f64) -> Result<StepReport, TrainError> {
        // What was waited for since the last step was not for this one.
        self.reduction.reducer().take_exposed();
        self.fetch_tables(share.working_sets());
        let mut repeats = 0;
        let Verdict { totals, overflowed } = loop {
            tracing::trace!("step {} begins", self.step + 1);
            self.forward_backward(share)?;
            self.hand_over_board(share)?;
            self.reduction.finish()?;
            self.board.wait(self.reduction.reducer())?;
            self.backend.acquire();
            let verdict = self.read_board(share.total_micro_batches)?;
            if verdict.overflowed {
                break verdict;
            }
            let outgrown = self.reduction.outgrown(&self.gradient_magnitudes)
                | self.moving.scales().outgrown(&self.state_magnitudes);
            if !outgrown {
                break verdict;
            }
            if repeats == MOST_REPEATS {
                return Err(TrainError::Unrepeatable {
                    step: self.step + 1,
                });
            }
            self.adapt();
            repeats += 1;
        };
        let scale = self
            .options
            .loss_reduction
            .gradient_scale(totals.weight, totals.rows);
        let loss_scale = self.loss_scaling.scale().map(|scale| scale.factor());
        let mut gradient_norm = None;
        if overflowed {
            self.loss_scaling.skip();
        } else {
            gradient_norm = self.update(scale / self.loss_scaling.factor(), rate)?;
            self.store_tables(share.working_sets());
            self.move_state(totals.rows as u64);
            self.adapt();
            self.loss_scaling.applied();
        }
        // The device begins with the update while the host does what comes between steps.
        self.backend.release();
        tracing::trace!("update is queued");
        self.step += 1;
        Ok(StepReport {
            totals,
            loss: totals.loss * scale,
            gradient_norm,
            exposed: self.reduction.reducer().take_exposed(),
            micro_batches: share.micro_batches().len(),
            repeats,
            loss_scale,
            skipped: overflowed,
        })
    }

    /// Forward and backward of every micro-batch of this rank; the last one's gradients leave as
    /// they are finished.
    fn forward_backward(&mut self, share: &Share) -> Result<(), TrainError> {
        self.reduction.begin_step(share.total_micro_batches);
        let count = share.micro_batches().len();
        for (slot, rows) in share.micro_batches().enumerate() {
            let weights = self.loss_scaling.weights(rows.rows, rows.weights);
            let batch = MicroBatch {
                features: self.backend.stage(rows.features, &mut self.inputs.features),
                targets: self.backend.stage(rows.targets, &mut self.inputs.targets),
                weights: match weights {
                    Some(weights) => Some(self.backend.stage(weights, &mut self.inputs.weights)),
                    None => None,
                },
            };
            // SAFETY: parameters are written only in `update`, which borrows `self` exclusively.
            let parameters = unsafe { B::region(&self.parameters, 0..self.parameters.len()) };
            let mut cx = Context {
                backend: &mut self.backend,
                mode: Mode::Train,
                rows: rows.rows,
                seed: self.options.seed,
                step: self.step,
                first_sample: rows.first_sample as u64,
                state: B::view(&self.state),
                statistics: B::view_mut(&mut self.statistics),
            };
            let report = slot * REPORT..(slot + 1) * REPORT;
            let report = B::slice_mut(B::view_mut(&mut self.reports), report);
            self.model.forward(&mut cx, parameters, &batch, report);
            self.reduction
                .begin_micro_batch(slot == 0, slot + 1 == count);
            self.model
                .backward(&mut cx, parameters, &batch, &mut self.reduction);
            drop(cx);
            if let Some(tensor) = self.reduction.unfinished() {
                return Err(TrainError::Unfinished {
                    tensor: tensor.to_owned(),
                });
            }
            self.moving
                .add(&mut self.backend, B::view(&self.statistics), slot == 0);
        }
        if count == 0 {
            self.reduction.contribute_nothing();
            self.moving.contribute_nothing(&mut self.backend);
        }
        Ok(())
    }

    /// Sends what is not a gradient behind the last bucket. Here the host waits for the device, the only
    /// time in a step but for norms of clipping, or of LARS and LAMB under ZeRO-1, and learns of what failed there.
    fn hand_over_board(&mut self, share: &Share) -> Result<(), TrainError> {
        let used = 0..share.micro_batches().len() * REPORT;
        let reports = &mut self.host_reports[used.clone()];
        let device = B::slice(B::view(&self.reports), used);
        self.backend.collect([
            Download::F64(device, reports),
            self.reduction.magnitudes(&mut self.gradient_magnitudes),
            self.moving.magnitudes(&mut self.state_magnitudes),
        ])?;
        tracing::trace!("backward is over");
        for (slot, report) in reports.as_chunks().0.iter().enumerate() {
            let report = self.loss_scaling.unscaled(*report);
            self.board.write_report(slot, report);
        }
        let tensors = self.gradient_magnitudes.len();
        self.board.write_magnitudes(0, &self.gradient_magnitudes);
        self.board.write_magnitudes(tensors, &self.state_magnitudes);
        self.moving
            .hand_over(&mut self.backend, self.reduction.reducer());
        self.board.hand_over(self.reduction.reducer());
        Ok(())
    }

    /// Adds the reports, takes the largest magnitudes, and stops everybody where something is not
    /// finite, unless it is a gradient that a smaller factor of the loss would bring back.
    fn read_board(&mut self, micro_batches: usize) -> Result<Verdict, TrainError> {
        let tensors = self.gradient_magnitudes.len();
        let mut totals = Totals::default();
        let mut bad = None;
        for (micro_batch, (rank, report)) in self.board.reports(micro_batches).enumerate() {
            if bad.is_none() && !report[0].is_finite() {
                bad = Some((micro_batch, rank));
            }
            totals.add(report);
        }
        if let Some((micro_batch, rank)) = bad {
            let micro_batch = format!("{micro_batch} of {micro_batches}");
            let tensor = self.first_not_finite(rank);
            return Err(self.not_finite("loss", rank, micro_batch, tensor));
        }
        self.board
            .largest_magnitudes(0, &mut self.gradient_magnitudes);
        self.board
            .largest_magnitudes(tensors, &mut self.state_magnitudes);
        let overflowed = !self.gradient_magnitudes.iter().all(is_finite);
        if overflowed && !self.loss_scaling.can_overflow() {
            return Err(self.gradient_not_finite(micro_batches));
        }
        if !self.state_magnitudes.iter().all(is_finite) {
            return Err(self.statistic_not_finite(micro_batches));
        }
        Ok(Verdict { totals, overflowed })
    }

    /// Clips and steps. `scale` turns the sum of gradients into the gradient.
    fn update(&mut self, scale: f64, rate: f64) -> Result<Option<f64>, TrainError> {
        let all = 0..self.parameters.len();
        // SAFETY: outside collectives the parameters are this rank's own.
        let parameters = unsafe { B::region_mut(&self.parameters, all.clone()) };
        let (gradients, reducer) = self.reduction.sums();
        let mut exchange = self.exchange.with(reducer);
        let clipped = match &mut self.clip {
            Some(clip) => clip.scale(
                &mut self.backend,
                gradients,
                &self.segments,
                scale,
                &mut exchange,
            )?,
            None => Clipped {
                scale,
                limit: f32::INFINITY,
                norm: None,
            },
        };
        self.optimizers.step(Step {
            backend: &mut self.backend,
            t: self.step + 1 - self.loss_scaling.skipped(),
            rate,
            gradient_scale: clipped.scale as f32,
            gradient_limit: clipped.limit,
            parameters,
            gradients,
            segments: &self.segments,
            exchange: &mut exchange,
        })?;
        if self.options.sharded {
            self.gather_parameters()?;
        }
        Ok(clipped.norm)
    }

    /// Under ZeRO-1 every rank has stepped its shard; spread them.
    fn gather_parameters(&mut self) -> Result<(), TrainError> {
        let stepped = self.backend.release();
        self.reduction.reducer().after(stepped);
        let mut last = 0;
        for index in 0..self.reduction.buckets().len() {
            let range = self.reduction.buckets()[index].clone();
            let span = Span {
                region: self.parameters.id(),
                range,
            };
            last = self.reduction.reducer().submit(Job::AllGather(span));
        }
        self.reduction.reducer().wait(last)?;
        self.backend.acquire();
        Ok(())
    }

    /// Moves the non-trainable state towards what the global batch's micro-batches saw.
    fn move_state(&mut self, rows: u64) {
        for (index, state) in self.model.states().iter().enumerate() {
            let (sum, exponent) = self.moving.sum(index);
            let average = B::slice_mut(B::view_mut(&mut self.state), state.range.clone());
            self.backend
                .move_average(average, state.momentum, sum, exponent, rows);
        }
    }

    fn adapt(&mut self) {
        self.reduction.adapt(&self.gradient_magnitudes);
        self.moving.scales().adapt(&self.state_magnitudes);
    }

    /// Fills parameters and state with what their layers ask for.
    fn initialize(&mut self) {
        let mut host = vec![0.0; self.parameters.len()];
        for tensor in self.layout.tensors() {
            let values = &mut host[tensor.range()];
            if tensor.rows.is_none() {
                tensor
                    .init
                    .fill(self.options.seed, &tensor.name, &tensor.shape, values);
            }
        }
        // SAFETY: outside collectives the parameters are this rank's own.
        let parameters = unsafe { B::region_mut(&self.parameters, 0..host.len()) };
        self.backend.upload(&host, parameters);
        for table in &mut self.tables {
            let tensor = &self.layout.tensors()[table.spec.tensor];
            let mut values = vec![0.0; table.shape.iter().product()];
            tensor
                .init
                .fill(self.options.seed, &tensor.name, &table.shape, &mut values);
            let field = (table.record.values(), &values[..]);
            table.upload(&mut self.backend, std::iter::once(field));
        }
        for state in self.model.states() {
            let values = B::slice_mut(B::view_mut(&mut self.state), state.range.clone());
            self.backend.fill(values, state.initial);
        }
    }

    pub(super) fn parameters_view(&self) -> View<'_, B> {
        // SAFETY: parameters are written only through `&mut self`.
        unsafe { B::region(&self.parameters, 0..self.parameters.len()) }
    }

    /// The way to the other ranks.
    pub fn reducer(&mut self) -> &mut Reducer {
        self.reduction.reducer()
    }

    /// What this rank computes on, and the way to the other ranks.
    pub(super) fn device(&mut self) -> (&mut B, &mut Reducer) {
        (&mut self.backend, self.reduction.reducer())
    }

    /// Global step: how many have been taken.
    pub fn global_step(&self) -> u64 {
        self.step
    }

    /// What is trained.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Exponents of the exact sums: gradients, then state.
    pub fn exponents(&mut self) -> (&mut Scales, &mut Scales) {
        (self.reduction.scales(), self.moving.scales())
    }
}

//! The loss and metric of a whole table, in file order, shared out over the ranks.

use std::sync::Arc;

use super::board::{Board, Totals};
use super::judged::{Evaluated, JudgedRows};
use super::{TrainError, Trainer};
use crate::backend::Backend;
use crate::data::Table;
use crate::layers::{Context, Mode};
use crate::models::{Judge, MicroBatch, Model, REPORT};
use crate::params::{Indexed, WorkingSet, append_places, find_touched, partition};

/// A table with what it takes to evaluate it again and again.
pub struct Evaluation {
    table: Arc<Table>,
    board: Board,
    /// The rows of a micro-batch with the places of what they look up.
    looked_up: Vec<f32>,
    indexed: Vec<Indexed>,
    working_sets: Vec<WorkingSet>,
    judged: Option<JudgedRows>,
}

impl Evaluation {
    /// What is evaluated.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// Prepares to evaluate `table`, and each of its rows where it is said how; collective.
    ///
    /// # Errors
    /// Where a rank fails.
    pub fn evaluation(
        &mut self,
        table: Arc<Table>,
        judge: Option<Judge>,
    ) -> Result<Evaluation, TrainError> {
        let micro_batches = table.rows.div_ceil(self.options.micro_batch);
        let board = Board::new(micro_batches, 0, self.reduction.reducer())?;
        let rows = board.slots() * self.options.micro_batch;
        let judged = match judge {
            Some(judge) => Some(JudgedRows::new(judge, rows, self.reduction.reducer())?),
            None => None,
        };
        Ok(Evaluation {
            judged,
            table,
            board,
            looked_up: Vec::new(),
            indexed: (self.tables.iter())
                .map(|table| table.spec.indexed.clone())
                .collect(),
            working_sets: vec![WorkingSet::default(); self.tables.len()],
        })
    }

    /// Runs the model over the table without training; collective. The sums do not depend on the
    /// number of ranks.
    ///
    /// # Errors
    /// Where a rank fails.
    pub fn evaluate(&mut self, evaluation: &mut Evaluation) -> Result<Evaluated, TrainError> {
        let Evaluation {
            table,
            board,
            looked_up,
            indexed,
            working_sets,
            judged,
        } = evaluation;
        let size = self.options.micro_batch;
        let micro_batches = table.rows.div_ceil(size);
        let (world, rank) = (
            self.reduction.reducer().world(),
            self.reduction.reducer().rank(),
        );
        let own = partition(micro_batches, world, rank);
        // Reports wait on the device until there is room for no more.
        let room = self.host_reports.len() / REPORT;
        for (slot, index) in own.clone().enumerate() {
            let rows = index * size..((index + 1) * size).min(table.rows);
            let weights = table.weights.as_ref().map(|weights| &weights[rows.clone()]);
            let mut features = table.features(rows.clone());
            if !self.tables.is_empty() {
                let width = table.shape.elements();
                let tables = (&indexed[..], &mut working_sets[..]);
                self.look_up(features.chunks_exact(width), tables, looked_up);
                features = looked_up;
            }
            let batch = MicroBatch {
                features: self.backend.stage(features, &mut self.inputs.features),
                targets: self
                    .backend
                    .stage(table.targets(rows.clone()), &mut self.inputs.targets),
                weights: match weights {
                    Some(weights) => Some(self.backend.stage(weights, &mut self.inputs.weights)),
                    None => None,
                },
            };
            // SAFETY: parameters are written only by a step, which borrows `self` exclusively.
            let parameters = unsafe { B::region(&self.parameters, 0..self.parameters.len()) };
            let mut cx = Context {
                backend: &mut self.backend,
                mode: Mode::Infer,
                rows: rows.len(),
                seed: self.options.seed,
                step: self.step,
                first_sample: rows.start as u64,
                state: B::view(&self.state),
                statistics: B::view_mut(&mut self.statistics),
            };
            let place = slot % room;
            let report = place * REPORT..(place + 1) * REPORT;
            let report = B::slice_mut(B::view_mut(&mut self.reports), report);
            self.model.forward(&mut cx, parameters, &batch, report);
            drop(cx);
            if let Some(judged) = judged {
                let on = (&mut self.backend, &self.model);
                let targets = table.targets(rows.clone());
                judged.judge(on, rank, slot * size, (rows.len(), targets));
            }
            if place + 1 < room && slot + 1 < own.len() {
                continue;
            }
            let reports = &mut self.host_reports[..(place + 1) * REPORT];
            let device = B::slice(B::view(&self.reports), 0..reports.len());
            self.backend.download(device, reports);
            for (at, report) in reports.as_chunks().0.iter().enumerate() {
                board.write_report(slot - place + at, *report);
            }
        }
        self.backend.synchronize()?;
        board.hand_over(self.reduction.reducer());
        board.wait(self.reduction.reducer())?;
        let mut totals = Totals::default();
        board
            .reports(micro_batches)
            .for_each(|(_, report)| totals.add(report));
        let rows = match judged {
            Some(judged) => {
                let reducer = self.reduction.reducer();
                judged.exchange(reducer, (micro_batches, size), table.rows)?
            }
            None => Vec::new(),
        };
        Ok(Evaluated { totals, rows })
    }

    /// Brings what these samples touch of each table into the arena, and writes them to `out` with their
    /// places there.
    fn look_up<'a>(
        &mut self,
        samples: impl Iterator<Item = &'a [f32]> + Clone,
        (indexed, sets): (&[Indexed], &mut [WorkingSet]),
        out: &mut Vec<f32>,
    ) {
        find_touched(indexed, sets, samples.clone());
        for (table, set) in self.tables.iter_mut().zip(&*sets) {
            // SAFETY: outside collectives the parameters are this rank's own.
            let parameters = unsafe { B::region_mut(&self.parameters, 0..self.parameters.len()) };
            table.fetch(&mut self.backend, set, parameters, None);
        }
        out.clear();
        for sample in samples {
            out.extend_from_slice(sample);
            append_places(out, indexed, sets, sample);
        }
    }
}

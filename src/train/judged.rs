//! What an evaluation keeps of each row, from the rank that computed it to all ranks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::TrainError;
use super::board::Totals;
use super::reducer::{Job, Reducer};
use crate::backend::{Backend, Region, View};
use crate::comm::Span;
use crate::data::{Table, Targets};
use crate::models::{JUDGED, Judge, Judging, Model, REPORT};
use crate::params::partition;

/// What came out of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Sums over all rows.
    pub totals: Totals,
    /// What was kept of each row, in order, where rows were judged.
    pub rows: Vec<[f64; JUDGED]>,
}

impl Evaluated {
    /// The metrics by name: those of `judging`, where rows were judged, else the weighted mean of the
    /// losses, and the accuracy or the mean absolute error over the rows.
    pub fn metrics(&self, table: &Table, judging: Option<Judging>) -> BTreeMap<String, f64> {
        if let Some(judging) = judging {
            return judging.metrics(&self.rows, &table.targets, table.weights.as_deref());
        }
        let metric = match table.target_kind {
            Targets::Classes(_) => "accuracy",
            Targets::Numbers(_) => "mean_absolute_error",
        };
        let Totals {
            loss,
            weight,
            metric: sum,
            rows,
        } = self.totals;
        BTreeMap::from([
            ("loss".to_owned(), loss / weight),
            (metric.to_owned(), sum / rows),
        ])
    }
}

/// What came out of some micro-batches, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reported {
    /// The report of each.
    pub reports: Vec<[f64; REPORT]>,
    /// What was kept of each row, where rows were judged.
    pub judged: Vec<[f64; JUDGED]>,
}

/// Judges the rows of micro-batches.
pub(super) struct Judges {
    judge: Judge,
    outputs: Vec<f32>,
}

impl Judges {
    pub(super) fn new(judge: Judge) -> Self {
        Self {
            judge,
            outputs: Vec::new(),
        }
    }

    /// What is kept of rows with these logits and targets.
    pub(super) fn rows<'a, B: Backend>(
        &'a mut self,
        backend: &mut B,
        logits: View<'_, B>,
        targets: &'a [f32],
    ) -> impl Iterator<Item = [f64; JUDGED]> {
        self.outputs.resize(B::len(logits), 0.0);
        backend.download(logits, &mut self.outputs);
        let outputs = self.outputs.chunks_exact(self.judge.outputs());
        let width = targets.len() / outputs.len();
        let rows = outputs.zip(targets.chunks_exact(width));
        rows.map(|(outputs, targets)| self.judge.row(outputs, targets))
    }
}

/// The rows of all ranks: as many cells for each, in the order of the ranks.
pub(super) struct JudgedRows {
    pub(super) judges: Judges,
    table: Region<i64>,
    /// Cells of a rank.
    len: usize,
}

impl JudgedRows {
    /// For ranks that have up to `rows` rows each; collective.
    pub(super) fn new(
        judge: Judge,
        rows: usize,
        reducer: &mut Reducer,
    ) -> Result<Self, TrainError> {
        let len = rows * JUDGED;
        Ok(Self {
            judges: Judges::new(judge),
            table: reducer.allocate_host_i64("judged rows", len * reducer.world())?,
            len,
        })
    }

    /// Judges the rows of a micro-batch, the first of which is number `first` of this rank.
    pub(super) fn judge<B: Backend, M: Model<B>>(
        &mut self,
        (backend, model): (&mut B, &M),
        rank: usize,
        first: usize,
        (rows, targets): (usize, &[f32]),
    ) {
        let logits = model.logits(rows);
        let logits = logits.expect("a model whose rows are judged keeps its logits");
        let start = rank * self.len + first * JUDGED;
        // SAFETY: this rank's cells are its own outside the collective.
        let cells = unsafe { self.table.slice_mut(start..start + rows * JUDGED) };
        let judged = self.judges.rows(backend, logits, targets);
        for (cells, judged) in cells.as_chunks_mut().0.iter_mut().zip(judged) {
            *cells = judged.map(|number| number.to_bits() as i64);
        }
    }

    /// Gives this rank's rows to all and takes theirs: those of `micro_batches` micro-batches of `size` rows,
    /// of `rows` in all; collective.
    pub(super) fn exchange(
        &mut self,
        reducer: &mut Reducer,
        (micro_batches, size): (usize, usize),
        rows: usize,
    ) -> Result<Vec<[f64; JUDGED]>, TrainError> {
        let world = reducer.world();
        let ticket = reducer.submit(Job::AllGather(Span {
            region: self.table.id(),
            range: 0..self.table.len(),
        }));
        reducer.wait(ticket)?;
        let mut all = Vec::with_capacity(rows);
        for rank in 0..world {
            let Range { start, end } = partition(micro_batches, world, rank);
            let count = (end * size).min(rows) - (start * size).min(rows);
            let first = rank * self.len;
            // SAFETY: after the collective nobody writes before all have called the next one.
            let cells = unsafe { self.table.slice(first..first + count * JUDGED) };
            let judged = cells.as_chunks::<JUDGED>().0.iter();
            all.extend(judged.map(|cells| cells.map(|cell| f64::from_bits(cell as u64))));
        }
        Ok(all)
    }
}

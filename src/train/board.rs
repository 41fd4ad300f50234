//! What ranks tell each other once per step beside gradients.
//!
//! Every rank has a row: the reports of its micro-batches (doubles, as bits), the largest magnitude of
//! each tensor, and what time it is. One all-gather later every rank reads the same table, adds the reports
//! in the order of the global batch, whoever computed them, and takes the same decisions.

use std::ops::Range;
use std::time::Duration;

use super::TrainError;
use super::reducer::{Job, Reducer};
use crate::backend::Region;
use crate::comm::Span;
use crate::models::REPORT;
use crate::params::partition;

/// Cells of a row for the time, its last.
const CLOCK: usize = 1;

/// The table.
pub(super) struct Board {
    table: Region<i64>,
    row: usize,
    /// Micro-batches a rank can have.
    slots: usize,
    world: usize,
    rank: usize,
    ticket: u64,
}

/// Sums over a global batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals {
    /// Weighted sum of losses.
    pub loss: f64,
    /// Sum of weights.
    pub weight: f64,
    /// Sum of the metric: correct rows, or absolute errors.
    pub metric: f64,
    /// Number of rows.
    pub rows: f64,
}

impl Totals {
    /// Adds one micro-batch.
    pub fn add(&mut self, [loss, weight, metric, rows]: [f64; REPORT]) {
        self.loss += loss;
        self.weight += weight;
        self.metric += metric;
        self.rows += rows;
    }
}

impl Board {
    /// A table for global batches of up to `micro_batches` and `magnitudes` tensors; collective.
    pub(super) fn new(
        micro_batches: usize,
        magnitudes: usize,
        reducer: &mut Reducer,
    ) -> Result<Self, TrainError> {
        let world = reducer.world();
        let slots = micro_batches.div_ceil(world);
        let row = slots * REPORT + magnitudes + CLOCK;
        let table = reducer.allocate_host_i64("reports of ranks", row * world)?;
        Ok(Self {
            table,
            row,
            slots,
            world,
            rank: reducer.rank(),
            ticket: 0,
        })
    }

    /// Number of ranks.
    pub(super) fn world(&self) -> usize {
        self.world
    }

    /// Micro-batches a rank can have.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Writes the report of this rank's micro-batch number `slot`.
    pub(super) fn write_report(&mut self, slot: usize, report: [f64; REPORT]) {
        assert!(
            slot < self.slots,
            "more micro-batches than the board was made for"
        );
        let start = self.rank * self.row + slot * REPORT;
        // SAFETY: this rank's row is its own outside the collective.
        let cells = unsafe { self.table.slice_mut(start..start + REPORT) };
        for (cell, value) in cells.iter_mut().zip(report) {
            *cell = value.to_bits() as i64;
        }
    }

    /// Writes the magnitudes of this rank's tensors from number `first` on.
    pub(super) fn write_magnitudes(&mut self, first: usize, magnitudes: &[u32]) {
        let start = self.rank * self.row + self.slots * REPORT + first;
        // SAFETY: this rank's row is its own outside the collective.
        let cells = unsafe { self.table.slice_mut(start..start + magnitudes.len()) };
        for (cell, &magnitude) in cells.iter_mut().zip(magnitudes) {
            *cell = i64::from(magnitude);
        }
    }

    /// Writes how long this rank has been training.
    pub(super) fn write_clock(&mut self, clock: Duration) {
        let end = (self.rank + 1) * self.row;
        // SAFETY: this rank's row is its own outside the collective.
        let cells = unsafe { self.table.slice_mut(end - CLOCK..end) };
        cells[0] = clock.as_millis() as i64;
    }

    /// How long rank 0 had been training: the one clock that all ranks go by.
    pub(super) fn clock(&self) -> Duration {
        Duration::from_millis(self.read(self.row - CLOCK..self.row)[0] as u64)
    }

    /// Hands the row over.
    pub(super) fn hand_over(&mut self, reducer: &mut Reducer) {
        let span = Span {
            region: self.table.id(),
            range: 0..self.table.len(),
        };
        self.ticket = reducer.submit(Job::AllGather(span));
    }

    /// Waits for everybody's row.
    pub(super) fn wait(&mut self, reducer: &mut Reducer) -> Result<(), TrainError> {
        Ok(reducer.wait(self.ticket)?)
    }

    /// The reports of a global batch of `micro_batches`, in order, with the rank they come from.
    pub(super) fn reports(
        &self,
        micro_batches: usize,
    ) -> impl Iterator<Item = (usize, [f64; REPORT])> {
        (0..self.world).flat_map(move |rank| {
            let count = partition(micro_batches, self.world, rank).len();
            (0..count).map(move |slot| {
                let start = rank * self.row + slot * REPORT;
                let cells = self.read(start..start + REPORT);
                (
                    rank,
                    std::array::from_fn(|i| f64::from_bits(cells[i] as u64)),
                )
            })
        })
    }

    /// Number `index` of the magnitudes of `rank`.
    pub(super) fn magnitude(&self, rank: usize, index: usize) -> u32 {
        let cell = rank * self.row + self.slots * REPORT + index;
        self.read(cell..cell + 1)[0] as u32
    }

    /// Largest magnitudes over all ranks, for the tensors from number `first` on.
    pub(super) fn largest_magnitudes(&self, first: usize, out: &mut [u32]) {
        for (index, out) in out.iter_mut().enumerate() {
            let all = (0..self.world).map(|rank| self.magnitude(rank, first + index));
            *out = all.max().unwrap_or(0);
        }
    }

    fn read(&self, range: Range<usize>) -> &[i64] {
        // SAFETY: between `wait` and the next `write_*` nobody writes the table; both take `&mut`.
        unsafe { self.table.slice(range) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Options;
    use crate::train::{connect_threads, run_threads};

    #[test]
    fn all_ranks_go_by_the_clock_of_rank_0() {
        let connects = connect_threads(3, &Options::default()).unwrap();
        let clocks = run_threads(connects, |mut reducer| -> Result<_, TrainError> {
            let mut board = Board::new(2, 1, &mut reducer)?;
            board.write_clock(Duration::from_millis(7 + 100 * reducer.rank() as u64));
            board.write_report(0, [f64::MAX; REPORT]);
            board.write_magnitudes(0, &[u32::MAX]);
            board.hand_over(&mut reducer);
            board.wait(&mut reducer)?;
            Ok(board.clock())
        });
        assert_eq!(clocks.unwrap(), [Duration::from_millis(7); 3]);
    }
}

//! From a table to the micro-batches of each step.
//!
//! Which rows a step trains on is a function of the seed and the global step alone. Ten rows in
//! global batches of four are three steps an epoch: places 0..4, 4..8, 8..10 of that epoch's order.
//! A global batch is cut into micro-batches of consecutive places, and those are shared out over the
//! ranks by [`partition`]; so another number of ranks computes the same micro-batches, and a run can
//! go on at any step with any number of them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::stream::Remainder;
use super::{Augmentation, Table};
use crate::params::{Indexed, WorkingSet, append_places, find_touched, partition};
use crate::random::Stream;

/// Shares that wait for the trainer, besides the one it works on: as many as fit in some memory. Where ranks
/// have all processors, a reading thread may get one late, and a share may last a fifth of a millisecond.
const AHEAD_BYTES: usize = 4 << 20;
const LEAST_AHEAD: usize = 2;
const MOST_AHEAD: usize = 32;

/// Which rows every step trains on, and what becomes of them there.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    /// Rows of the table, at least 1.
    pub rows: usize,
    /// Rows of a step over all ranks, at least 1.
    pub global_batch: usize,
    /// Rows that go through the model together, at least 1.
    pub micro_batch: usize,
    /// Key of the order.
    pub seed: u64,
    /// Whether each epoch has its own random order, instead of the table's.
    pub shuffle: bool,
    /// Whether the last step of an epoch has what rows are left, or there is none that is not full. Rows for
    /// one that is are needed then.
    pub remainder: Remainder,
    /// How rows are varied, which are images.
    pub augmentation: Option<Augmentation>,
    /// The model's tables of which a step is told the rows that it touches: their places among these stand
    /// behind the features of each row.
    pub tables: Vec<Indexed>,
}

/// One row after another, in random order.
impl Default for Sampler {
    fn default() -> Self {
        Self {
            rows: 1,
            global_batch: 1,
            micro_batch: 1,
            seed: 0,
            shuffle: true,
            remainder: Remainder::Keep,
            augmentation: None,
            tables: Vec::new(),
        }
    }
}

impl Sampler {
    /// Steps of an epoch, in which every row comes at most once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.remainder
            .batches(self.rows as u64, self.global_batch as u64)
    }

    /// Places of `step` in its epoch's order.
    fn places(&self, step: u64) -> Range<usize> {
        let batch = (step % self.steps_per_epoch()) as usize;
        let start = batch * self.global_batch;
        start..(start + self.global_batch).min(self.rows)
    }

    /// Writes the order of `epoch` to `order`: row numbers by place (Fisher and Yates' shuffle).
    fn order(&self, epoch: u64, order: &mut Vec<u32>) {
        order.clear();
        order.extend(0..self.rows as u32);
        if self.shuffle {
            let mut stream = Stream::new(self.seed, format_args!("order of epoch {epoch}"));
            for last in (1..self.rows).rev() {
                order.swap(last, stream.below(last as u32 + 1) as usize);
            }
        }
    }
}

/// What one rank computes of one step.
#[derive(Debug, Clone)]
pub struct Share {
    /// The global step.
    pub step: u64,
    /// Micro-batches of the whole global batch.
    pub total_micro_batches: usize,
    /// Rows of the whole global batch.
    pub total_rows: usize,
    micro_batch: usize,
    /// Places of this rank's rows in the global batch.
    places: Range<usize>,
    features: Vec<f32>,
    targets: Vec<f32>,
    weights: Option<Vec<f32>>,
    width: usize,
    target_width: usize,
    /// Of each of the sampler's tables, the rows that the whole global batch touches.
    working_sets: Vec<WorkingSet>,
}

/// The rows of one micro-batch, on the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rows<'a> {
    /// How many.
    pub rows: usize,
    /// Place of the first in the global batch.
    pub first_sample: usize,
    /// `[rows, features]`
    pub features: &'a [f32],
    /// `[rows, target width]`
    pub targets: &'a [f32],
    /// `[rows]`
    pub weights: Option<&'a [f32]>,
}

impl Share {
    fn empty(table: &Table, sampler: &Sampler) -> Self {
        let appended: usize = sampler.tables.iter().map(Indexed::len).sum();
        Self {
            step: 0,
            total_micro_batches: 0,
            total_rows: 0,
            micro_batch: sampler.micro_batch,
            places: 0..0,
            features: Vec::new(),
            targets: Vec::new(),
            weights: table.weights.as_ref().map(|_| Vec::new()),
            width: table.shape.elements() + appended,
            target_width: table.target_kind.width(),
            working_sets: vec![WorkingSet::default(); sampler.tables.len()],
        }
    }

    /// The share of `rank` of `world` in `step`, read from `table` in the order given.
    fn fill(
        &mut self,
        table: &Table,
        sampler: &Sampler,
        order: &[u32],
        step: u64,
        (rank, world): (usize, usize),
    ) {
        let batch = sampler.places(step);
        let epoch = step / sampler.steps_per_epoch();
        self.step = step;
        self.total_rows = batch.len();
        self.total_micro_batches = batch.len().div_ceil(self.micro_batch);
        let own = partition(self.total_micro_batches, world, rank);
        let end = |micro_batch: usize| (micro_batch * self.micro_batch).min(batch.len());
        self.places = end(own.start)..end(own.end);
        self.features.clear();
        self.targets.clear();
        self.weights.iter_mut().for_each(Vec::clear);
        let sample = |place| {
            let row = order[place] as usize;
            table.features(row..row + 1)
        };
        let samples = batch.clone().map(sample);
        find_touched(&sampler.tables, &mut self.working_sets, samples);
        for place in self.places.clone() {
            let row = order[batch.start + place] as usize;
            let sample = sample(batch.start + place);
            match &sampler.augmentation {
                None => self.features.extend_from_slice(sample),
                Some(augmentation) => {
                    augmentation.push(sample, sampler.seed, epoch, row, &mut self.features);
                }
            }
            let sets = &self.working_sets;
            append_places(&mut self.features, &sampler.tables, sets, sample);
            self.targets.extend_from_slice(table.targets(row..row + 1));
            if let (Some(weights), Some(all)) = (&mut self.weights, &table.weights) {
                weights.push(all[row]);
            }
        }
    }

    /// Of each of the sampler's tables, the rows that the whole global batch touches.
    pub fn working_sets(&self) -> &[WorkingSet] {
        &self.working_sets
    }

    /// This rank's micro-batches, in order.
    pub fn micro_batches(&self) -> impl ExactSizeIterator<Item = Rows<'_>> {
        let count = self.places.len().div_ceil(self.micro_batch);
        (0..count).map(|index| {
            let start = index * self.micro_batch;
            let rows = start..(start + self.micro_batch).min(self.places.len());
            let part = |width: usize| rows.start * width..rows.end * width;
            Rows {
                rows: rows.len(),
                first_sample: self.places.start + start,
                features: &self.features[part(self.width)],
                targets: &self.targets[part(self.target_width)],
                weights: self.weights.as_ref().map(|weights| &weights[rows.clone()]),
            }
        })
    }
}

/// Reads shares on a thread of its own, ahead of the trainer, into buffers that are used again.
#[derive(Debug)]
pub struct Prefetch {
    shares: Receiver<Share>,
    used: SyncSender<Share>,
    waited: Duration,
}

impl Prefetch {
    /// Reads the shares of rank `rank` of `world` for `steps` of the table.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        table: Arc<Table>,
        sampler: Sampler,
        (rank, world): (usize, usize),
        steps: Range<u64>,
    ) -> std::io::Result<Self> {
        let share = Share::empty(&table, &sampler);
        let numbers = share.width + share.target_width + 1;
        let sets: usize = sampler.tables.iter().map(|table| table.capacity).sum();
        let numbers = sampler.global_batch.div_ceil(world) * numbers + sets;
        let bytes = numbers * size_of::<f32>();
        let ahead = (AHEAD_BYTES / bytes).clamp(LEAST_AHEAD, MOST_AHEAD);
        let (filled, shares) = sync_channel(ahead);
        let (used, empty) = sync_channel(ahead + 1);
        for _ in 0..ahead + 1 {
            // The receiver is right here.
            let _ = used.send(share.clone());
        }
        thread::Builder::new()
            .name(format!("rank-{rank}-data"))
            .spawn(move || {
                read(&table, &sampler, (rank, world), steps, &empty, &filled);
            })?;
        Ok(Self {
            shares,
            used,
            waited: Duration::ZERO,
        })
    }

    /// The next step's share; `None` after the last.
    pub fn next_share(&mut self) -> Option<Share> {
        let start = Instant::now();
        let share = self.shares.recv().ok();
        self.waited += start.elapsed();
        share
    }

    /// Gives a share's buffers back.
    pub fn recycle(&self, share: Share) {
        // After the last step nobody wants it any more.
        let _ = self.used.send(share);
    }

    /// How long the trainer has waited for data since the last call of this.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

/// The thread: ends when all is read or nobody listens.
fn read(
    table: &Table,
    sampler: &Sampler,
    rank: (usize, usize),
    steps: Range<u64>,
    empty: &Receiver<Share>,
    filled: &SyncSender<Share>,
) {
    let mut order = Vec::new();
    let mut ordered = None;
    for step in steps {
        let epoch = step / sampler.steps_per_epoch();
        if ordered != Some(epoch) {
            sampler.order(epoch, &mut order);
            ordered = Some(epoch);
        }
        let Ok(mut share) = empty.recv() else { return };
        share.fill(table, sampler, &order, step, rank);
        if filled.send(share).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Augment, Targets};

    fn table(rows: usize) -> Arc<Table> {
        let features = (0..rows * 3).map(|i| i as f32).collect();
        let targets = (0..rows).map(|i| i as f32).collect();
        Arc::new(Table {
            features,
            targets,
            weights: Some((0..rows).map(|i| i as f32 * 0.5).collect()),
            ..Table::empty([3].into(), Targets::Numbers(1), rows)
        })
    }

    fn sampler(rows: usize, global_batch: usize, micro_batch: usize) -> Sampler {
        Sampler {
            rows,
            global_batch,
            micro_batch,
            seed: 9,
            shuffle: true,
            ..Sampler::default()
        }
    }

    /// (first sample, rows) and targets of each micro-batch of each step.
    fn stream(
        sampler: &Sampler,
        rank: (usize, usize),
        steps: Range<u64>,
    ) -> Vec<Vec<(usize, Vec<f32>)>> {
        let mut prefetch =
            Prefetch::start(table(sampler.rows), sampler.clone(), rank, steps).unwrap();
        let mut all = Vec::new();
        while let Some(share) = prefetch.next_share() {
            let rows = |rows: Rows<'_>| {
                assert_eq!(rows.features.len(), rows.rows * 3);
                assert_eq!(rows.features[0], rows.targets[0] * 3.0);
                assert_eq!(rows.weights.unwrap()[0], rows.targets[0] * 0.5);
                (rows.first_sample, rows.targets.to_vec())
            };
            all.push(share.micro_batches().map(rows).collect());
            prefetch.recycle(share);
        }
        all
    }

    #[test]
    fn the_ranks_together_read_the_global_batch_in_order() {
        for (rows, batch, micro) in [(10, 4, 1), (10, 4, 3), (7, 7, 2), (5, 64, 8), (100, 30, 7)] {
            let sampler = sampler(rows, batch, micro);
            let alone = stream(&sampler, (0, 1), 0..6);
            for world in 2..7 {
                let ranks: Vec<_> = (0..world)
                    .map(|rank| stream(&sampler, (rank, world), 0..6))
                    .collect();
                for step in 0..6 {
                    let together: Vec<_> =
                        ranks.iter().flat_map(|rank| rank[step].clone()).collect();
                    assert_eq!(together, alone[step], "{world} ranks, step {step}");
                }
            }
        }
    }

    #[test]
    fn an_epoch_has_every_row_once_and_its_own_order() {
        let sampler = sampler(10, 4, 2);
        let stream = stream(&sampler, (0, 1), 0..6);
        let epoch = |steps: Range<usize>| -> Vec<f32> {
            stream[steps]
                .iter()
                .flatten()
                .flat_map(|(_, targets)| targets.clone())
                .collect()
        };
        let (first, second) = (epoch(0..3), epoch(3..6));
        assert_ne!(first, second);
        for mut order in [first, second] {
            order.sort_by(f32::total_cmp);
            assert_eq!(order, (0..10).map(|i| i as f32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_that_is_not_full_can_be_left_out() {
        let mut sampler = sampler(10, 4, 2);
        let whole = stream(&sampler, (0, 1), 0..6);
        sampler.remainder = Remainder::Drop;
        assert_eq!(sampler.steps_per_epoch(), 2);
        // Steps 2 and 5 had the two rows that were left.
        let full = [&whole[0..2], &whole[3..5]].concat();
        assert_eq!(stream(&sampler, (0, 1), 0..4), full);
    }

    #[test]
    fn images_are_varied_alike_on_any_number_of_ranks_and_otherwise_in_each_epoch() {
        let crop = Augment {
            flip: None,
            crop: 5,
        };
        let sampler = Sampler {
            augmentation: Augmentation::new(crop, &[1, 3, 1].into(), None),
            ..sampler(10, 5, 2)
        };
        let features = |rank, world, steps| {
            let mut shares =
                Prefetch::start(table(10), sampler.clone(), (rank, world), steps).unwrap();
            let mut rows = Vec::new();
            while let Some(share) = shares.next_share() {
                rows.extend(share.micro_batches().flat_map(|rows| {
                    let images = rows.features.chunks(3).map(<[f32]>::to_vec);
                    let keyed = rows.targets.iter().map(|&row| row as u32).zip(images);
                    keyed.collect::<Vec<_>>()
                }));
                shares.recycle(share);
            }
            rows.sort_by_key(|(row, _)| *row);
            rows
        };
        let (first, second) = (features(0, 1, 0..2), features(0, 1, 2..4));
        assert_eq!(first.len(), 10);
        assert_ne!(first, second);
        let mut shared = [features(0, 2, 2..4), features(1, 2, 2..4)].concat();
        shared.sort_by_key(|(row, _)| *row);
        assert_eq!(shared, second);
    }

    #[test]
    fn a_stream_begun_later_is_the_same_stream() {
        let sampler = sampler(23, 5, 2);
        let whole = stream(&sampler, (1, 3), 0..20);
        for start in [1, 4, 5, 13] {
            assert_eq!(stream(&sampler, (1, 3), start..20), whole[start as usize..]);
        }
    }
}

//! The rows of a large table that a step touches, as a small table of their own.
//!
//! A table of ten million rows does not go through an arena: a step on rows 7, 7, 3 and 9,000,000 of it
//! has a working set of three, `[3, 7, 9000000]`. Its rows are fetched into the arena, where they are a
//! tensor like any other, backward and all ranks sum gradients of three rows, the optimizer steps three
//! rows, and these are stored. What reads the table is given places in the working set, 1, 1, 0 and 2, behind
//! the numbers of each sample. Every rank knows the whole global batch, so all have the same working set without
//! a word about it, and nothing of this depends on their number. Time and traffic follow the batch.

use std::ops::Range;

/// Where the numbers of a sample stand that are rows of a table, and how many a step touches at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexed {
    /// Places in a sample; a negative number there is no row.
    pub slots: Vec<Range<usize>>,
    /// Rows of the working set.
    pub capacity: usize,
}

/// The rows of one table that a step touches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkingSet {
    rows: Vec<f32>,
    len: usize,
}

impl Indexed {
    /// Numbers that are added to a sample.
    pub fn len(&self) -> usize {
        self.slots.iter().map(Range::len).sum()
    }

    /// Whether nothing is looked up.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl WorkingSet {
    /// Forgets all rows.
    fn clear(&mut self) {
        self.rows.clear();
        self.len = 0;
    }

    /// Adds the rows that `sample` touches.
    fn add(&mut self, indexed: &Indexed, sample: &[f32]) {
        for slots in &indexed.slots {
            let rows = sample[slots.clone()].iter();
            self.rows.extend(rows.filter(|&&row| row >= 0.0));
        }
    }

    /// Sorts the rows, each once, and fills up to the capacity with one that is there already: what becomes
    /// of those places is not stored.
    ///
    /// # Panics
    /// If there are more than the capacity.
    fn close(&mut self, indexed: &Indexed) {
        self.rows.sort_unstable_by(f32::total_cmp);
        self.rows.dedup();
        self.len = self.rows.len();
        assert!(
            self.len <= indexed.capacity,
            "a step touches {} rows, but there is room for {}",
            self.len,
            indexed.capacity
        );
        let fill = self.rows.last().copied().unwrap_or(0.0);
        self.rows.resize(indexed.capacity, fill);
    }

    /// The places in this set of the rows that `sample` touches, a negative number for none.
    fn places(&self, indexed: &Indexed, sample: &[f32]) -> impl Iterator<Item = f32> {
        let rows = self.touched();
        let slots = indexed
            .slots
            .iter()
            .flat_map(|slots| &sample[slots.clone()]);
        slots.map(|slot| match *slot >= 0.0 {
            true => rows.partition_point(|row| row < slot) as f32,
            false => *slot,
        })
    }

    /// The rows that are touched, rising.
    pub fn touched(&self) -> &[f32] {
        &self.rows[..self.len]
    }

    /// As many rows as the capacity: those that are touched, and the last of them again and again.
    pub fn filled(&self) -> &[f32] {
        &self.rows
    }
}

/// Fills the set of each table with what `samples` touch.
pub fn find_touched<'a>(
    tables: &[Indexed],
    sets: &mut [WorkingSet],
    samples: impl Iterator<Item = &'a [f32]> + Clone,
) {
    for (indexed, set) in tables.iter().zip(sets) {
        set.clear();
        samples.clone().for_each(|sample| set.add(indexed, sample));
        set.close(indexed);
    }
}

/// Appends the places of what `sample` touches in the set of each table.
pub fn append_places(out: &mut Vec<f32>, tables: &[Indexed], sets: &[WorkingSet], sample: &[f32]) {
    for (indexed, set) in tables.iter().zip(sets) {
        out.extend(set.places(indexed, sample));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_told_places_in_the_rising_rows_that_all_of_them_touch() {
        let indexed = Indexed {
            slots: vec![1..2, 3..5],
            capacity: 8,
        };
        let samples = [
            [0.5, 7.0, 9.0, 3.0, -1.0],
            [0.25, 9_000_000.0, 9.0, 7.0, 3.0],
        ];
        let mut set = WorkingSet::default();
        for _ in 0..2 {
            set.clear();
            samples.iter().for_each(|sample| set.add(&indexed, sample));
            set.close(&indexed);
        }
        assert_eq!(set.touched(), [3.0, 7.0, 9_000_000.0]);
        assert_eq!(set.filled()[3..], [9_000_000.0; 5]);
        let places = |sample: &[f32]| set.places(&indexed, sample).collect::<Vec<_>>();
        assert_eq!(places(&samples[0]), [1.0, 0.0, -1.0]);
        assert_eq!(places(&samples[1]), [2.0, 1.0, 0.0]);
    }

    #[test]
    fn a_step_that_touches_nothing_has_an_empty_set() {
        let indexed = Indexed {
            slots: vec![0..1, 1..2],
            capacity: 2,
        };
        let mut set = WorkingSet::default();
        set.add(&indexed, &[-1.0, -1.0]);
        set.close(&indexed);
        assert_eq!((set.touched(), set.filled()), (&[][..], &[0.0, 0.0][..]));
    }
}

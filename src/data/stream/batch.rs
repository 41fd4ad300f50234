//! Several elements as one.

use std::iter;
use std::sync::Arc;

use super::{Boxed, Dataset, Size, Stage};
use crate::data::DataError;

/// What becomes of a last batch that is not full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remainder {
    /// It is as short as it is.
    #[default]
    Keep,
    /// It is left out.
    Drop,
}

impl Remainder {
    /// Batches of at most `size` that `elements` are.
    pub(in crate::data) fn batches(self, elements: u64, size: u64) -> u64 {
        match self {
            Self::Keep => elements.div_ceil(size),
            Self::Drop => elements / size,
        }
    }
}

/// How lists of different lengths become equally long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Padding<T> {
    /// What is put behind the shorter ones.
    pub value: T,
    /// How long all are to be, where that is not the length of the longest in a batch.
    pub length: Option<usize>,
}

impl<T: Send + 'static> Dataset<T> {
    /// Lists of `size` elements each.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn batch(self, size: usize, remainder: Remainder) -> Dataset<Vec<T>> {
        assert!(size > 0, "a batch has at least one element");
        Dataset::new(Batch {
            from: self,
            size,
            remainder,
        })
    }
}

impl<T: Clone + Send + Sync + 'static> Dataset<Vec<T>> {
    /// Lists of `size` lists each, which are made equally long. One that is longer than
    /// `padding.length` is an error.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn padded_batch(
        self,
        size: usize,
        remainder: Remainder,
        padding: Padding<T>,
    ) -> Dataset<Vec<Vec<T>>> {
        let padding = Arc::new(padding);
        self.batch(size, remainder)
            .try_map(move |batch| pad(batch, &padding))
    }
}

fn pad<T: Clone>(mut batch: Vec<Vec<T>>, padding: &Padding<T>) -> Result<Vec<Vec<T>>, DataError> {
    let longest = batch.iter().map(Vec::len).max().unwrap_or(0);
    let length = padding.length.unwrap_or(longest);
    if longest > length {
        return Err(DataError::Element {
            problem: format!(
                "a list of {longest} is longer than the {length} that it is to be padded to; cut it \
                 before, or leave the length open"
            ),
        });
    }
    for list in &mut batch {
        list.resize(length, padding.value.clone());
    }
    Ok(batch)
}

struct Batch<T> {
    from: Dataset<T>,
    size: usize,
    remainder: Remainder,
}

impl<T: Send + 'static> Stage<Vec<T>> for Batch<T> {
    fn size(&self) -> Size {
        let count = |elements| self.remainder.batches(elements, self.size as u64);
        self.from.size().map(count)
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<Vec<T>> {
        let (size, remainder) = (self.size, self.remainder);
        let first = start.saturating_mul(size as u64);
        let mut elements = self.from.stage.open(epoch, first);
        Box::new(iter::from_fn(move || {
            // All of them, an error among them or not: the next batch begins where it always does.
            let batch: Vec<Result<T, _>> = elements.by_ref().take(size).collect();
            let is_short = batch.len() < size;
            if batch.is_empty() || (is_short && remainder == Remainder::Drop) {
                return None;
            }
            Some(batch.into_iter().collect())
        }))
    }
}

//! Rows of a table by index, and what becomes of columns that are categories.

use std::ops::Range;

use super::{Accumulate, Memory, View, ViewMut};

/// Rows of a table by index.
///
/// Indices come as floats, which hold whole numbers exactly up to 2^24. A negative one stands for no
/// row: it reads zeros and adds nothing. One behind the table's end reads or writes the last row (data is
/// checked before it gets here).
pub trait Lookup: Memory {
    /// `y = ` or `y += ` the combined rows of `table` whose indices stand in the samples `x`. Of `y` only
    /// the bag's own columns are touched.
    fn gather_bags(
        &mut self,
        bag: Bag,
        table: View<'_, Self>,
        x: View<'_, Self>,
        y: ViewMut<'_, Self>,
        write: Accumulate,
    );

    /// `gradient = ` or `gradient += ` for each row of the table the sum of what came from it, in the
    /// order of the indices.
    fn scatter_bags(
        &mut self,
        bag: Bag,
        x: View<'_, Self>,
        dy: View<'_, Self>,
        gradient: ViewMut<'_, Self>,
        write: Accumulate,
    );

    /// `rows[i] = field of table[indices[i]]`.
    fn take_rows(
        &mut self,
        field: Field,
        indices: View<'_, Self>,
        table: View<'_, Self>,
        rows: ViewMut<'_, Self>,
    );

    /// `field of table[indices[i]] = rows[i]`. No index is there twice.
    fn put_rows(
        &mut self,
        field: Field,
        indices: View<'_, Self>,
        rows: View<'_, Self>,
        table: ViewMut<'_, Self>,
    );

    /// Makes columns of `y`, `[samples, outputs]`, of those of `x`, `[samples, inputs]`. What each is made
    /// of stands in `columns`, `[outputs, COLUMN]` ([`Column::numbers`]); one made of nothing is left
    /// alone.
    fn expand(
        &mut self,
        inputs: usize,
        columns: View<'_, Self>,
        x: View<'_, Self>,
        y: ViewMut<'_, Self>,
    );
}

/// The same part of each record of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Elements of a record.
    pub record: usize,
    /// Where the field starts in it.
    pub offset: usize,
    /// Elements of the field.
    pub width: usize,
}

impl Field {
    /// Its elements in a record.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.width
    }

    /// The number of records in a table of `table` elements, `rows` elements of which are asked for by
    /// `indices` of them.
    ///
    /// # Panics
    /// If the field reaches beyond its record, or there is not a row an index.
    pub(super) fn records(&self, table: usize, indices: usize, rows: usize) -> usize {
        assert!(
            self.range().end <= self.record,
            "a field within its record: {self:?}"
        );
        assert_eq!(rows, indices * self.width, "one row an index");
        table / self.record
    }
}

/// How rows of a table become a part of each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bag {
    /// Elements of a row.
    pub width: usize,
    /// Numbers of a sample of `x`.
    pub inputs: usize,
    /// Place of the first index among them.
    pub first: usize,
    /// Indices of a sample.
    pub len: usize,
    /// Place of the first of as many weights, where there are any.
    pub weights: Option<usize>,
    /// How the rows of a sample become one.
    pub combiner: Combiner,
    /// Numbers of a sample of `y`.
    pub outputs: usize,
    /// Place of the first that is the row's among them.
    pub offset: usize,
}

impl Bag {
    /// A row for each number of `x`, one after another in `y`.
    pub fn rows(width: usize) -> Self {
        Self {
            width,
            inputs: 1,
            first: 0,
            len: 1,
            weights: None,
            combiner: Combiner::Sum,
            outputs: width,
            offset: 0,
        }
    }

    /// The number of samples in `x` and `y` of these lengths.
    ///
    /// # Panics
    /// If they hold other numbers of them, or a sample of the bag reaches beyond its end.
    pub(super) fn samples(&self, x: usize, y: usize) -> usize {
        let last = self.first.max(self.weights.unwrap_or(0));
        assert!(
            last + self.len <= self.inputs && self.offset + self.width <= self.outputs,
            "a bag within its samples: {self:?}"
        );
        let samples = x / self.inputs;
        assert_eq!(
            (x, y),
            (samples * self.inputs, samples * self.outputs),
            "bags of as many samples"
        );
        samples
    }
}

/// How several rows become one, each times its weight (1 where there is none).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combiner {
    /// Their sum.
    #[default]
    Sum,
    /// Their sum over the sum of weights.
    Mean,
    /// Their sum over the root of the sum of squared weights.
    Sqrtn,
}

/// Numbers that say what a column is made of.
pub const COLUMN: usize = 4;

/// What a column that [`Lookup::expand`] makes is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Nothing: something else writes it.
    Other,
    /// The input of that place.
    Copy(usize),
    /// How often `index` is among the `len` inputs from `first` on; where they are weighted, the sum of
    /// the weights that stand for it.
    Count {
        /// What is counted.
        index: usize,
        /// Place of the first input.
        first: usize,
        /// Number of inputs.
        len: usize,
        /// Place of the first of as many weights, where there are any.
        weights: Option<usize>,
    },
}

impl Column {
    /// As kernels read it: the first input, the number of inputs, the place of the first weight or -1,
    /// the index or -1.
    pub fn numbers(self) -> [f32; COLUMN] {
        match self {
            Self::Other => [0.0, 0.0, -1.0, -1.0],
            Self::Copy(input) => [input as f32, 1.0, -1.0, -1.0],
            Self::Count {
                index,
                first,
                len,
                weights,
            } => {
                let weights = weights.map_or(-1.0, |first| first as f32);
                [first as f32, len as f32, weights, index as f32]
            }
        }
    }
}

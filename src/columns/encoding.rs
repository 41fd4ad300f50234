//! What rows of encoded columns hold, and all that was found in the training split to encode them.

use std::ops::Range;

use super::{ColumnSpec, Columns, Normalize};

/// How named columns become rows of numbers: all that a model, and whoever reads more rows for it, has
/// to know.
///
/// ```
/// use ringstep::columns::{Encoded, Encoding, Values};
/// let encoding = Encoding {
///     columns: vec![Encoded { name: "age".to_owned(), slots: 0..1, values: Values::Numbers }],
///     ..Encoding::default()
/// };
/// assert_eq!(encoding.find("age").unwrap().slots, 0..1);
/// assert_eq!(encoding.width(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Encoding {
    /// The columns of a row, one behind the other.
    pub columns: Vec<Encoded>,
    /// How they are made, those that they are made of among them: vocabularies are lists, means and
    /// deviations numbers.
    pub fitted: Columns,
}

/// A column within a row.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Encoded {
    /// Its name.
    pub name: String,
    /// Where in the row it stands.
    pub slots: Range<usize>,
    /// What stands there.
    pub values: Values,
}

/// What stands in the slots of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Numbers.
    Numbers,
    /// Ids: whole numbers from 0 to below `count`, and -1 where there is none.
    Ids {
        /// How many ids there are.
        count: usize,
    },
    /// Ids as above in the first half of the slots, in the second their weights, 0 where there is no id.
    Weighted {
        /// How many ids there are.
        count: usize,
    },
}

impl Encoding {
    /// Rows of the columns called `used`, in that order, as `columns` make them.
    pub(super) fn new<'a>(columns: Columns, used: impl IntoIterator<Item = &'a str>) -> Self {
        let mut next = 0;
        let encoded = used.into_iter().map(|name| {
            let start = next;
            next += columns.slots(name);
            Encoded {
                name: name.to_owned(),
                slots: start..next,
                values: columns.values(name),
            }
        });
        Self {
            columns: encoded.collect(),
            fitted: columns,
        }
    }

    /// The column called `name`.
    pub fn find(&self, name: &str) -> Option<&Encoded> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Numbers in a row: what needs no column still has rows, of a 0.
    pub fn width(&self) -> usize {
        self.columns.last().map_or(1, |column| column.slots.end)
    }

    /// The same columns with numbers as they stand in the data: numeric ones are not normalised, and what a
    /// bucketized one has is the number, not the interval that it is in. An exported model takes such rows.
    pub(crate) fn raw(&self) -> Self {
        let mut fitted = self.fitted.clone();
        for column in &self.columns {
            if let Some(ColumnSpec::Numeric(spec)) = fitted.get_mut(&column.name) {
                spec.normalize = Normalize::None;
            }
        }
        let columns = self.raw_columns();
        Self { columns, fitted }
    }

    /// Where the columns of such a row stand, and what they have there.
    pub(crate) fn raw_columns(&self) -> Vec<Encoded> {
        let mut columns = self.columns.clone();
        for column in &mut columns {
            if let Some(ColumnSpec::Bucketized(_)) = self.fitted.get(&column.name) {
                column.values = Values::Numbers;
            }
        }
        columns
    }

    /// The boundaries of a bucketized column.
    pub(crate) fn boundaries(&self, column: &Encoded) -> Option<Vec<f32>> {
        match self.fitted.get(&column.name) {
            Some(ColumnSpec::Bucketized(spec)) => Some(spec.boundaries()),
            _ => None,
        }
    }

    /// What normalising subtracts from each number of a row, and what it divides the difference by: 0 and
    /// 1 for ids, and for numbers that are read as they are; `None` where all are.
    pub(crate) fn normalization(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        let normalize = |column: &Encoded| match self.fitted.get(&column.name) {
            Some(ColumnSpec::Numeric(spec)) => spec.normalize,
            _ => Normalize::None,
        };
        let mut columns = self.columns.iter();
        if columns.all(|column| normalize(column) == Normalize::None) {
            return None;
        }
        let of_columns = self.columns.iter().map(|column| {
            let normalize = normalize(column);
            column
                .slots
                .clone()
                .map(move |_| normalize.offset_and_divisor())
        });
        Some(of_columns.flatten().unzip())
    }
}

impl Columns {
    /// How many slots a row has for a column; a column of the data has one value.
    pub(super) fn slots(&self, name: &str) -> usize {
        match self.get(name) {
            Some(ColumnSpec::Numeric(_) | ColumnSpec::Bucketized(_)) => self.numbers_of(name).1,
            Some(ColumnSpec::Identity(spec)) => spec.max_values,
            Some(ColumnSpec::Vocabulary(spec)) => spec.max_values,
            Some(ColumnSpec::Hash(spec)) => spec.max_values,
            Some(ColumnSpec::Crossed(spec)) => {
                let slots = spec.keys.iter().map(|key| self.slots(key));
                slots.fold(1, usize::saturating_mul)
            }
            Some(ColumnSpec::Weighted(spec)) => self.slots(&spec.source).saturating_mul(2),
            None => 1,
        }
    }

    /// How many categories the column called `name` has, where the data do not decide it.
    pub(crate) fn categories(&self, name: &str) -> Option<usize> {
        match self.get(name)? {
            ColumnSpec::Vocabulary(spec) if spec.values.is_none() => None,
            ColumnSpec::Weighted(spec) => self.categories(&spec.source),
            _ => match self.values(name) {
                Values::Ids { count } | Values::Weighted { count } => Some(count),
                Values::Numbers => None,
            },
        }
    }

    fn values(&self, name: &str) -> Values {
        let count = match self.get(name) {
            Some(ColumnSpec::Bucketized(spec)) => {
                let buckets = spec.boundaries.len() + 1;
                self.slots(name).saturating_mul(buckets)
            }
            Some(ColumnSpec::Identity(spec)) => spec.buckets,
            Some(ColumnSpec::Vocabulary(spec)) => {
                spec.values.as_ref().map_or(0, Vec::len) + spec.oov_buckets
            }
            Some(ColumnSpec::Hash(spec)) => spec.buckets,
            Some(ColumnSpec::Crossed(spec)) => spec.buckets,
            Some(ColumnSpec::Weighted(spec)) => match self.values(&spec.source) {
                Values::Ids { count } => return Values::Weighted { count },
                other => return other,
            },
            Some(ColumnSpec::Numeric(_)) | None => return Values::Numbers,
        };
        Values::Ids { count }
    }
}

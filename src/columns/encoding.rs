//! What rows of encoded columns hold, and all that was found in the training split to encode them.

use std::ops::Range;

use super::Columns;

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
    /// The column called `name`.
    pub fn find(&self, name: &str) -> Option<&Encoded> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.columns.last().map_or(0, |column| column.slots.end)
    }
}

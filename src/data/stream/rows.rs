//! From a table to a stream of its rows, and back: the way to the trainer.

use std::sync::Arc;

use super::{Dataset, Size};
use crate::data::{DataError, Description, Table};

/// One row of a table.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// As many as the shape of a row has elements.
    pub features: Vec<f32>,
    /// As many as targets have numbers.
    pub targets: Vec<f32>,
    /// How much it counts, where rows are weighed.
    pub weight: Option<f32>,
}

impl Dataset<Row> {
    /// The rows of a table, in order.
    pub fn rows(table: Arc<Table>) -> Self {
        Self::from_fn(table.rows as u64, move |index| {
            let index = index as usize;
            Ok(Row {
                features: table.features(index..index + 1).to_vec(),
                // There are none where nothing is to be learned.
                targets: match table.targets.is_empty() {
                    true => Vec::new(),
                    false => table.targets(index..index + 1).to_vec(),
                },
                weight: table.weights.as_ref().map(|weights| weights[index]),
            })
        })
    }

    /// The elements of epoch 0 as a table, whose rows are as `like` describes them, be it that there are
    /// others: what training, evaluation and prediction read.
    ///
    /// ```
    /// use ringstep::data::stream::{Dataset, Row};
    /// use ringstep::data::{Description, Targets};
    ///
    /// let rows = Dataset::range(0..10).filter(|number| number % 3 == 0).map(|number| Row {
    ///     features: vec![number as f32, 1.0],
    ///     targets: vec![number as f32 / 2.0],
    ///     weight: None,
    /// });
    /// let like = Description {
    ///     shape: [2].into(),
    ///     targets: Targets::Numbers(1),
    ///     ..Description::default()
    /// };
    /// let table = rows.into_table(&like)?;
    /// assert_eq!((table.rows, table.features(1..2)), (4, &[3.0, 1.0][..]));
    /// # Ok::<(), ringstep::data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no end, no row, a row of other lengths, or one that cannot be made.
    pub fn into_table(self, like: &Description) -> Result<Table, DataError> {
        let problem = |problem: String| DataError::Element { problem };
        if self.size() == Size::Endless {
            return Err(problem(
                "an endless stream is no table; take some of it".to_owned(),
            ));
        }
        let mut table = Table::empty(like.shape.clone(), like.targets.clone(), 0);
        table.names = like.columns.clone();
        table.encoding = like.encoding.clone();
        let mut targets = None;
        for row in self.iter(0) {
            let row = row?;
            let expected = *targets.get_or_insert(row.targets.len());
            let is_weighed = table.rows == 0 || row.weight.is_some() == table.weights.is_some();
            if row.features.len() != like.shape.elements()
                || row.targets.len() != expected
                || ![0, like.targets.width()].contains(&expected)
                || !is_weighed
            {
                return Err(problem(format!(
                    "row {} has {} features, {} targets and {} weight; all rows have {}, {} and, where \
                     one has it, a weight",
                    table.rows + 1,
                    row.features.len(),
                    row.targets.len(),
                    if row.weight.is_some() { "a" } else { "no" },
                    like.shape.elements(),
                    like.targets.width(),
                )));
            }
            table.features.extend(row.features);
            table.targets.extend(row.targets);
            if let Some(weight) = row.weight {
                table.weights.get_or_insert_default().push(weight);
            }
            table.rows += 1;
        }
        match table.rows {
            0 => Err(problem("a stream of no rows is no table".to_owned())),
            _ => Ok(table),
        }
    }
}

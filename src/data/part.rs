//! A part of the training rows.

use std::iter::StepBy;
use std::ops::Range;
use std::path::Path;

use super::{DataError, Table};

/// Which of the training split's rows are trained on: of those behind the first `skip` the first `take`, and
/// of these the shard. Rows `0 1 2 3 4 5` with `skip = 1`, `take = 4` and shard 1 of 3 are `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Rows left out at the beginning.
    pub skip: usize,
    /// Rows behind them, at least 1; `None` takes all.
    pub take: Option<usize>,
    /// Every so many-th of them.
    pub shard: Option<Shard>,
}

/// Of every `count` rows that at `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Number of shards.
    pub count: usize,
    /// Which of them, from 0.
    pub index: usize,
}

impl Part {
    fn rows(self, rows: usize) -> StepBy<Range<usize>> {
        let end = self
            .take
            .map_or(rows, |take| self.skip.saturating_add(take).min(rows));
        let Shard { count, index } = self.shard.unwrap_or(Shard { count: 1, index: 0 });
        (self.skip.saturating_add(index)..end).step_by(count)
    }

    /// The part of a table. `path` is where it comes from.
    pub(super) fn of(self, mut table: Table, path: &Path) -> Result<Table, DataError> {
        if self == Self::default() {
            return Ok(table);
        }
        let rows = self.rows(table.rows);
        if rows.len() == 0 {
            return Err(DataError::format(
                path,
                format!(
                    "skip, take and shard in [data] leave none of its {} rows; take more of them",
                    table.rows
                ),
            ));
        }
        keep(&rows, table.shape.elements(), &mut table.features);
        keep(&rows, table.target_kind.width(), &mut table.targets);
        if let Some(weights) = &mut table.weights {
            keep(&rows, 1, weights);
        }
        table.rows = rows.len();
        Ok(table)
    }
}

/// Keeps rows, in ascending order, of `width` numbers each.
fn keep(rows: &StepBy<Range<usize>>, width: usize, numbers: &mut Vec<f32>) {
    for (to, from) in rows.clone().enumerate() {
        numbers.copy_within(from * width..(from + 1) * width, to * width);
    }
    numbers.truncate(rows.len() * width);
}

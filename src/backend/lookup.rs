//! Rows of a table by index.

use super::{Accumulate, Memory, View, ViewMut};

/// Rows of a table by index.
///
/// Indices come as floats, which hold whole numbers exactly up to 2^24; one outside the table reads
/// or writes the nearest row (data is checked before it gets here).
pub trait Lookup: Memory {
    /// `y[i] = table[indices[i]]`, rows of `width` elements.
    fn gather_rows(
        &mut self,
        width: usize,
        table: View<'_, Self>,
        indices: View<'_, Self>,
        y: ViewMut<'_, Self>,
    );

    /// `gradient = ` or `gradient += ` the sum of the rows of `dy` that came from each row of the
    /// table, in the order of `indices`.
    fn scatter_rows(
        &mut self,
        width: usize,
        indices: View<'_, Self>,
        dy: View<'_, Self>,
        gradient: ViewMut<'_, Self>,
        write: Accumulate,
    );
}

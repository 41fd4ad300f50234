//! Rows of a table by index.

use super::kernels::Kernel;
use super::launch::Grid;
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Lookup, Memory};

/// Most warps that share the elements of a gradient; each reads all indices.
const MOST_WARPS: usize = 4096;

/// Most warps that share a row.
const MOST_COLUMN_WARPS: usize = 64;

/// Warps of a block.
const BLOCK_WARPS: usize = 8;

impl Lookup for Cuda {
    fn gather_rows(
        &mut self,
        width: usize,
        table: View<'_, f32>,
        indices: View<'_, f32>,
        y: ViewMut<'_, f32>,
    ) {
        assert_eq!(y.len, indices.len * width, "gather_rows: one row an index");
        let rows = table.len / width;
        assert!(rows > 0 || y.len == 0, "gather_rows: a table without rows");
        let arguments = [
            (&width).into(),
            (&indices.len).into(),
            (&rows).into(),
            (&table).into(),
            (&indices).into(),
            (&y).into(),
        ];
        self.launch(Kernel::GatherRows, Grid::elements(y.len), &arguments);
    }

    fn scatter_rows(
        &mut self,
        width: usize,
        indices: View<'_, f32>,
        dy: View<'_, f32>,
        mut gradient: ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        assert_eq!(
            dy.len,
            indices.len * width,
            "scatter_rows: one row an index"
        );
        let rows = gradient.len / width;
        assert!(
            rows > 0 || dy.len == 0,
            "scatter_rows: a table without rows"
        );
        if write == Accumulate::Set {
            self.fill(Self::reborrow(&mut gradient), 0.0);
        }
        if indices.len == 0 {
            return;
        }
        let column_warps = width.div_ceil(32).min(MOST_COLUMN_WARPS);
        // A power of two.
        let row_warps = (MOST_WARPS / column_warps.next_power_of_two())
            .min(rows.next_power_of_two())
            .max(BLOCK_WARPS);
        let blocks = [(row_warps / BLOCK_WARPS) as u32, column_warps as u32, 1];
        let grid = Grid::new(blocks, [32 * BLOCK_WARPS as u32, 1, 1]);
        let arguments = [
            (&width).into(),
            (&indices.len).into(),
            (&rows).into(),
            (&indices).into(),
            (&dy).into(),
            (&gradient).into(),
        ];
        self.launch(Kernel::ScatterRows, grid, &arguments);
    }
}

//! Batch and layer normalisation.

use std::ops::Range;

use cudarc::driver::sys::CUdeviceptr;

use super::device::SCRATCH_BYTES;
use super::kernels::Kernel;
use super::launch::{Grid, passes, team_width};
use super::{Cuda, View, ViewMut};
use crate::backend::{Affine, Memory, Normalize, Normalized};

/// Rows that one thread adds, where there are not more than [`MOST_CHUNKS`] times as many.
const CHUNK: usize = 64;

/// Most chunks that a column is cut into.
const MOST_CHUNKS: usize = 1024;

/// Threads that add a column's chunks.
const FINISH_WIDTH: u32 = 32;

impl Normalize for Cuda {
    fn column_moments(
        &mut self,
        columns: usize,
        x: View<'_, f32>,
        mut mean: ViewMut<'_, f32>,
        mut variance: ViewMut<'_, f32>,
    ) {
        assert!(
            mean.len == columns && variance.len == columns,
            "column_moments: one moment a column"
        );
        self.sum_columns(x.len / columns, columns, |cuda, sums, range| {
            let x = x.slice(range.start..x.len);
            let (mean, variance) = (
                Self::reborrow(&mut mean).slice(range.clone()),
                Self::reborrow(&mut variance).slice(range),
            );
            let arguments = [sums.into(), (&x).into()];
            cuda.launch(Kernel::ColumnMoments, sums.grid(), &arguments);
            let arguments = [sums.into(), (&x).into(), (&mean).into(), (&variance).into()];
            cuda.launch(Kernel::ColumnMomentsFinish, sums.finish_grid(), &arguments);
        });
    }

    fn normalize_columns(
        &mut self,
        epsilon: f32,
        x: View<'_, f32>,
        mean: View<'_, f32>,
        variance: View<'_, f32>,
        affine: Affine<'_, Self>,
        y: ViewMut<'_, f32>,
    ) {
        let columns = mean.len;
        assert!(
            x.len == y.len
                && variance.len == columns
                && is_of(affine.scale, columns)
                && is_of(affine.offset, columns),
            "normalize_columns: lengths differ"
        );
        let scale = View::or_null(affine.scale);
        let offset = View::or_null(affine.offset);
        let arguments = [
            (&x.len).into(),
            (&columns).into(),
            (&epsilon).into(),
            (&x).into(),
            (&mean).into(),
            (&variance).into(),
            (&scale).into(),
            (&offset).into(),
            (&y).into(),
        ];
        let grid = Grid::columns(x.len, columns);
        self.launch(Kernel::NormalizeColumns, grid, &arguments);
    }

    fn column_gradients(
        &mut self,
        epsilon: f32,
        x: View<'_, f32>,
        mean: View<'_, f32>,
        variance: View<'_, f32>,
        dy: View<'_, f32>,
        sums: ViewMut<'_, f32>,
    ) {
        let columns = mean.len;
        assert!(
            x.len == dy.len && variance.len == columns && sums.len == 2 * columns,
            "column_gradients: lengths differ"
        );
        let (mut offset, mut scale) = Self::split_mut(sums, columns);
        self.sum_columns(x.len / columns, columns, |cuda, sums, range| {
            let (x, dy) = (x.slice(range.start..x.len), dy.slice(range.start..dy.len));
            let mean = mean.slice(range.clone());
            let arguments = [sums.into(), (&x).into(), (&mean).into(), (&dy).into()];
            cuda.launch(Kernel::ColumnGradients, sums.grid(), &arguments);
            let variance = variance.slice(range.clone());
            let gradients = [
                Self::reborrow(&mut offset).slice(range.clone()),
                Self::reborrow(&mut scale).slice(range),
            ];
            cuda.finish_gradients(sums, epsilon, variance, &gradients);
        });
    }

    fn normalize_columns_backward(
        &mut self,
        epsilon: f32,
        normalized: Normalized<'_, Self>,
        scale: Option<View<'_, f32>>,
        sums: Option<View<'_, f32>>,
        dy: View<'_, f32>,
        dx: ViewMut<'_, f32>,
    ) {
        let Normalized { x, mean, variance } = normalized;
        let columns = mean.len;
        assert!(
            x.len == dy.len
                && x.len == dx.len
                && variance.len == columns
                && is_of(scale, columns)
                && is_of(sums, 2 * columns),
            "normalize_columns_backward: lengths differ"
        );
        let (scale, sums) = (View::or_null(scale), View::or_null(sums));
        let arguments = [
            (&x.len).into(),
            (&columns).into(),
            (&epsilon).into(),
            (&x).into(),
            (&mean).into(),
            (&variance).into(),
            (&scale).into(),
            (&sums).into(),
            (&dy).into(),
            (&dx).into(),
        ];
        let grid = Grid::columns(x.len, columns);
        self.launch(Kernel::NormalizeColumnsBackward, grid, &arguments);
    }

    fn normalize_rows(
        &mut self,
        columns: usize,
        epsilon: f32,
        x: View<'_, f32>,
        affine: Affine<'_, Self>,
        y: ViewMut<'_, f32>,
        moments: ViewMut<'_, f32>,
    ) {
        let rows = x.len / columns;
        assert!(
            x.len == y.len
                && moments.len == 2 * rows
                && is_of(affine.scale, columns)
                && is_of(affine.offset, columns),
            "normalize_rows: lengths differ"
        );
        let scale = View::or_null(affine.scale);
        let offset = View::or_null(affine.offset);
        let width = team_width(columns);
        let arguments = [
            (&rows).into(),
            (&columns).into(),
            (&width).into(),
            (&epsilon).into(),
            (&x).into(),
            (&scale).into(),
            (&offset).into(),
            (&y).into(),
            (&moments).into(),
        ];
        let grid = Grid::teams(rows, width);
        self.launch(Kernel::NormalizeRows, grid, &arguments);
    }

    fn normalize_rows_backward(
        &mut self,
        x: View<'_, f32>,
        moments: View<'_, f32>,
        scale: Option<View<'_, f32>>,
        dy: View<'_, f32>,
        sums: ViewMut<'_, f32>,
        dx: Option<ViewMut<'_, f32>>,
    ) {
        let columns = sums.len / 2;
        let rows = x.len / columns;
        assert!(
            x.len == dy.len
                && moments.len == 2 * rows
                && is_of(scale, columns)
                && dx.as_ref().is_none_or(|dx| dx.len == x.len),
            "normalize_rows_backward: lengths differ"
        );
        let (mut offset, mut factor) = Self::split_mut(sums, columns);
        self.sum_columns(rows, columns, |cuda, sums, range| {
            let (x, dy) = (x.slice(range.start..x.len), dy.slice(range.start..dy.len));
            let arguments = [sums.into(), (&x).into(), (&moments).into(), (&dy).into()];
            cuda.launch(Kernel::RowGradients, sums.grid(), &arguments);
            let gradients = [
                Self::reborrow(&mut offset).slice(range.clone()),
                Self::reborrow(&mut factor).slice(range),
            ];
            cuda.finish_gradients(sums, 0.0, View::or_null(None), &gradients);
        });
        let Some(dx) = dx else {
            return;
        };
        let scale = View::or_null(scale);
        let width = team_width(columns);
        let arguments = [
            (&rows).into(),
            (&columns).into(),
            (&width).into(),
            (&x).into(),
            (&moments).into(),
            (&scale).into(),
            (&dy).into(),
            (&dx).into(),
        ];
        let grid = Grid::teams(rows, width);
        self.launch(Kernel::NormalizeRowsBackward, grid, &arguments);
    }

    fn scale(&mut self, factor: f32, x: View<'_, f32>, y: ViewMut<'_, f32>) {
        assert_eq!(x.len, y.len, "scale: lengths differ");
        let arguments = [(&factor).into(), (&y.len).into(), (&x).into(), (&y).into()];
        self.launch(Kernel::Scale, Grid::quads(y.len), &arguments);
    }
}

fn is_of(view: Option<View<'_, f32>>, len: usize) -> bool {
    view.is_none_or(|view| view.len == len)
}

/// `ColumnSums` of `normalization.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct ColumnSums {
    rows: usize,
    columns: usize,
    stride: usize,
    chunk: usize,
    chunks: CUdeviceptr,
}

impl ColumnSums {
    fn chunk_count(&self) -> usize {
        self.rows.div_ceil(self.chunk)
    }

    /// For the kernels that add the rows of each chunk.
    fn grid(&self) -> Grid {
        Grid::elements(self.chunk_count() * self.columns)
    }

    /// For the kernels that add the chunks.
    fn finish_grid(&self) -> Grid {
        Grid::teams(self.columns, FINISH_WIDTH)
    }
}

impl Cuda {
    /// Calls `queue` for ranges of the columns whose sums there is scratch memory for: the sums, and
    /// which columns. How a column is cut into chunks depends on the number of rows alone.
    fn sum_columns(
        &self,
        rows: usize,
        columns: usize,
        mut queue: impl FnMut(&Self, &ColumnSums, Range<usize>),
    ) {
        let chunk = rows.div_ceil(MOST_CHUNKS).max(CHUNK);
        let chunk_count = rows.div_ceil(chunk);
        // Two sums each.
        let room = SCRATCH_BYTES / (2 * size_of::<f64>()) / chunk_count.max(1);
        for range in passes(columns, room) {
            let scratch = self.scratch::<f64>(2 * chunk_count * range.len());
            let sums = ColumnSums {
                rows,
                columns: range.len(),
                stride: columns,
                chunk,
                chunks: scratch.pointer,
            };
            queue(self, &sums, range);
        }
    }

    fn finish_gradients(
        &self,
        sums: &ColumnSums,
        epsilon: f32,
        variance: View<'_, f32>,
        [offset, scale]: &[ViewMut<'_, f32>; 2],
    ) {
        let arguments = [
            sums.into(),
            (&epsilon).into(),
            (&variance).into(),
            offset.into(),
            scale.into(),
        ];
        self.launch(Kernel::GradientsFinish, sums.finish_grid(), &arguments);
    }
}

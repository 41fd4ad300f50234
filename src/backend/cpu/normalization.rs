//! Batch and layer normalisation.

use super::Cpu;
use super::simd::vectorized;
use crate::backend::{Affine, Normalize, Normalized};

/// Columns whose sums stay in registers.
const LANES: usize = 16;

impl Normalize for Cpu {
    fn column_moments(
        &mut self,
        columns: usize,
        x: &[f32],
        mean: &mut [f32],
        variance: &mut [f32],
    ) {
        assert!(
            mean.len() == columns && variance.len() == columns,
            "one moment a column"
        );
        column_moments(columns, x, mean, variance);
    }

    fn normalize_columns(
        &mut self,
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        affine: Affine<'_, Self>,
        y: &mut [f32],
    ) {
        assert_eq!(x.len(), y.len(), "normalize_columns: lengths differ");
        normalize_columns(epsilon, x, mean, variance, affine.scale, affine.offset, y);
    }

    fn column_gradients(
        &mut self,
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        dy: &[f32],
        sums: &mut [f32],
    ) {
        assert_eq!(x.len(), dy.len(), "column_gradients: lengths differ");
        column_gradients(epsilon, x, mean, variance, dy, sums);
    }

    fn normalize_columns_backward(
        &mut self,
        epsilon: f32,
        normalized: Normalized<'_, Self>,
        scale: Option<&[f32]>,
        sums: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        let Normalized { x, mean, variance } = normalized;
        assert!(x.len() == dy.len() && x.len() == dx.len(), "lengths differ");
        normalize_columns_backward(epsilon, x, mean, variance, scale, sums, dy, dx);
    }

    fn normalize_rows(
        &mut self,
        columns: usize,
        epsilon: f32,
        x: &[f32],
        affine: Affine<'_, Self>,
        y: &mut [f32],
        moments: &mut [f32],
    ) {
        assert_eq!(x.len(), y.len(), "normalize_rows: lengths differ");
        let rows = x.chunks_exact(columns).zip(y.chunks_exact_mut(columns));
        for ((x, y), moments) in rows.zip(moments.chunks_exact_mut(2)) {
            normalize_row(epsilon, x, affine.scale, affine.offset, y, moments);
        }
    }

    fn normalize_rows_backward(
        &mut self,
        x: &[f32],
        moments: &[f32],
        scale: Option<&[f32]>,
        dy: &[f32],
        sums: &mut [f32],
        dx: Option<&mut [f32]>,
    ) {
        assert_eq!(x.len(), dy.len(), "normalize_rows_backward: lengths differ");
        let columns = sums.len() / 2;
        row_gradient_sums(columns, x, moments, dy, sums);
        let Some(dx) = dx else { return };
        let rows = x.chunks_exact(columns).zip(dy.chunks_exact(columns));
        let outputs = dx.chunks_exact_mut(columns).zip(moments.chunks_exact(2));
        for ((x, dy), (dx, moments)) in rows.zip(outputs) {
            normalize_row_backward(x, moments, scale, dy, dx);
        }
    }

    fn scale(&mut self, factor: f32, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "scale: lengths differ");
        for (y, x) in y.iter_mut().zip(x) {
            *y = factor * x;
        }
    }
}

/// `1 / sqrt(variance + epsilon)`
#[inline(always)]
fn inverse_deviation(variance: f32, epsilon: f32) -> f32 {
    1.0 / (variance + epsilon).sqrt()
}

/// The sum of `term(column, row, element)` for up to [`LANES`] columns from `first`, in double
/// precision, rows in order. `element` is the index into the matrix.
#[inline(always)]
fn sum_columns(
    columns: usize,
    len: usize,
    first: usize,
    term: impl Fn(usize, usize) -> f64,
) -> [f64; LANES] {
    let width = LANES.min(columns - first);
    let mut sums = [0.0; LANES];
    for row in (0..len).step_by(columns) {
        for lane in 0..width {
            sums[lane] += term(first + lane, row + first + lane);
        }
    }
    sums
}

vectorized! {
    fn column_moments(columns: usize, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
        let count = (x.len() / columns) as f64;
        for first in (0..columns).step_by(LANES) {
            let sums = sum_columns(columns, x.len(), first, |_, i| f64::from(x[i]));
            let means = sums.map(|sum| sum / count);
            let squares = sum_columns(columns, x.len(), first, |column, i| {
                let difference = f64::from(x[i]) - means[column - first];
                difference * difference
            });
            for lane in 0..LANES.min(columns - first) {
                mean[first + lane] = means[lane] as f32;
                variance[first + lane] = (squares[lane] / count) as f32;
            }
        }
    }

    fn normalize_columns(
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        scale: Option<&[f32]>,
        offset: Option<&[f32]>,
        y: &mut [f32],
    ) {
        let columns = mean.len();
        for first in (0..columns).step_by(LANES) {
            let width = LANES.min(columns - first);
            let mut factor = [0.0; LANES];
            let mut addend = [0.0; LANES];
            for lane in 0..width {
                let column = first + lane;
                factor[lane] = inverse_deviation(variance[column], epsilon)
                    * scale.map_or(1.0, |scale| scale[column]);
                addend[lane] = offset.map_or(0.0, |offset| offset[column]);
            }
            let rows = x.chunks_exact(columns).zip(y.chunks_exact_mut(columns));
            for (x, y) in rows {
                for lane in 0..width {
                    let column = first + lane;
                    y[column] = (x[column] - mean[column]) * factor[lane] + addend[lane];
                }
            }
        }
    }

    fn column_gradients(
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        dy: &[f32],
        sums: &mut [f32],
    ) {
        let columns = mean.len();
        for first in (0..columns).step_by(LANES) {
            let offset = sum_columns(columns, x.len(), first, |_, i| f64::from(dy[i]));
            let scale = sum_columns(columns, x.len(), first, |column, i| {
                f64::from(dy[i]) * (f64::from(x[i]) - f64::from(mean[column]))
            });
            for lane in 0..LANES.min(columns - first) {
                let column = first + lane;
                let inverse = f64::from(inverse_deviation(variance[column], epsilon));
                sums[column] = offset[lane] as f32;
                sums[columns + column] = (scale[lane] * inverse) as f32;
            }
        }
    }

    fn normalize_columns_backward(
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        scale: Option<&[f32]>,
        sums: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        let columns = mean.len();
        let count = (x.len() / columns) as f32;
        for row in (0..x.len()).step_by(columns) {
            for column in 0..columns {
                let inverse = inverse_deviation(variance[column], epsilon);
                let factor = inverse * scale.map_or(1.0, |scale| scale[column]);
                let i = row + column;
                let through_moments = sums.map_or(0.0, |sums| {
                    let normalized = (x[i] - mean[column]) * inverse;
                    (sums[column] + normalized * sums[columns + column]) / count
                });
                dx[i] = factor * (dy[i] - through_moments);
            }
        }
    }

    fn normalize_row(
        epsilon: f32,
        x: &[f32],
        scale: Option<&[f32]>,
        offset: Option<&[f32]>,
        y: &mut [f32],
        moments: &mut [f32],
    ) {
        let count = x.len() as f64;
        let mean = sum_lanes(x.len(), |i| f64::from(x[i])) / count;
        let variance = sum_lanes(x.len(), |i| (f64::from(x[i]) - mean).powi(2)) / count;
        let (mean, inverse) = (mean as f32, inverse_deviation(variance as f32, epsilon));
        moments.copy_from_slice(&[mean, inverse]);
        for i in 0..x.len() {
            let factor = inverse * scale.map_or(1.0, |scale| scale[i]);
            y[i] = (x[i] - mean) * factor + offset.map_or(0.0, |offset| offset[i]);
        }
    }

    fn row_gradient_sums(columns: usize, x: &[f32], moments: &[f32], dy: &[f32], sums: &mut [f32]) {
        for first in (0..columns).step_by(LANES) {
            let offset = sum_columns(columns, x.len(), first, |_, i| f64::from(dy[i]));
            let scale = sum_columns(columns, x.len(), first, |_, i| {
                let row = i / columns;
                let (mean, inverse) = (moments[2 * row], moments[2 * row + 1]);
                f64::from(dy[i]) * f64::from((x[i] - mean) * inverse)
            });
            for lane in 0..LANES.min(columns - first) {
                sums[first + lane] = offset[lane] as f32;
                sums[columns + first + lane] = scale[lane] as f32;
            }
        }
    }

    fn normalize_row_backward(
        x: &[f32],
        moments: &[f32],
        scale: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        let count = x.len() as f64;
        let (mean, inverse) = (moments[0], moments[1]);
        let upstream = |i: usize| dy[i] * scale.map_or(1.0, |scale| scale[i]);
        let normalized = |i: usize| (x[i] - mean) * inverse;
        let sum = sum_lanes(x.len(), |i| f64::from(upstream(i))) / count;
        let dot = sum_lanes(x.len(), |i| f64::from(upstream(i)) * f64::from(normalized(i))) / count;
        for (i, dx) in dx.iter_mut().enumerate() {
            *dx = inverse * (upstream(i) - (sum as f32 + normalized(i) * dot as f32));
        }
    }
}

/// The sum of `term(i)` over `0..len` by [`LANES`] interleaved partial sums, then those in order.
#[inline(always)]
fn sum_lanes(len: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            sums[lane] += term(first + lane);
        }
    }
    for i in whole..len {
        sums[i - whole] += term(i);
    }
    sums.iter().sum()
}

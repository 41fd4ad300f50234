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
        let affine = (affine.scale, affine.offset);
        normalize_columns(epsilon, x, mean, variance, affine, y);
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
        let len = normalized.x.len();
        assert!(len == dy.len() && len == dx.len(), "lengths differ");
        normalize_columns_backward(epsilon, normalized, scale, sums, dy, dx);
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
        let affine = (affine.scale, affine.offset);
        normalize_rows(columns, epsilon, x, affine, y, moments);
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
        if let Some(dx) = dx {
            normalize_rows_backward(columns, x, moments, scale, dy, dx);
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

/// `L` elements of a row from `first`.
#[inline(always)]
fn lanes<const L: usize>(row: &[f32], first: usize) -> [f32; L] {
    std::array::from_fn(|lane| row[first + lane])
}

/// Writes what [`lanes`] reads.
#[inline(always)]
fn store<const L: usize>(row: &mut [f32], first: usize, lanes: [f32; L]) {
    row[first..first + L].copy_from_slice(&lanes);
}

/// Calls a function of a group of columns, whose first is its last argument, for all groups:
/// [`LANES`] columns, then 4, then 1. A column's bits do not depend on its group.
macro_rules! for_groups {
    ($columns:expr, $function:ident($($argument:expr),*)) => {
        let (columns, mut first) = ($columns, 0);
        while first + LANES <= columns {
            $function::<LANES>($($argument,)* first);
            first += LANES;
        }
        while first + 4 <= columns {
            $function::<4>($($argument,)* first);
            first += 4;
        }
        while first < columns {
            $function::<1>($($argument,)* first);
            first += 1;
        }
    };
}

/// The sum of `term(x, dy, lane)` over the rows of each column from `first`, rows in order.
#[inline(always)]
fn sum_columns<const L: usize>(
    columns: usize,
    first: usize,
    (x, dy): (&[f32], &[f32]),
    term: impl Fn(f32, f32, usize) -> f64,
) -> [f64; L] {
    let mut sums = [0.0; L];
    for (x, dy) in x.chunks_exact(columns).zip(dy.chunks_exact(columns)) {
        let (x, dy) = (lanes::<L>(x, first), lanes::<L>(dy, first));
        for lane in 0..L {
            sums[lane] += term(x[lane], dy[lane], lane);
        }
    }
    sums
}

/// The sum of `term(x, dy, scale)` over a row by [`LANES`] interleaved partial sums, then those in
/// order.
#[inline(always)]
fn sum_row(x: &[f32], dy: &[f32], scale: &[f32], term: impl Fn(f32, f32, f32) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (dy_chunks, dy_rest) = dy.as_chunks::<LANES>();
    let (scale_chunks, scale_rest) = scale.as_chunks::<LANES>();
    for ((x, dy), scale) in x_chunks.iter().zip(dy_chunks).zip(scale_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(x[lane], dy[lane], scale[lane]);
        }
    }
    let rest = x_rest.iter().zip(dy_rest).zip(scale_rest);
    for (sum, ((x, dy), scale)) in sums.iter_mut().zip(rest) {
        *sum += term(*x, *dy, *scale);
    }
    sums.iter().sum()
}

/// A row's part of `dx`; the gradient of what was normalised is `upstream(dy, scale)`.
#[inline(always)]
fn row_backward(
    (mean, inverse): (f32, f32),
    (x, dy, scale): (&[f32], &[f32], &[f32]),
    upstream: impl Fn(f32, f32) -> f32,
    dx: &mut [f32],
) {
    let count = x.len() as f64;
    let sum = sum_row(x, dy, scale, |_, dy, scale| f64::from(upstream(dy, scale)));
    let dot = sum_row(x, dy, scale, |x, dy, scale| {
        f64::from(upstream(dy, scale)) * f64::from((x - mean) * inverse)
    });
    let (sum, dot) = ((sum / count) as f32, (dot / count) as f32);
    for (((dx, x), dy), scale) in dx.iter_mut().zip(x).zip(dy).zip(scale) {
        let normalized = (x - mean) * inverse;
        *dx = inverse * (upstream(*dy, *scale) - (sum + normalized * dot));
    }
}

/// Scale and offset, as in [`Affine`].
type Factors<'a> = (Option<&'a [f32]>, Option<&'a [f32]>);

#[inline(always)]
fn column_moments_group<const L: usize>(
    columns: usize,
    x: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
    first: usize,
) {
    let count = (x.len() / columns) as f64;
    let sums = sum_columns::<L>(columns, first, (x, x), |x, _, _| f64::from(x));
    let means = sums.map(|sum| sum / count);
    let squares = sum_columns::<L>(columns, first, (x, x), |x, _, lane| {
        let difference = f64::from(x) - means[lane];
        difference * difference
    });
    store(mean, first, means.map(|mean| mean as f32));
    store(variance, first, squares.map(|sum| (sum / count) as f32));
}

#[inline(always)]
fn normalize_columns_group<const L: usize>(
    epsilon: f32,
    x: &[f32],
    mean: &[f32],
    variance: &[f32],
    affine: Factors<'_>,
    y: &mut [f32],
    first: usize,
) {
    let columns = mean.len();
    let scale = affine.0.map_or([1.0; L], |scale| lanes::<L>(scale, first));
    let offset = affine
        .1
        .map_or([0.0; L], |offset| lanes::<L>(offset, first));
    let (mean, variance) = (lanes::<L>(mean, first), lanes::<L>(variance, first));
    let mut factor = [0.0; L];
    for lane in 0..L {
        factor[lane] = inverse_deviation(variance[lane], epsilon) * scale[lane];
    }
    for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
        let mut x = lanes::<L>(x, first);
        for lane in 0..L {
            x[lane] = (x[lane] - mean[lane]) * factor[lane] + offset[lane];
        }
        store(y, first, x);
    }
}

#[inline(always)]
fn column_gradients_group<const L: usize>(
    epsilon: f32,
    x: &[f32],
    mean: &[f32],
    variance: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    first: usize,
) {
    let columns = mean.len();
    let (offsets, scales) = sums.split_at_mut(columns);
    let (mean, variance) = (lanes::<L>(mean, first), lanes::<L>(variance, first));
    let offset = sum_columns::<L>(columns, first, (x, dy), |_, dy, _| f64::from(dy));
    let mut scale = sum_columns::<L>(columns, first, (x, dy), |x, dy, lane| {
        f64::from(dy) * (f64::from(x) - f64::from(mean[lane]))
    });
    for lane in 0..L {
        scale[lane] *= f64::from(inverse_deviation(variance[lane], epsilon));
    }
    store(offsets, first, offset.map(|sum| sum as f32));
    store(scales, first, scale.map(|sum| sum as f32));
}

#[inline(always)]
fn normalize_columns_backward_group<const L: usize>(
    epsilon: f32,
    normalized: Normalized<'_, Cpu>,
    scale: Option<&[f32]>,
    sums: Option<&[f32]>,
    dy: &[f32],
    dx: &mut [f32],
    first: usize,
) {
    let Normalized { x, mean, variance } = normalized;
    let columns = mean.len();
    let count = (x.len() / columns) as f32;
    let scale = scale.map_or([1.0; L], |scale| lanes::<L>(scale, first));
    let (mean, variance) = (lanes::<L>(mean, first), lanes::<L>(variance, first));
    let inverse = variance.map(|variance| inverse_deviation(variance, epsilon));
    let (sum, dot) = sums.map_or(([0.0; L], [0.0; L]), |sums| {
        let (sum, dot) = sums.split_at(columns);
        (lanes::<L>(sum, first), lanes::<L>(dot, first))
    });
    let (sum, dot) = (sum.map(|sum| sum / count), dot.map(|dot| dot / count));
    let rows = x.chunks_exact(columns).zip(dy.chunks_exact(columns));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(columns)) {
        let (x, mut dy) = (lanes::<L>(x, first), lanes::<L>(dy, first));
        for lane in 0..L {
            let normalized = (x[lane] - mean[lane]) * inverse[lane];
            let through_moments = sum[lane] + normalized * dot[lane];
            dy[lane] = inverse[lane] * scale[lane] * (dy[lane] - through_moments);
        }
        store(dx, first, dy);
    }
}

#[inline(always)]
fn row_gradient_sums_group<const L: usize>(
    columns: usize,
    x: &[f32],
    moments: &[f32],
    dy: &[f32],
    sums: &mut [f32],
    first: usize,
) {
    let (offsets, scales) = sums.split_at_mut(columns);
    let (mut offset, mut scale) = ([0.0; L], [0.0; L]);
    let rows = x.chunks_exact(columns).zip(dy.chunks_exact(columns));
    for ((x, dy), moments) in rows.zip(moments.chunks_exact(2)) {
        let (x, dy) = (lanes::<L>(x, first), lanes::<L>(dy, first));
        let (mean, inverse) = (moments[0], moments[1]);
        for lane in 0..L {
            offset[lane] += f64::from(dy[lane]);
            scale[lane] += f64::from(dy[lane]) * f64::from((x[lane] - mean) * inverse);
        }
    }
    store(offsets, first, offset.map(|sum| sum as f32));
    store(scales, first, scale.map(|sum| sum as f32));
}

vectorized! {
    fn column_moments(columns: usize, x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
        for_groups!(columns, column_moments_group(columns, x, mean, variance));
    }

    fn normalize_columns(
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        affine: Factors<'_>,
        y: &mut [f32],
    ) {
        for_groups!(mean.len(), normalize_columns_group(epsilon, x, mean, variance, affine, y));
    }

    fn column_gradients(
        epsilon: f32,
        x: &[f32],
        mean: &[f32],
        variance: &[f32],
        dy: &[f32],
        sums: &mut [f32],
    ) {
        for_groups!(mean.len(), column_gradients_group(epsilon, x, mean, variance, dy, sums));
    }

    fn normalize_columns_backward(
        epsilon: f32,
        normalized: Normalized<'_, Cpu>,
        scale: Option<&[f32]>,
        sums: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        for_groups!(normalized.mean.len(), normalize_columns_backward_group(epsilon, normalized, scale, sums, dy, dx));
    }

    fn normalize_rows(
        columns: usize,
        epsilon: f32,
        x: &[f32],
        affine: Factors<'_>,
        y: &mut [f32],
        moments: &mut [f32],
    ) {
        let count = columns as f64;
        let rows = x.chunks_exact(columns).zip(y.chunks_exact_mut(columns));
        for ((x, y), moments) in rows.zip(moments.chunks_exact_mut(2)) {
            let mean = sum_row(x, x, x, |x, _, _| f64::from(x)) / count;
            let squares = sum_row(x, x, x, |x, _, _| {
                let difference = f64::from(x) - mean;
                difference * difference
            });
            let inverse = inverse_deviation((squares / count) as f32, epsilon);
            let mean = mean as f32;
            moments.copy_from_slice(&[mean, inverse]);
            match affine.0 {
                Some(scale) => {
                    for ((y, x), scale) in y.iter_mut().zip(x).zip(scale) {
                        *y = (x - mean) * (inverse * scale);
                    }
                }
                None => y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * inverse),
            }
            if let Some(offset) = affine.1 {
                y.iter_mut().zip(offset).for_each(|(y, offset)| *y += offset);
            }
        }
    }

    fn row_gradient_sums(columns: usize, x: &[f32], moments: &[f32], dy: &[f32], sums: &mut [f32]) {
        for_groups!(columns, row_gradient_sums_group(columns, x, moments, dy, sums));
    }

    fn normalize_rows_backward(
        columns: usize,
        x: &[f32],
        moments: &[f32],
        scale: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        let rows = x.chunks_exact(columns).zip(dy.chunks_exact(columns));
        let outputs = dx.chunks_exact_mut(columns).zip(moments.chunks_exact(2));
        for ((x, dy), (dx, moments)) in rows.zip(outputs) {
            let moments = (moments[0], moments[1]);
            match scale {
                Some(scale) => row_backward(moments, (x, dy, scale), |dy, scale| dy * scale, dx),
                None => row_backward(moments, (x, dy, dy), |dy, _| dy, dx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| 100.0 + (i as f32 * 0.73).sin()).collect()
    }

    #[test]
    fn a_column_has_the_same_bits_in_any_matrix() {
        let (rows, columns) = (9, 39);
        let (x, dy) = (numbers(rows * columns), numbers(rows * columns));
        let all = column(&x, &dy, columns);
        for (index, all) in all.iter().enumerate() {
            let pick = |x: &[f32]| -> Vec<f32> {
                x.iter().skip(index).step_by(columns).copied().collect()
            };
            assert_eq!(column(&pick(&x), &pick(&dy), 1)[0], *all, "column {index}");
        }
    }

    /// For each column: moments, gradients of scale and offset, outputs, input gradients.
    fn column(x: &[f32], dy: &[f32], columns: usize) -> Vec<Vec<f32>> {
        let mut cpu = Cpu::new();
        let (mut mean, mut variance) = (vec![0.0; columns], vec![0.0; columns]);
        cpu.column_moments(columns, x, &mut mean, &mut variance);
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let affine = Affine {
            scale: Some(&variance[..]),
            offset: Some(&mean[..]),
        };
        cpu.normalize_columns(1e-3, x, &mean, &variance, affine, &mut y);
        let mut sums = vec![0.0; 2 * columns];
        cpu.column_gradients(1e-3, x, &mean, &variance, dy, &mut sums);
        let normalized = Normalized {
            x,
            mean: &mean[..],
            variance: &variance[..],
        };
        let scale = Some(&variance[..]);
        cpu.normalize_columns_backward(1e-3, normalized, scale, Some(&sums), dy, &mut dx);
        let every = [&mean[..], &variance, &sums, &y, &dx];
        (0..columns)
            .map(|first| {
                let values = every
                    .iter()
                    .flat_map(|x| x.iter().skip(first).step_by(columns));
                values.copied().collect()
            })
            .collect()
    }

    #[test]
    fn moments_keep_their_digits_far_from_zero() {
        let x: Vec<f32> = (0..1000).map(|i| 4096.0 + (i % 2) as f32).collect();
        let (mut mean, mut variance) = ([0.0], [0.0]);
        Cpu::new().column_moments(1, &x, &mut mean, &mut variance);
        assert_eq!((mean, variance), ([4096.5], [0.25]));
    }
}

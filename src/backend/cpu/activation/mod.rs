//! Element-wise functions, softmax, dropout, sums over rows, and additions.

mod functions;

pub(super) use functions::{exp, sigmoid};
use functions::{gelu, gelu_slope, gelu_tanh, gelu_tanh_slope, silu_slope, tanh};

use super::Cpu;
use super::simd::vectorized;
use crate::backend::activation::BLOCK;
use crate::backend::{Accumulate, Activate, Activation, DropoutKey};
use crate::random::philox;

/// Sums that stay in registers.
const LANES: usize = 32;

impl Activate for Cpu {
    fn activate(&mut self, activation: Activation, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "activate: lengths differ");
        y.copy_from_slice(x);
        self.activate_in_place(activation, y);
    }

    fn activate_in_place(&mut self, activation: Activation, y: &mut [f32]) {
        match activation {
            Activation::Linear => {}
            Activation::Relu => apply_relu(y),
            Activation::LeakyRelu { slope } => apply_leaky_relu(slope, y),
            Activation::Elu { alpha } => apply_elu(alpha, y),
            Activation::Sigmoid => apply_sigmoid(y),
            Activation::Tanh => apply_tanh(y),
            Activation::Gelu => apply_gelu(y),
            Activation::GeluTanh => apply_gelu_tanh(y),
            Activation::Silu => apply_silu(y),
        }
    }

    fn activate_backward(&mut self, activation: Activation, saved: &[f32], dy: &mut [f32]) {
        assert_eq!(saved.len(), dy.len(), "activate_backward: lengths differ");
        match activation {
            Activation::Linear => {}
            Activation::Relu => relu_backward(saved, dy),
            Activation::LeakyRelu { slope } => leaky_relu_backward(slope, saved, dy),
            Activation::Elu { alpha } => elu_backward(alpha, saved, dy),
            Activation::Sigmoid => sigmoid_backward(saved, dy),
            Activation::Tanh => tanh_backward(saved, dy),
            Activation::Gelu => gelu_backward(saved, dy),
            Activation::GeluTanh => gelu_tanh_backward(saved, dy),
            Activation::Silu => silu_backward(saved, dy),
        }
    }

    fn softmax(&mut self, columns: usize, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "softmax: lengths differ");
        softmax(columns, x, y);
    }

    fn softmax_backward(&mut self, columns: usize, y: &[f32], dy: &mut [f32]) {
        assert_eq!(y.len(), dy.len(), "softmax_backward: lengths differ");
        softmax_backward(columns, y, dy);
    }

    fn add(&mut self, a: &[f32], b: &[f32], sum: &mut [f32]) {
        assert!(
            a.len() == sum.len() && b.len() == sum.len(),
            "add: lengths differ"
        );
        add(a, b, sum);
    }

    fn add_assign(&mut self, a: &[f32], sum: &mut [f32]) {
        assert_eq!(a.len(), sum.len(), "add_assign: lengths differ");
        add_assign(a, sum);
    }

    fn sum_rows(&mut self, columns: usize, x: &[f32], sums: &mut [f32], write: Accumulate) {
        assert_eq!(sums.len(), columns, "sum_rows: one sum for each column");
        sum_rows(columns, x, sums, write);
    }

    fn dropout(&mut self, key: DropoutKey, rate: f32, columns: usize, x: &[f32], y: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "dropout: lengths differ");
        let threshold = (f64::from(rate) * (1u64 << 32) as f64) as u32;
        let scale = 1.0 / (1.0 - rate);
        let rows = x.chunks_exact(columns).zip(y.chunks_exact_mut(columns));
        for (row, (x, y)) in rows.enumerate() {
            let sample = (key.first_sample + row as u64) as u32;
            drop_row(key, sample, threshold, scale, x, y);
        }
    }
}

vectorized! {
    fn apply_relu(y: &mut [f32]) {
        for y in y {
            // Not `max`, which would turn NaN to 0 and hide it.
            *y = if *y < 0.0 { 0.0 } else { *y };
        }
    }

    fn apply_leaky_relu(slope: f32, y: &mut [f32]) {
        for y in y {
            *y = if *y < 0.0 { slope * *y } else { *y };
        }
    }

    fn apply_elu(alpha: f32, y: &mut [f32]) {
        for y in y {
            *y = if *y < 0.0 { alpha * (exp(*y) - 1.0) } else { *y };
        }
    }

    fn apply_sigmoid(y: &mut [f32]) {
        for y in y {
            *y = sigmoid(*y);
        }
    }

    fn apply_tanh(y: &mut [f32]) {
        for y in y {
            *y = tanh(*y);
        }
    }

    fn apply_gelu(y: &mut [f32]) {
        for y in y {
            *y = gelu(*y);
        }
    }

    fn apply_gelu_tanh(y: &mut [f32]) {
        for y in y {
            *y = gelu_tanh(*y);
        }
    }

    fn apply_silu(y: &mut [f32]) {
        for y in y {
            *y *= sigmoid(*y);
        }
    }

    fn relu_backward(y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = if y > 0.0 { *dy } else { 0.0 };
        }
    }

    fn leaky_relu_backward(slope: f32, y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = if y > 0.0 { *dy } else { slope * *dy };
        }
    }

    fn elu_backward(alpha: f32, y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy = if y > 0.0 { *dy } else { (y + alpha) * *dy };
        }
    }

    fn sigmoid_backward(y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy *= y * (1.0 - y);
        }
    }

    fn tanh_backward(y: &[f32], dy: &mut [f32]) {
        for (dy, &y) in dy.iter_mut().zip(y) {
            *dy *= 1.0 - y * y;
        }
    }

    fn gelu_backward(x: &[f32], dy: &mut [f32]) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy *= gelu_slope(x);
        }
    }

    fn gelu_tanh_backward(x: &[f32], dy: &mut [f32]) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy *= gelu_tanh_slope(x);
        }
    }

    fn silu_backward(x: &[f32], dy: &mut [f32]) {
        for (dy, &x) in dy.iter_mut().zip(x) {
            *dy *= silu_slope(x);
        }
    }

    fn softmax(columns: usize, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            let largest = over_lanes(f32::NEG_INFINITY, f32::max, columns, |i| x[i]);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x - largest;
            }
        }
        // All rows at once, because one is often shorter than a vector.
        for y in &mut *y {
            *y = exp(*y);
        }
        for y in y.chunks_exact_mut(columns) {
            let sum = over_lanes(0.0, |sum, y| sum + y, columns, |i| y[i]);
            for y in y {
                *y /= sum;
            }
        }
    }

    fn softmax_backward(columns: usize, y: &[f32], dy: &mut [f32]) {
        for (y, dy) in y.chunks_exact(columns).zip(dy.chunks_exact_mut(columns)) {
            let dot = over_lanes(0.0, |sum, y| sum + y, columns, |i| y[i] * dy[i]);
            for (dy, y) in dy.iter_mut().zip(y) {
                *dy = y * (*dy - dot);
            }
        }
    }

    fn add(a: &[f32], b: &[f32], sum: &mut [f32]) {
        for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
            *sum = a + b;
        }
    }

    fn add_assign(a: &[f32], sum: &mut [f32]) {
        for (sum, &a) in sum.iter_mut().zip(a) {
            *sum += a;
        }
    }

    fn sum_rows(columns: usize, x: &[f32], sums: &mut [f32], write: Accumulate) {
        for (group, sums) in sums.chunks_mut(LANES).enumerate() {
            let first = group * LANES;
            let mut total = [0.0; LANES];
            for block in x.chunks(BLOCK * columns) {
                let mut partial = [0.0; LANES];
                for row in block.chunks_exact(columns) {
                    let row = &row[first..first + sums.len()];
                    match row.first_chunk::<LANES>() {
                        Some(row) => (0..LANES).for_each(|i| partial[i] += row[i]),
                        None => partial.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x),
                    }
                }
                (0..LANES).for_each(|i| total[i] += partial[i]);
            }
            for (sum, total) in sums.iter_mut().zip(total) {
                *sum = match write {
                    Accumulate::Set => total,
                    Accumulate::Add => *sum + total,
                };
            }
        }
    }

    fn drop_row(key: DropoutKey, sample: u32, threshold: u32, scale: f32, x: &[f32], y: &mut [f32]) {
        let seed = [key.seed as u32, (key.seed >> 32) as u32];
        for (quad, (x, y)) in x.chunks(4).zip(y.chunks_mut(4)).enumerate() {
            let words = philox([quad as u32, sample, key.layer, key.step as u32], seed);
            for ((y, &x), word) in y.iter_mut().zip(x).zip(words) {
                *y = if word < threshold { 0.0 } else { x * scale };
            }
        }
    }
}

/// Joins `term(0..len)` in [`LANES`] interleaved parts, then those in order.
#[inline(always)]
fn over_lanes(
    start: f32,
    join: impl Fn(f32, f32) -> f32,
    len: usize,
    term: impl Fn(usize) -> f32,
) -> f32 {
    let mut parts = [start; LANES];
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (lane, part) in parts.iter_mut().enumerate() {
            *part = join(*part, term(first + lane));
        }
    }
    for (part, i) in parts.iter_mut().zip(whole..len) {
        *part = join(*part, term(i));
    }
    parts.into_iter().take(len).fold(start, join)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_do_not_depend_on_the_column_group() {
        let (rows, columns) = (150, 70);
        let x: Vec<f32> = (0..rows * columns)
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        let mut all = vec![1.0; columns];
        Cpu::new().sum_rows(columns, &x, &mut all, Accumulate::Set);
        for (column, &together) in all.iter().enumerate() {
            let alone: Vec<f32> = x.iter().skip(column).step_by(columns).copied().collect();
            let mut sum = [0.0];
            Cpu::new().sum_rows(1, &alone, &mut sum, Accumulate::Set);
            assert_eq!(sum[0], together);
            let exact: f64 = alone.iter().map(|&x| f64::from(x)).sum();
            assert!((f64::from(sum[0]) - exact).abs() < 1e-4);
        }
    }

    #[test]
    fn softmax_of_a_row_does_not_depend_on_the_others() {
        for columns in [1, 3, 10, 32, 67] {
            let x: Vec<f32> = (0..5 * columns).map(|i| (i as f32).sin() * 9.0).collect();
            let (mut y, mut alone) = (vec![0.0; x.len()], vec![0.0; columns]);
            Cpu::new().softmax(columns, &x, &mut y);
            for (x, y) in x.chunks(columns).zip(y.chunks(columns)) {
                Cpu::new().softmax(columns, x, &mut alone);
                assert_eq!(alone, y);
                let terms = |x: f32| f64::from(x).exp();
                let sum: f64 = x.iter().map(|&x| terms(x)).sum();
                for (x, y) in x.iter().zip(y) {
                    assert!((f64::from(*y) - terms(*x) / sum).abs() < 3e-7);
                }
            }
        }
    }

    #[test]
    fn dropout_keeps_its_share_and_knows_no_batch() {
        let key = DropoutKey {
            seed: 5,
            step: 2,
            layer: 1,
            first_sample: 10,
        };
        let (x, mut y) = (vec![1.0; 40 * 100], vec![0.0; 40 * 100]);
        Cpu::new().dropout(key, 0.2, 100, &x, &mut y);
        let kept = y.iter().filter(|&&y| y > 0.0).count() as f64 / 4000.0;
        assert!((kept - 0.8).abs() < 0.03, "{kept} kept");
        assert!(y.iter().all(|&y| y == 0.0 || y == 1.25));
        let mut part = vec![0.0; 100];
        let later = DropoutKey {
            first_sample: 13,
            ..key
        };
        Cpu::new().dropout(later, 0.2, 100, &x[..100], &mut part);
        assert_eq!(part, y[300..400]);
    }

    #[test]
    fn slopes_match_finite_differences() {
        let kinds = [
            Activation::Linear,
            Activation::Relu,
            Activation::LeakyRelu { slope: 0.3 },
            Activation::Elu { alpha: 1.0 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
        ];
        let x: Vec<f32> = (-30..30).map(|i| i as f32 * 0.11 + 0.05).collect();
        for kind in kinds {
            let value = |x: &[f32]| {
                let mut y = vec![0.0; x.len()];
                Cpu::new().activate(kind, x, &mut y);
                y
            };
            let moved = |step: f32| value(&x.iter().map(|x| x + step).collect::<Vec<_>>());
            let (above, below) = (moved(1e-2), moved(-1e-2));
            let saved = match kind.saved() {
                crate::backend::Saved::Input => x.clone(),
                crate::backend::Saved::Output => value(&x),
            };
            let mut slopes = vec![1.0; x.len()];
            Cpu::new().activate_backward(kind, &saved, &mut slopes);
            for i in 0..x.len() {
                let numeric = (above[i] - below[i]) / 2e-2;
                assert!((slopes[i] - numeric).abs() < 1e-3, "{kind:?} at {}", x[i]);
            }
        }
    }
}

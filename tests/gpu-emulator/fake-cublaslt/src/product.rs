//! The arithmetic: operands rounded as tensor cores take them, sums in `f32` in the order of the terms.

use ptx_interpreter::numeric::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16, f32_to_tf32};

use crate::driver::Driver;
use crate::plan::{Element, Layout, Problem, Rounding};

/// A product and where its arrays lie.
pub(crate) struct Product {
    pub problem: Problem,
    pub alpha: f32,
    pub beta: f32,
    pub a: u64,
    pub b: u64,
    pub bias: u64,
    pub c: u64,
    pub d: u64,
    pub workspace: u64,
    pub workspace_bytes: usize,
}

impl Product {
    /// Computes it.
    ///
    /// # Errors
    /// If an array is not device memory from its beginning to its end.
    pub(crate) fn run(&self, driver: &Driver) -> Result<(), String> {
        let Problem { a, b, c, d, .. } = self.problem;
        let (m, n, k) = self.problem.extents();
        let bias_len = if self.problem.adds_bias() { m } else { 0 };
        for (name, address, bytes) in [
            ("A", self.a, a.bytes()),
            ("B", self.b, b.bytes()),
            ("C", self.c, c.bytes()),
            ("D", self.d, d.bytes()),
            ("bias", self.bias, bias_len * 4),
            ("workspace", self.workspace, self.workspace_bytes),
        ] {
            if bytes > 0 {
                let why = |why| format!("{name} of a product {m} x {n} x {k}: {why}");
                driver.check(address, bytes).map_err(why)?;
            }
        }
        // SAFETY: checked above; the stream's order says that nobody else uses them.
        let read = |address: u64, len: usize| unsafe {
            std::slice::from_raw_parts(address as *const f32, len)
        };
        if self.workspace_bytes > 0 {
            // Whoever keeps something there finds NaN.
            // SAFETY: checked above.
            unsafe { std::ptr::write_bytes(self.workspace as *mut u8, 0xff, self.workspace_bytes) };
        }
        let rounding = self.problem.rounding;
        let [transposed_a, transposed_b] = self.problem.transposed;
        // Column by column of A, row by row of B: [k][m] and [k][n].
        // SAFETY: checked above.
        let [left, right] = unsafe { [elements(self.a, a), elements(self.b, b)] };
        let left = packed(&left, a, !transposed_a, rounding);
        let right = packed(&right, b, transposed_b, rounding);
        let mut sums = vec![0.0f32; m * n];
        for term in 0..k {
            let column = &left[term * m..][..m];
            let row = &right[term * n..][..n];
            for (sums, &factor) in sums.chunks_exact_mut(m).zip(row) {
                for (sum, &x) in sums.iter_mut().zip(column) {
                    *sum += x * factor;
                }
            }
        }
        let bias = read(if bias_len > 0 { self.bias } else { 4 }, bias_len);
        for (column, sums) in sums.chunks_exact(m).enumerate() {
            for (row, &sum) in sums.iter().enumerate() {
                let mut value = self.alpha * sum;
                if self.beta != 0.0 {
                    // SAFETY: within the span that was checked.
                    value += self.beta * unsafe { *(self.c as *const f32).add(c.at(row, column)) };
                }
                if bias_len > 0 {
                    value += bias[row];
                }
                let value = finish(self.problem.epilogue, value);
                // SAFETY: as above.
                unsafe { *(self.d as *mut f32).add(d.at(row, column)) = value };
            }
        }
        Ok(())
    }
}

/// All that lies between a matrix's first element and its last.
///
/// # Safety
/// It is memory that nobody writes meanwhile.
unsafe fn elements(address: u64, layout: Layout) -> Vec<f32> {
    // SAFETY: the caller's promise.
    let singles = || unsafe { std::slice::from_raw_parts(address as *const f32, layout.span()) };
    // SAFETY: as above.
    let halves = || unsafe { std::slice::from_raw_parts(address as *const u16, layout.span()) };
    match layout.element {
        Element::F32 => singles().to_vec(),
        Element::F16 => halves().iter().map(|&bits| f16_to_f32(bits)).collect(),
        Element::Bf16 => halves().iter().map(|&bits| bf16_to_f32(bits)).collect(),
    }
}

/// A matrix's elements, rounded: one column after another, or one row.
fn packed(values: &[f32], layout: Layout, by_columns: bool, rounding: Rounding) -> Vec<f32> {
    let Layout { rows, columns, .. } = layout;
    let element = |row, column| round(values[layout.at(row, column)], rounding);
    match by_columns {
        true => {
            let columns = 0..columns;
            columns
                .flat_map(|column| (0..rows).map(move |row| element(row, column)))
                .collect()
        }
        false => {
            let rows = 0..rows;
            rows.flat_map(|row| (0..columns).map(move |column| element(row, column)))
                .collect()
        }
    }
}

fn round(x: f32, rounding: Rounding) -> f32 {
    match rounding {
        Rounding::None => x,
        Rounding::Tf32 => f32_to_tf32(x),
        Rounding::Bf16 => bf16_to_f32(f32_to_bf16(x)),
        Rounding::F16 => f16_to_f32(f32_to_f16(x)),
    }
}

/// What an epilogue makes of a sum.
fn finish(epilogue: u32, x: f32) -> f32 {
    match epilogue & !5 {
        // NaN stays NaN.
        2 if x < 0.0 => 0.0,
        32 => {
            let x = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            (0.5 * x * (1.0 + inner.tanh())) as f32
        }
        _ => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_round_as_tensor_cores_take_them() {
        let x = 1.0 + 2f32.powi(-11);
        assert_eq!(round(x, Rounding::None), x);
        assert_eq!(round(x, Rounding::Tf32), 1.0 + 2f32.powi(-10));
        assert_eq!(round(x, Rounding::F16), 1.0);
        assert_eq!(
            round(1.0 + 3.0 * 2f32.powi(-9), Rounding::Bf16),
            1.0 + 2f32.powi(-7)
        );
        assert_eq!(round(1e6, Rounding::F16), f32::INFINITY);
        assert!(round(f32::NAN, Rounding::Tf32).is_nan());
    }

    #[test]
    fn epilogues_keep_what_is_not_a_number() {
        assert_eq!(finish(2, -1.0), 0.0);
        assert_eq!(finish(6, 2.0), 2.0);
        assert_eq!(finish(4, -1.0), -1.0);
        assert!((finish(36, 1.0) - 0.841_192).abs() < 1e-6);
        for epilogue in [1, 2, 4, 6, 32, 36] {
            assert!(finish(epilogue, f32::NAN).is_nan());
        }
    }
}

//! Rows of a table by index.

use super::Cpu;
use crate::backend::{Accumulate, Lookup};

impl Lookup for Cpu {
    fn gather_rows(&mut self, width: usize, table: &[f32], indices: &[f32], y: &mut [f32]) {
        assert_eq!(
            y.len(),
            indices.len() * width,
            "gather_rows: one row an index"
        );
        let rows = table.len() / width;
        for (y, &index) in y.chunks_exact_mut(width).zip(indices) {
            let start = row(index, rows) * width;
            y.copy_from_slice(&table[start..start + width]);
        }
    }

    fn scatter_rows(
        &mut self,
        width: usize,
        indices: &[f32],
        dy: &[f32],
        gradient: &mut [f32],
        write: Accumulate,
    ) {
        assert_eq!(
            dy.len(),
            indices.len() * width,
            "scatter_rows: one row an index"
        );
        let rows = gradient.len() / width;
        if write == Accumulate::Set {
            gradient.fill(0.0);
        }
        for (dy, &index) in dy.chunks_exact(width).zip(indices) {
            let start = row(index, rows) * width;
            for (sum, dy) in gradient[start..start + width].iter_mut().zip(dy) {
                *sum += dy;
            }
        }
    }
}

/// The row an index means. A float is cast to the nearest integer it can be; NaN to 0.
fn row(index: f32, rows: usize) -> usize {
    (index as usize).min(rows.saturating_sub(1))
}

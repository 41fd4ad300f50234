//! How the operands of a product lie in memory.

use std::ops::Range;

/// The operand whose elements are taken one by one: row `i`, term `p` of it is
/// `data[i * row_stride + p * term_stride]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scalars<'a> {
    data: &'a [f32],
    pub(super) rows: usize,
    pub(super) row_stride: usize,
    pub(super) terms: usize,
    pub(super) term_stride: usize,
}

impl<'a> Scalars<'a> {
    /// Of a matrix `[rows, terms]`.
    pub(super) fn row_major(data: &'a [f32], rows: usize, terms: usize) -> Self {
        assert_eq!(data.len(), rows * terms, "matmul: length of an operand");
        Self {
            data,
            rows,
            row_stride: terms,
            terms,
            term_stride: 1,
        }
    }

    /// Of a matrix `[terms, rows]`.
    pub(super) fn transposed(data: &'a [f32], rows: usize, terms: usize) -> Self {
        assert_eq!(data.len(), rows * terms, "matmul: length of an operand");
        Self {
            data,
            rows,
            row_stride: 1,
            terms,
            term_stride: rows,
        }
    }

    /// The address of an element that is there.
    pub(super) fn at(&self, row: usize, term: usize) -> *const f32 {
        let offset = row * self.row_stride + term * self.term_stride;
        self.data.as_ptr().wrapping_add(offset)
    }

    /// Copies a tile to `to`, row-major.
    pub(super) fn copy(&self, rows: Range<usize>, terms: Range<usize>, to: &mut [f32]) {
        for (row, to) in rows.zip(to.chunks_exact_mut(terms.len())) {
            for (term, to) in terms.clone().zip(to) {
                *to = self.data[row * self.row_stride + term * self.term_stride];
            }
        }
    }
}

/// The operand that is taken by vectors: term `p`, column `j` of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Columns<'a> {
    /// `data[p * columns + j]`
    RowMajor(&'a [f32]),
    /// `data[j * terms + p]`
    Transposed(&'a [f32]),
}

impl Columns<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::RowMajor(data) | Self::Transposed(data) => data.len(),
        }
    }
}

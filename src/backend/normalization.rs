//! Batch and layer normalisation.

use super::{Memory, View, ViewMut};

/// How [`Normalize`] scales and moves what it has normalised.
#[derive(Clone, Copy)]
pub struct Affine<'a, B: Memory> {
    /// Factor of each column, `[columns]`; `None` for 1.
    pub scale: Option<View<'a, B>>,
    /// Addend of each column, `[columns]`; `None` for 0.
    pub offset: Option<View<'a, B>>,
}

/// Batch and layer normalisation of `[rows, columns]` matrices, row-major.
///
/// Sums are taken in double precision, in a fixed order.
pub trait Normalize: Memory {
    /// `mean = ` and `variance = ` the mean and the biased variance of each column, `[columns]`.
    fn column_moments(
        &mut self,
        columns: usize,
        x: View<'_, Self>,
        mean: ViewMut<'_, Self>,
        variance: ViewMut<'_, Self>,
    );

    /// `y = scale * (x - mean) / sqrt(variance + epsilon) + offset`, column by column.
    fn normalize_columns(
        &mut self,
        epsilon: f32,
        x: View<'_, Self>,
        mean: View<'_, Self>,
        variance: View<'_, Self>,
        affine: Affine<'_, Self>,
        y: ViewMut<'_, Self>,
    );

    /// `sums[0..columns] = ` the sum of `dy`, `sums[columns..] = ` the sum of
    /// `dy * (x - mean) / sqrt(variance + epsilon)`, for each column: the gradients of offset and
    /// scale.
    fn column_gradients(
        &mut self,
        epsilon: f32,
        x: View<'_, Self>,
        mean: View<'_, Self>,
        variance: View<'_, Self>,
        dy: View<'_, Self>,
        sums: ViewMut<'_, Self>,
    );

    /// `dx = ` the gradient of `x` in `normalize_columns`. With `sums` of `column_gradients` the
    /// moments are those of `x` itself; without they are constants.
    fn normalize_columns_backward(
        &mut self,
        epsilon: f32,
        normalized: Normalized<'_, Self>,
        scale: Option<View<'_, Self>>,
        sums: Option<View<'_, Self>>,
        dy: View<'_, Self>,
        dx: ViewMut<'_, Self>,
    );

    /// `y = scale * (x - mean) / sqrt(variance + epsilon) + offset` with the moments of each row;
    /// `moments = ` mean and `1 / sqrt(variance + epsilon)` of each row, `[rows, 2]`.
    fn normalize_rows(
        &mut self,
        columns: usize,
        epsilon: f32,
        x: View<'_, Self>,
        affine: Affine<'_, Self>,
        y: ViewMut<'_, Self>,
        moments: ViewMut<'_, Self>,
    );

    /// The gradients of `normalize_rows`: `sums = ` those of offset and scale as in
    /// `column_gradients`, `dx = ` that of the input where asked.
    fn normalize_rows_backward(
        &mut self,
        x: View<'_, Self>,
        moments: View<'_, Self>,
        scale: Option<View<'_, Self>>,
        dy: View<'_, Self>,
        sums: ViewMut<'_, Self>,
        dx: Option<ViewMut<'_, Self>>,
    );

    /// `y = factor * x`.
    fn scale(&mut self, factor: f32, x: View<'_, Self>, y: ViewMut<'_, Self>);
}

/// What was normalised, and with which moments.
#[derive(Clone, Copy)]
pub struct Normalized<'a, B: Memory> {
    /// `[rows, columns]`
    pub x: View<'a, B>,
    /// `[columns]`
    pub mean: View<'a, B>,
    /// `[columns]`
    pub variance: View<'a, B>,
}

//! Memory for the rows of a micro-batch.

use crate::backend::{Backend, BackendError, View, ViewMut};

/// One buffer of `[max_rows, width]`, of which a micro-batch uses the first rows.
pub struct RowBuffer<B: Backend> {
    buffer: B::Buffer<f32>,
    width: usize,
}

impl<B: Backend> RowBuffer<B> {
    /// Zeroed memory; `what` names it where there is none.
    ///
    /// # Errors
    /// If the device is too small.
    pub fn new(
        backend: &mut B,
        what: &'static str,
        max_rows: usize,
        width: usize,
    ) -> Result<Self, BackendError> {
        let buffer = backend.allocate(what, max_rows.saturating_mul(width))?;
        Ok(Self { buffer, width })
    }

    /// The first `rows` rows, `[rows, width]`.
    pub fn view(&self, rows: usize) -> View<'_, B> {
        B::slice(B::view(&self.buffer), 0..rows * self.width)
    }

    /// As [`Self::view`], to write.
    pub fn view_mut(&mut self, rows: usize) -> ViewMut<'_, B> {
        B::slice_mut(B::view_mut(&mut self.buffer), 0..rows * self.width)
    }
}

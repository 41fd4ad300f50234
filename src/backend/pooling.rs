//! The largest or the mean value of windows of an image, channels last.

use super::{Memory, Padding, View, ViewMut};

/// What is taken of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The largest value; the gradient goes to the first place that holds it. NaN is larger than
    /// anything.
    Max,
    /// The mean of the places that lie in the image.
    Average,
}

/// The extents of a pooling.
///
/// `x` is `[rows, in_height, in_width, channels]`, `y` is `[rows, out_height, out_width, channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolGeometry {
    /// Images.
    pub rows: usize,
    /// Rows of an input image.
    pub in_height: usize,
    /// Columns of an input image.
    pub in_width: usize,
    /// Channels.
    pub channels: usize,
    /// Rows of a window.
    pub window_height: usize,
    /// Columns of a window.
    pub window_width: usize,
    /// Rows between neighbouring windows.
    pub stride_height: usize,
    /// Columns between neighbouring windows.
    pub stride_width: usize,
    /// Rows of the first window that lie above the image.
    pub pad_top: usize,
    /// Columns of the first window that lie left of the image.
    pub pad_left: usize,
    /// Rows of an output image.
    pub out_height: usize,
    /// Columns of an output image.
    pub out_width: usize,
}

impl PoolGeometry {
    /// The pooling of `rows` images `[height, width, channels]`; `None` where no window fits.
    pub fn new(
        rows: usize,
        [height, width, channels]: [usize; 3],
        window: [usize; 2],
        strides: [usize; 2],
        padding: Padding,
    ) -> Option<Self> {
        let (out_height, pad_top) = padding.extent(height, window[0], strides[0])?;
        let (out_width, pad_left) = padding.extent(width, window[1], strides[1])?;
        Some(Self {
            rows,
            in_height: height,
            in_width: width,
            channels,
            window_height: window[0],
            window_width: window[1],
            stride_height: strides[0],
            stride_width: strides[1],
            pad_top,
            pad_left,
            out_height,
            out_width,
        })
    }

    /// Elements of one input image.
    pub fn in_elements(&self) -> usize {
        self.in_height * self.in_width * self.channels
    }

    /// Elements of one output image.
    pub fn out_elements(&self) -> usize {
        self.out_height * self.out_width * self.channels
    }
}

/// The largest or the mean value of windows of an image, channels last.
///
/// Views have exactly the lengths that the geometry says.
pub trait Pool: Memory {
    /// `y = ` the pooled windows of `x`.
    fn pool(
        &mut self,
        pooling: Pooling,
        geometry: &PoolGeometry,
        x: View<'_, Self>,
        y: ViewMut<'_, Self>,
    );

    /// `dx = ` the gradient of the input, from the input and output of [`Pool::pool`]; `dy` is
    /// overwritten with anything.
    fn pool_backward(
        &mut self,
        pooling: Pooling,
        geometry: &PoolGeometry,
        x: View<'_, Self>,
        y: View<'_, Self>,
        dy: ViewMut<'_, Self>,
        dx: ViewMut<'_, Self>,
    );
}

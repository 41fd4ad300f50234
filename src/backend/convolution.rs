//! Two-dimensional convolution, channels last.

use super::{Accumulate, Activation, Memory, View, ViewMut};

/// What happens at the borders of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Windows lie inside the image; what is left over at the bottom and right is not read.
    #[default]
    Valid,
    /// One window per stride: zeros are put around the image, the smaller half first.
    Same,
}

impl Padding {
    /// Windows along one dimension and the padding before it, `(output, pad_before)`; `None` where
    /// no window fits.
    pub fn extent(self, input: usize, window: usize, stride: usize) -> Option<(usize, usize)> {
        match self {
            Self::Valid => Some((input.checked_sub(window)? / stride + 1, 0)),
            Self::Same => {
                let output = input.div_ceil(stride);
                let covered = (output.checked_sub(1)?) * stride + window;
                Some((output, covered.saturating_sub(input) / 2))
            }
        }
    }
}

/// The extents of a convolution.
///
/// `x` is `[rows, in_height, in_width, in_channels]`, `y` is `[rows, out_height, out_width,
/// out_channels]`, the kernel `[kernel_height, kernel_width, in_channels, out_channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Images.
    pub rows: usize,
    /// Rows of an input image.
    pub in_height: usize,
    /// Columns of an input image.
    pub in_width: usize,
    /// Channels of an input image.
    pub in_channels: usize,
    /// Rows of the kernel.
    pub kernel_height: usize,
    /// Columns of the kernel.
    pub kernel_width: usize,
    /// Rows between neighbouring windows.
    pub stride_height: usize,
    /// Columns between neighbouring windows.
    pub stride_width: usize,
    /// Rows of zeros above the image.
    pub pad_top: usize,
    /// Columns of zeros to the left of it.
    pub pad_left: usize,
    /// Rows of an output image.
    pub out_height: usize,
    /// Columns of an output image.
    pub out_width: usize,
    /// Channels of an output image: filters.
    pub out_channels: usize,
}

impl ConvGeometry {
    /// The convolution of `rows` images `[height, width, channels]` by `filters` windows; `None`
    /// where no window fits.
    pub fn new(
        rows: usize,
        [height, width, channels]: [usize; 3],
        filters: usize,
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
            in_channels: channels,
            kernel_height: window[0],
            kernel_width: window[1],
            stride_height: strides[0],
            stride_width: strides[1],
            pad_top,
            pad_left,
            out_height,
            out_width,
            out_channels: filters,
        })
    }

    /// Elements of one input image.
    pub fn in_elements(&self) -> usize {
        self.in_height * self.in_width * self.in_channels
    }

    /// Elements of one output image.
    pub fn out_elements(&self) -> usize {
        self.out_height * self.out_width * self.out_channels
    }

    /// Elements of the kernel.
    pub fn kernel_elements(&self) -> usize {
        self.kernel_height * self.kernel_width * self.in_channels * self.out_channels
    }
}

/// Two-dimensional convolution, channels last.
///
/// Views have exactly the lengths that the geometry says. The bits of an element of `y` or `dx`
/// depend on its window alone, not on its place in the batch nor on the number of rows; those of
/// `dkernel` depend on the rows, which are summed in one order.
pub trait Convolve: Memory {
    /// Elements of scratch memory that each of the calls below needs for this geometry and for any
    /// with fewer rows.
    fn convolution_workspace(&self, geometry: &ConvGeometry) -> usize;

    /// `y = activation(x * kernel + bias)`, `bias[out_channels]` added to every place.
    ///
    /// As everywhere in this field, the kernel is not flipped.
    fn convolve(
        &mut self,
        geometry: &ConvGeometry,
        activation: Activation,
        tensors: Convolution<'_, Self>,
        y: ViewMut<'_, Self>,
        workspace: ViewMut<'_, Self>,
    );

    /// `dkernel = ` or `dkernel += ` the gradient of the kernel.
    fn convolve_backward_kernel(
        &mut self,
        geometry: &ConvGeometry,
        x: View<'_, Self>,
        dy: View<'_, Self>,
        dkernel: ViewMut<'_, Self>,
        write: Accumulate,
        workspace: ViewMut<'_, Self>,
    );

    /// `dx = ` the gradient of the input.
    fn convolve_backward_input(
        &mut self,
        geometry: &ConvGeometry,
        kernel: View<'_, Self>,
        dy: View<'_, Self>,
        dx: ViewMut<'_, Self>,
        workspace: ViewMut<'_, Self>,
    );
}

/// What a convolution reads.
pub struct Convolution<'a, M: Memory> {
    /// The images.
    pub x: View<'a, M>,
    /// The windows' weights.
    pub kernel: View<'a, M>,
    /// Added to every place.
    pub bias: Option<View<'a, M>>,
}

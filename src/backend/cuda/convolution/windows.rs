//! Where the operands of a convolution's products lie: what `convolution.cu` is told of images.

use bytemuck::{Pod, Zeroable};

use crate::backend::ConvGeometry;
use crate::backend::cuda::View;
use crate::backend::cuda::product::is_wide;

/// `Windows` of `convolution.cu`: windows over images, whose rows are counted in elements.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Windows {
    columns: Divisor,
    rows: Divisor,
    height: u32,
    line: u32,
    down: u32,
    right: u32,
    top: u32,
    left: u32,
}

impl Windows {
    /// Whether any four elements of a row of a window, from a multiple of four on, are aligned in
    /// memory, and in the image or out of it together.
    pub(super) fn are_wide(&self, images: View<'_, f32>, run: Divisor) -> bool {
        let distances = [self.line, self.right, self.left, run.divisor];
        distances
            .iter()
            .all(|&distance| is_wide(images.pointer, distance as usize))
    }
}

/// The windows of x, and the elements of a row of one.
pub(super) fn input_windows(g: &ConvGeometry) -> (Windows, Divisor) {
    let windows = Windows {
        columns: Divisor::new(g.out_width),
        rows: Divisor::new(g.out_height),
        height: g.in_height as u32,
        line: (g.in_width * g.in_channels) as u32,
        down: g.stride_height as u32,
        right: (g.stride_width * g.in_channels) as u32,
        top: (g.pad_top as u32).wrapping_neg(),
        left: ((g.pad_left * g.in_channels) as u32).wrapping_neg(),
    };
    (windows, Divisor::new(g.kernel_width * g.in_channels))
}

/// Phases of one launch, as many as `Phases` of `convolution.cu` holds.
pub(super) const PHASES: usize = 4;

/// `Phase` of `convolution.cu`: the places of x with the same remainders by the strides, which meet
/// the same places of the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Phase {
    places: usize,
    terms: usize,
    /// Of dy.
    windows: Windows,
    turned: Turned,
    /// The places themselves.
    dx: Windows,
    unused: u32,
}

/// `Turned` of `convolution.cu`: how a phase reads the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Turned {
    run: Divisor,
    channels: Divisor,
    last: u32,
    up: u32,
    left: u32,
}

/// Every phase that has places.
pub(super) fn phases(g: &ConvGeometry) -> impl Iterator<Item = Phase> {
    let along = |extent, kernel, stride: usize, pad| {
        (0..stride.min(extent)).map(move |first| Met::new(extent, kernel, stride, pad, first))
    };
    let vertical = along(g.in_height, g.kernel_height, g.stride_height, g.pad_top);
    vertical.flat_map(move |vertical| {
        let horizontal = along(g.in_width, g.kernel_width, g.stride_width, g.pad_left);
        horizontal.map(move |horizontal| phase(g, &vertical, &horizontal))
    })
}

/// What places with the same remainder by the stride meet along one dimension.
struct Met {
    /// The first of them.
    first: usize,
    /// How many there are.
    places: usize,
    /// Places of the kernel.
    kernel: usize,
    /// The last of these.
    last: usize,
    /// The place of dy that the first place of x meets with that one.
    start: isize,
}

impl Met {
    fn new(extent: usize, kernel: usize, stride: usize, pad: usize, first: usize) -> Self {
        let (quotient, remainder) = ((first + pad) / stride, (first + pad) % stride);
        let met = kernel.saturating_sub(remainder).div_ceil(stride);
        let before_last = met.saturating_sub(1);
        Self {
            first,
            places: (extent - first).div_ceil(stride),
            kernel: met,
            last: remainder + before_last * stride,
            start: quotient as isize - before_last as isize,
        }
    }
}

fn phase(g: &ConvGeometry, vertical: &Met, horizontal: &Met) -> Phase {
    let (columns, rows) = (
        Divisor::new(horizontal.places),
        Divisor::new(vertical.places),
    );
    let run = horizontal.kernel * g.out_channels;
    let column = g.in_channels * g.out_channels;
    Phase {
        places: g.rows * vertical.places * horizontal.places,
        terms: vertical.kernel * run,
        windows: Windows {
            columns,
            rows,
            height: g.out_height as u32,
            line: (g.out_width * g.out_channels) as u32,
            down: 1,
            right: g.out_channels as u32,
            // Wrapped around below zero.
            top: vertical.start as u32,
            left: (horizontal.start * g.out_channels as isize) as u32,
        },
        turned: Turned {
            run: Divisor::new(run),
            channels: Divisor::new(g.out_channels),
            last: ((vertical.last * g.kernel_width + horizontal.last) * column) as u32,
            up: (g.stride_height * g.kernel_width * column) as u32,
            left: (g.stride_width * column) as u32,
        },
        dx: Windows {
            columns,
            rows,
            height: g.in_height as u32,
            line: (g.in_width * g.in_channels) as u32,
            down: g.stride_height as u32,
            right: (g.stride_width * g.in_channels) as u32,
            top: vertical.first as u32,
            left: (horizontal.first * g.in_channels) as u32,
        },
        unused: 0,
    }
}

/// `Divisor` of `convolution.cu`: what a number below 2^31 is divided by.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Divisor {
    divisor: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    /// For `divisor` up to 2^30; 0 stands for 1.
    ///
    /// Where 2^l is the first power of two not below the divisor, `multiplier * divisor` is larger
    /// than 2^(31 + l), by at most 2^l. So `x * multiplier / 2^(31 + l)` is larger than `x / divisor`
    /// by less than `1 / divisor`, and has the same integral part (Granlund and Montgomery, Division
    /// by Invariant Integers using Multiplication, 1994, theorem 4.2).
    fn new(divisor: usize) -> Self {
        let divisor = divisor.max(1) as u32;
        let shift = 31 + divisor.next_power_of_two().ilog2();
        let multiplier = ((1_u64 << shift) / u64::from(divisor) + 1) as u32;
        Self {
            divisor,
            multiplier,
            shift,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_divisor_divides_every_number_below_2_to_31() {
        let powers = (0..=29).map(|power| 1_usize << power);
        let near = powers.flat_map(|power| [power - 1, power, power + 1]);
        for divisor in near.chain([10, 28, 641, 5_000_011]) {
            let by = Divisor::new(divisor);
            let divisor = divisor.max(1) as u64;
            let most = (1_u64 << 31) - 1;
            let multiples = [1, 2, 3, most / divisor / 2, most / divisor].map(|x| x * divisor);
            for x in multiples.into_iter().flat_map(|x| [x.max(1) - 1, x, x + 1]) {
                let x = x.min(most);
                assert_eq!((x * u64::from(by.multiplier)) >> by.shift, x / divisor);
            }
        }
    }

    #[test]
    fn phases_meet_each_place_of_the_kernel_once() {
        for (extent, kernel, stride, pad) in
            [(9, 3, 1, 1), (9, 3, 2, 0), (8, 5, 2, 2), (7, 2, 3, 0)]
        {
            let phases = (0..stride).map(|first| Met::new(extent, kernel, stride, pad, first));
            let phases: Vec<Met> = phases.collect();
            assert_eq!(phases.iter().map(|met| met.places).sum::<usize>(), extent);
            assert_eq!(phases.iter().map(|met| met.kernel).sum::<usize>(), kernel);
            for met in phases.iter().filter(|met| met.kernel > 0) {
                // x + pad = y * stride + kernel
                let y = met.start * stride as isize;
                assert_eq!((met.first + pad) as isize, y + met.last as isize);
            }
        }
    }
}

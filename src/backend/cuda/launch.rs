//! How a kernel is started: its grid, its arguments, and where failures go.

use std::ops::Range;

use bytemuck::NoUninit;

use super::Cuda;
use super::kernels::Kernel;
use super::view::{View, ViewMut};
use crate::backend::Element;

/// Threads of a block of an element-wise kernel.
const ELEMENT_THREADS: u32 = 256;

/// Most blocks of an element-wise kernel: several for each multiprocessor of the largest GPUs.
const ELEMENT_BLOCKS: usize = 4096;

/// Threads of a block whose teams work on a row each.
const TEAM_THREADS: usize = 256;

/// Longest row that one warp works on.
const LONGEST_OF_A_WARP: usize = 1024;

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    pub(super) threads: [u32; 3],
}

impl Grid {
    pub(super) fn new(blocks: [u32; 3], threads: [u32; 3]) -> Self {
        Self { blocks, threads }
    }

    /// For a kernel whose threads stride over `len` elements.
    pub(super) fn elements(len: usize) -> Self {
        let blocks = len.div_ceil(ELEMENT_THREADS as usize).min(ELEMENT_BLOCKS);
        Self::new([blocks as u32, 1, 1], [ELEMENT_THREADS, 1, 1])
    }

    /// The same where a thread takes four elements at a time (`Quads` of `device.cuh`), the first of
    /// which may lie before the arrays.
    pub(super) fn quads(len: usize) -> Self {
        match len {
            0 => Self::elements(0),
            _ => Self::elements(len / 4 + 2),
        }
    }

    /// For a kernel whose threads keep to one of `columns` columns each while they stride over `len`
    /// elements, four at a time: at least as many threads as columns.
    pub(super) fn columns(len: usize, columns: usize) -> Self {
        let mut grid = Self::elements(len.div_ceil(4));
        let fewest = columns.div_ceil(ELEMENT_THREADS as usize);
        let fewest = u32::try_from(fewest).expect("a kernel has fewer than 2^32 blocks");
        if len > 0 {
            grid.blocks[0] = grid.blocks[0].max(fewest);
        }
        grid
    }

    /// For `rows` teams of `width` threads (`Row` of `device.cuh`).
    pub(super) fn teams(rows: usize, width: u32) -> Self {
        let blocks = rows.div_ceil(TEAM_THREADS / width as usize);
        let blocks = u32::try_from(blocks).expect("a kernel has fewer than 2^32 blocks");
        Self::new([blocks, 1, 1], [TEAM_THREADS as u32, 1, 1])
    }
}

/// Threads that work on a row of `columns` elements together. It decides in which order a row is
/// summed, and is therefore a function of nothing else.
pub(super) fn team_width(columns: usize) -> u32 {
    let width = match columns {
        0..=LONGEST_OF_A_WARP => columns.next_power_of_two().min(32),
        _ => TEAM_THREADS,
    };
    width as u32
}

/// Cuts `columns` into ranges for which there is room: `room` columns at a time.
pub(super) fn passes(columns: usize, room: usize) -> impl Iterator<Item = Range<usize>> {
    let room = room.max(1);
    (0..columns)
        .step_by(room)
        .map(move |first| first..columns.min(first + room))
}

/// Stops where the arrays that a kernel is given are not as long as one another.
pub(super) fn same_lengths<const N: usize>(kernel: &str, len: usize, others: [usize; N]) {
    assert_eq!([len; N], others, "{kernel}: lengths differ");
}

/// One parameter of a kernel.
///
/// A view passes its address, anything else its bytes: a number the size it has in Rust (`usize` is
/// `size_t`), a `#[repr(C)]` structure its fields.
#[derive(Clone, Copy)]
pub(super) struct Argument<'a> {
    bytes: &'a [u8],
}

impl<'a, T: NoUninit> From<&'a T> for Argument<'a> {
    fn from(value: &'a T) -> Self {
        let bytes = bytemuck::bytes_of(value);
        Self { bytes }
    }
}

impl<'a, T: Element> From<&'a View<'_, T>> for Argument<'a> {
    fn from(view: &'a View<'_, T>) -> Self {
        Self::from(&view.pointer)
    }
}

impl<'a, T: Element> From<&'a ViewMut<'_, T>> for Argument<'a> {
    fn from(view: &'a ViewMut<'_, T>) -> Self {
        Self::from(&view.pointer)
    }
}

impl<'a> Argument<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl Cuda {
    /// Queues `kernel` for the compute stream, with one argument for each of its parameters, in
    /// order. Nothing happens where the grid is empty; a failure is kept for `synchronize`.
    ///
    /// The views among the arguments must be as long as the kernel's contract says.
    pub(super) fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument<'_>]) {
        if grid.blocks.contains(&0) || grid.threads.contains(&0) {
            return;
        }
        let device = &*self.device;
        let Some(function) = device.functions.get(device, kernel, self.precision) else {
            return;
        };
        let mut queue = device.queue();
        queue.push(device, (kernel, function), grid, arguments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_all_columns_once() {
        let cut = |columns, room| passes(columns, room).collect::<Vec<_>>();
        assert_eq!(cut(10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(cut(8, 4), [0..4, 4..8]);
        assert_eq!(cut(2, 0), [0..1, 1..2]);
        assert_eq!(cut(0, 4), []);
    }

    #[test]
    fn teams_have_as_many_threads_as_rows_need() {
        for (columns, width) in [(1, 1), (10, 16), (32, 32), (1024, 32), (1025, 256)] {
            assert_eq!(team_width(columns), width);
        }
        assert_eq!(Grid::teams(33, 16).blocks, [3, 1, 1]);
        assert_eq!(Grid::teams(33, 256).blocks, [33, 1, 1]);
    }
}

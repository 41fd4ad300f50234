//! The gradient of a convolution's input.
//!
//! Row `h` of `dx` gets something from every kernel row `i` and row `o` of `dy` with
//! `h + pad_top = o * stride_height + i`. All of these are one product: neighbouring rows of `dy`
//! (for each place, `runs` runs of `out_channels`) by the kernel's rows, transposed, which gives
//! for every place of such a row what it contributes to the `kernel_width` places under its window.
//! These are then added along the row. Kernel rows that meet `h` together are those with the same
//! remainder by the stride, so they stand together in the packed kernel, the last one first.

use super::tile::{Gathered, MOST_ROWS, Tiles};
use crate::backend::cpu::round::{round, rounded, scratch_elements};
use crate::backend::cpu::simd::vectorized;
use crate::backend::{ConvGeometry, Precision};

/// Places of a group of images' rows.
const GROUP_PLACES: usize = 96;

/// Scratch memory of [`backward`].
pub(super) fn workspace(tiles: &Tiles, geometry: &ConvGeometry, precision: Precision) -> usize {
    let (panel, zeros) = panel_elements(tiles, geometry);
    let windows = group(geometry) * geometry.out_width * window_elements(geometry);
    panel + zeros + windows + scratch_elements(precision, group(geometry) * geometry.out_elements())
}

/// `dx = ` the gradient of the input.
pub(super) fn backward(
    tiles: &Tiles,
    (geometry, precision): (&ConvGeometry, Precision),
    kernel: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    workspace: &mut [f32],
) {
    let g = geometry;
    let (panel, zeros) = panel_elements(tiles, g);
    let (panel, rest) = workspace.split_at_mut(panel);
    let (zeros, rest) = rest.split_at_mut(zeros);
    zeros.fill(0.0);
    pack(tiles, g, kernel, panel);
    round(precision, panel);
    let group = group(g);
    let (windows, scratch) = rest.split_at_mut(group * g.out_width * window_elements(g));
    let line = g.in_width * g.in_channels;
    let images = dx.chunks_mut(group * g.in_elements());
    for (dx, dy) in images.zip(dy.chunks(group * g.out_elements())) {
        let dy = rounded(precision, dy, scratch);
        let places = dx.len() / g.in_elements() * g.out_width;
        let windows = &mut windows[..places * window_elements(g)];
        for row in 0..g.in_height {
            let met = Met::new(g, row);
            if let Some(met) = &met {
                multiply(tiles, g, met, dy, panel, zeros, windows);
            }
            for (image, dx) in dx.chunks_exact_mut(g.in_elements()).enumerate() {
                let dx = &mut dx[row * line..][..line];
                dx.fill(0.0);
                if met.is_some() {
                    let size = g.out_width * window_elements(g);
                    add_windows(g, &windows[image * size..][..size], dx);
                }
            }
        }
    }
}

/// The rows of `dy` and of the packed kernel that a row of `dx` meets.
struct Met {
    /// First row of `dy`.
    first: usize,
    /// How many rows.
    rows: usize,
    /// Slot of the first row's kernel row.
    slot: usize,
}

impl Met {
    fn new(g: &ConvGeometry, row: usize) -> Option<Self> {
        let (quotient, remainder) = (
            (row + g.pad_top) / g.stride_height,
            (row + g.pad_top) % g.stride_height,
        );
        // Kernel rows `remainder + j * stride`, met by rows `quotient - j` of `dy`.
        let last = kernel_rows(g, remainder).checked_sub(1)?.min(quotient);
        let first = (quotient + 1).saturating_sub(g.out_height);
        let rows = (last + 1).checked_sub(first).filter(|&rows| rows > 0)?;
        let before: usize = (0..remainder)
            .map(|remainder| kernel_rows(g, remainder))
            .sum();
        Some(Self {
            first: quotient - last,
            rows,
            slot: before + kernel_rows(g, remainder) - 1 - last,
        })
    }
}

/// Kernel rows with this remainder by the stride.
fn kernel_rows(g: &ConvGeometry, remainder: usize) -> usize {
    g.kernel_height
        .saturating_sub(remainder)
        .div_ceil(g.stride_height)
}

/// Images that are worked on together.
fn group(g: &ConvGeometry) -> usize {
    GROUP_PLACES.div_ceil(g.out_width).min(g.rows.max(1))
}

/// Elements of one place's contributions to one row.
fn window_elements(g: &ConvGeometry) -> usize {
    g.kernel_width * g.in_channels
}

/// Elements of the packed kernel, and of one row of zeros.
fn panel_elements(tiles: &Tiles, g: &ConvGeometry) -> (usize, usize) {
    let columns = tiles.vectors(window_elements(g)) * tiles.lanes;
    (g.kernel_height * g.out_channels * columns, columns)
}

/// Transposes the kernel into panels, each `[slot, out_channels, whole registers]`.
fn pack(tiles: &Tiles, g: &ConvGeometry, kernel: &[f32], panels: &mut [f32]) {
    let columns = window_elements(g);
    let terms = g.kernel_height * g.out_channels;
    for (first, vectors) in tiles.panels(columns) {
        let (first, width) = (first * tiles.lanes, vectors * tiles.lanes);
        let panel = &mut panels[first * terms..][..width * terms];
        panel.fill(0.0);
        let last = columns.min(first + width);
        let kernel_rows = (0..g.stride_height).flat_map(|remainder| {
            (0..kernel_rows(g, remainder))
                .rev()
                .map(move |j| remainder + j * g.stride_height)
        });
        let slots = panel.chunks_exact_mut(g.out_channels * width);
        for (kernel_row, slot) in kernel_rows.zip(slots) {
            for column in first..last {
                let from = &kernel[(kernel_row * columns + column) * g.out_channels..];
                let to = slot[column - first..].iter_mut().step_by(width);
                to.zip(&from[..g.out_channels])
                    .for_each(|(to, &from)| *to = from);
            }
        }
    }
}

/// `windows[place] = ` the contributions of every place of the rows met.
fn multiply(
    tiles: &Tiles,
    g: &ConvGeometry,
    met: &Met,
    dy: &[f32],
    panels: &[f32],
    zeros: &[f32],
    windows: &mut [f32],
) {
    let columns = window_elements(g);
    let line = g.out_width * g.out_channels;
    for (first, vectors) in tiles.panels(columns) {
        let (first, width) = (first * tiles.lanes, vectors * tiles.lanes);
        let rows = tiles.rows[vectors - 1];
        let panel = &panels[first * g.kernel_height * g.out_channels..];
        let mut tile = Gathered {
            a: &dy[met.first * line..],
            starts: [0; MOST_ROWS],
            rows,
            runs: met.rows,
            run_pitch: line,
            run: g.out_channels,
            panel: &panel[met.slot * g.out_channels * width..],
            bias: Some(zeros),
            columns: width.min(columns - first),
            pitch: columns,
        };
        let images = windows.len() / (columns * g.out_width);
        let mut places = (0..images).flat_map(|image| {
            (0..g.out_width).map(move |column| image * g.out_elements() + column * g.out_channels)
        });
        for windows in windows.chunks_mut(rows * columns) {
            tile.rows = windows.len() / columns;
            for (start, place) in tile.starts.iter_mut().zip(places.by_ref().take(tile.rows)) {
                *start = place;
            }
            tiles.gathered(vectors, &tile, &mut windows[first..]);
        }
    }
}

vectorized! {
    /// `dx += ` what the windows of one row of one image contribute, from the window's left to its
    /// right.
    fn add_windows(g: &ConvGeometry, windows: &[f32], dx: &mut [f32]) {
        let channels = g.in_channels;
        for kernel_column in 0..g.kernel_width {
            for (column, window) in windows.chunks_exact(window_elements(g)).enumerate() {
                let at = column * g.stride_width + kernel_column;
                if let Some(at) = at.checked_sub(g.pad_left).filter(|&at| at < g.in_width) {
                    let dx = &mut dx[at * channels..][..channels];
                    let window = &window[kernel_column * channels..][..channels];
                    for (dx, &window) in dx.iter_mut().zip(window) {
                        *dx += window;
                    }
                }
            }
        }
    }
}

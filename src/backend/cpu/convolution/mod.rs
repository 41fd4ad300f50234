//! Two-dimensional convolution, channels last, as matrix products that read the image in place.
//!
//! A patch is `kernel_height` runs of `kernel_width * in_channels` neighbours in the image, so the
//! matrix of patches is never written out: [`tile`] is told where its rows start. Images are taken
//! in groups that stay in the second-level cache; where windows reach over the border, a group is
//! first copied into a frame of zeros. Where operands are rounded, all are copied, in the same places.

mod input;
mod tile;

use super::Cpu;
use super::round::{round, rounded, scratch_elements};
use crate::backend::{
    Accumulate, Activate, Activation, ConvGeometry, Convolution, Convolve, Precision,
};
use tile::{Gathered, MOST_ROWS, Outer, Tiles};

/// Places of a group of images, at least, so that tiles are full also where images are small.
const GROUP_PLACES: usize = 512;

/// Elements of `dy` over which a gradient of the kernel is summed before it is added.
const BLOCK_ELEMENTS: usize = 1 << 16;

/// Elements of a panel that are used on all places of a group before the next are.
const PANEL_ELEMENTS: usize = 1 << 17;

impl Convolve for Cpu {
    fn convolution_workspace(&self, geometry: &ConvGeometry) -> usize {
        let tiles = Tiles::of(self.instructions);
        let panel = panel_elements(&tiles, geometry);
        let frame = Frame::new(geometry, self.precision);
        let block = scratch_elements(self.precision, frame.block_elements());
        let of_kernel = frame.elements() + block.max(panel.0 + panel.1);
        of_kernel.max(input::workspace(&tiles, geometry, self.precision))
    }

    fn convolve(
        &mut self,
        geometry: &ConvGeometry,
        activation: Activation,
        Convolution { x, kernel, bias }: Convolution<'_, Self>,
        y: &mut [f32],
        workspace: &mut [f32],
    ) {
        check(geometry, x, kernel, y);
        let tiles = Tiles::of(self.instructions);
        let frame = Frame::new(geometry, self.precision);
        let (panel, padded_bias) = panel_elements(&tiles, geometry);
        let (framed, rest) = workspace.split_at_mut(frame.elements());
        let (panel, rest) = rest.split_at_mut(panel);
        let padded_bias = &mut rest[..padded_bias];
        pack(&tiles, geometry, kernel, panel);
        round(self.precision, panel);
        match bias {
            Some(bias) => padded_bias[..bias.len()].copy_from_slice(bias),
            None => padded_bias.fill(0.0),
        }
        let images = x.chunks(frame.group * geometry.in_elements());
        for (x, y) in images.zip(y.chunks_mut(frame.group * geometry.out_elements())) {
            let x = frame.enclose(x, framed);
            convolve_group(&tiles, &frame, x, panel, padded_bias, y);
            if activation != Activation::Linear {
                self.activate_in_place(activation, y);
            }
        }
    }

    fn convolve_backward_kernel(
        &mut self,
        geometry: &ConvGeometry,
        x: &[f32],
        dy: &[f32],
        dkernel: &mut [f32],
        write: Accumulate,
        workspace: &mut [f32],
    ) {
        check(geometry, x, dkernel, dy);
        let tiles = Tiles::of(self.instructions);
        let frame = Frame::new(geometry, self.precision);
        let (framed, scratch) = workspace.split_at_mut(frame.elements());
        if write == Accumulate::Set {
            dkernel.fill(0.0);
        }
        let images = x.chunks(frame.group * geometry.in_elements());
        for (x, dy) in images.zip(dy.chunks(frame.group * geometry.out_elements())) {
            let x = frame.enclose(x, framed);
            let places = geometry.out_height * geometry.out_width;
            if dy.len() <= BLOCK_ELEMENTS {
                let block = Block {
                    images: dy.len() / geometry.out_elements(),
                    first_line: 0,
                    lines: geometry.out_height,
                };
                let dy = rounded(self.precision, dy, scratch);
                add_block(&tiles, &frame, block, x, dy, dkernel);
                continue;
            }
            let line = geometry.out_width * geometry.out_channels;
            let lines = (BLOCK_ELEMENTS / line).max(1);
            for (image, dy) in dy.chunks(places * geometry.out_channels).enumerate() {
                let x = &x[image * frame.image..];
                for (block, dy) in dy.chunks(lines * line).enumerate() {
                    let block = Block {
                        images: 1,
                        first_line: block * lines,
                        lines: dy.len() / line,
                    };
                    let dy = rounded(self.precision, dy, scratch);
                    add_block(&tiles, &frame, block, x, dy, dkernel);
                }
            }
        }
    }

    fn convolve_backward_input(
        &mut self,
        geometry: &ConvGeometry,
        kernel: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        workspace: &mut [f32],
    ) {
        check(geometry, dx, kernel, dy);
        input::backward(
            &Tiles::of(self.instructions),
            (geometry, self.precision),
            kernel,
            dy,
            dx,
            workspace,
        );
    }
}

fn check(geometry: &ConvGeometry, x: &[f32], kernel: &[f32], y: &[f32]) {
    assert_eq!(
        x.len(),
        geometry.rows * geometry.in_elements(),
        "length of the input"
    );
    assert_eq!(
        y.len(),
        geometry.rows * geometry.out_elements(),
        "length of the output"
    );
    assert_eq!(
        kernel.len(),
        geometry.kernel_elements(),
        "length of the kernel"
    );
}

/// A group of images, rounded, with the zeros around them that windows reach.
struct Frame {
    geometry: ConvGeometry,
    precision: Precision,
    /// Images in a group.
    group: usize,
    /// Elements of a framed image's row.
    line: usize,
    /// Elements of a framed image.
    image: usize,
    /// Whether images are rounded or have anything around them.
    is_copy: bool,
}

impl Frame {
    fn new(geometry: &ConvGeometry, precision: Precision) -> Self {
        let g = *geometry;
        let reach = |out: usize, stride: usize, window: usize| (out - 1) * stride + window;
        let height = reach(g.out_height, g.stride_height, g.kernel_height);
        let width = reach(g.out_width, g.stride_width, g.kernel_width);
        let height = height.max(g.in_height + g.pad_top);
        let width = width.max(g.in_width + g.pad_left);
        Self {
            geometry: g,
            group: GROUP_PLACES
                .div_ceil(g.out_height * g.out_width)
                .min(g.rows.max(1)),
            line: width * g.in_channels,
            image: height * width * g.in_channels,
            is_copy: precision != Precision::F32 || (height, width) != (g.in_height, g.in_width),
            precision,
        }
    }

    /// Scratch memory for one group.
    fn elements(&self) -> usize {
        if self.is_copy {
            self.group * self.image
        } else {
            0
        }
    }

    /// Most elements of `dy` that are summed together.
    fn block_elements(&self) -> usize {
        let line = self.geometry.out_width * self.geometry.out_channels;
        BLOCK_ELEMENTS
            .max(line)
            .min(self.group * self.geometry.out_elements())
    }

    /// The images, inside the frame if there is one.
    fn enclose<'a>(&self, x: &'a [f32], framed: &'a mut [f32]) -> &'a [f32] {
        if !self.is_copy {
            return x;
        }
        let g = &self.geometry;
        let line = g.in_width * g.in_channels;
        let images = x.chunks_exact(g.in_elements());
        for (x, framed) in images.zip(framed.chunks_exact_mut(self.image)) {
            let (above, rest) = framed.split_at_mut(g.pad_top * self.line);
            let (middle, below) = rest.split_at_mut(g.in_height * self.line);
            above.fill(0.0);
            below.fill(0.0);
            for (x, framed) in x.chunks_exact(line).zip(middle.chunks_exact_mut(self.line)) {
                let (left, rest) = framed.split_at_mut(g.pad_left * g.in_channels);
                left.fill(0.0);
                rest[..line].copy_from_slice(x);
                rest[line..].fill(0.0);
            }
            round(self.precision, framed);
        }
        framed
    }

    /// Where the patches of `images` images start, in order.
    fn patches(&self, images: usize) -> impl Iterator<Item = usize> {
        let g = self.geometry;
        let (image, line) = (self.image, g.stride_height * self.line);
        let step = g.stride_width * g.in_channels;
        (0..images).flat_map(move |i| {
            (0..g.out_height).flat_map(move |row| {
                let start = i * image + row * line;
                (0..g.out_width).map(move |column| start + column * step)
            })
        })
    }

    /// Elements of a run of neighbours in a patch.
    fn run(&self) -> usize {
        self.geometry.kernel_width * self.geometry.in_channels
    }
}

/// Elements of the packed kernel and of the padded bias.
fn panel_elements(tiles: &Tiles, geometry: &ConvGeometry) -> (usize, usize) {
    let columns = tiles.vectors(geometry.out_channels) * tiles.lanes;
    let terms = geometry.kernel_height * geometry.kernel_width * geometry.in_channels;
    (terms * columns, columns)
}

/// Copies the kernel into panels, each `[terms, whole registers]`.
fn pack(tiles: &Tiles, geometry: &ConvGeometry, kernel: &[f32], panel: &mut [f32]) {
    let channels = geometry.out_channels;
    let terms = kernel.len() / channels;
    for (first, vectors) in tiles.panels(channels) {
        let (first, width) = (first * tiles.lanes, vectors * tiles.lanes);
        let columns = width.min(channels - first);
        let panel = &mut panel[first * terms..][..width * terms];
        let rows = kernel.chunks_exact(channels);
        for (row, packed) in rows.zip(panel.chunks_exact_mut(width)) {
            packed[..columns].copy_from_slice(&row[first..first + columns]);
            packed[columns..].fill(0.0);
        }
    }
}

fn convolve_group(
    tiles: &Tiles,
    frame: &Frame,
    x: &[f32],
    panels: &[f32],
    bias: &[f32],
    y: &mut [f32],
) {
    let g = &frame.geometry;
    let images = y.len() / g.out_elements();
    let run = frame.run();
    for (first, vectors) in tiles.panels(g.out_channels) {
        let (first, width) = (first * tiles.lanes, vectors * tiles.lanes);
        let columns = width.min(g.out_channels - first);
        let rows = tiles.rows[vectors - 1];
        let panel = &panels[first * run * g.kernel_height..];
        let runs_at_once = (PANEL_ELEMENTS / (run * width)).clamp(1, g.kernel_height);
        for first_run in (0..g.kernel_height).step_by(runs_at_once) {
            let mut tile = Gathered {
                a: &x[first_run * frame.line..],
                starts: [0; MOST_ROWS],
                rows,
                runs: runs_at_once.min(g.kernel_height - first_run),
                run_pitch: frame.line,
                run,
                panel: &panel[first_run * run * width..],
                bias: (first_run == 0).then_some(&bias[first..]),
                columns,
                pitch: g.out_channels,
            };
            let mut patches = frame.patches(images);
            for y in y.chunks_mut(rows * g.out_channels) {
                tile.rows = y.len() / g.out_channels;
                tile.starts
                    .iter_mut()
                    .zip(patches.by_ref().take(tile.rows))
                    .for_each(|(start, patch)| *start = patch);
                tiles.gathered(vectors, &tile, &mut y[first..]);
            }
        }
    }
}

/// Places over which one sum of the kernel's gradient runs.
struct Block {
    images: usize,
    first_line: usize,
    lines: usize,
}

/// `dkernel +=` what the places of a block contribute.
fn add_block(
    tiles: &Tiles,
    frame: &Frame,
    block: Block,
    x: &[f32],
    dy: &[f32],
    dkernel: &mut [f32],
) {
    let g = &frame.geometry;
    let run = frame.run();
    let line = g.stride_height * frame.line;
    for (first, vectors) in tiles.panels(g.out_channels) {
        let first = first * tiles.lanes;
        let rows = tiles.rows[vectors - 1];
        let mut tile = Outer {
            a: &x[block.first_line * line..],
            offsets: [0; MOST_ROWS],
            rows,
            images: block.images,
            image: frame.image,
            lines: block.lines,
            line,
            steps: g.out_width,
            step: g.stride_width * g.in_channels,
            b: &dy[first..],
            columns: (vectors * tiles.lanes).min(g.out_channels - first),
            pitch: g.out_channels,
        };
        let terms = dkernel.chunks_mut(rows * g.out_channels).enumerate();
        for (i, dkernel) in terms {
            tile.rows = dkernel.len() / g.out_channels;
            for (offset, term) in tile.offsets.iter_mut().take(tile.rows).zip(i * rows..) {
                *offset = term / run * frame.line + term % run;
            }
            tiles.outer(vectors, &tile, &mut dkernel[first..]);
        }
    }
}

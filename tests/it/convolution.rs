//! The convolution kernels against plain loops in f64, and bits that must not depend on where an
//! image stands.

use proptest::prelude::*;
use ringstep::backend::cpu::{Cpu, InstructionSet};
use ringstep::backend::{Accumulate, Activation, ConvGeometry, Convolution, Convolve, Padding};

/// Numbers in -1..1 that look random and are the same everywhere.
pub(super) fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[derive(Debug, PartialEq)]
pub(super) struct Run {
    pub(super) y: Vec<f32>,
    pub(super) dkernel: Vec<f32>,
    pub(super) dx: Vec<f32>,
}

fn run(g: &ConvGeometry, x: &[f32], kernel: &[f32], bias: Option<&[f32]>, dy: &[f32]) -> Run {
    run_on(Cpu::new(), g, x, kernel, bias, dy)
}

/// All three kernels, with a workspace full of NaN: nothing may be read that was not written.
pub(super) fn run_on(
    mut cpu: Cpu,
    g: &ConvGeometry,
    x: &[f32],
    kernel: &[f32],
    bias: Option<&[f32]>,
    dy: &[f32],
) -> Run {
    let mut run = Run {
        y: vec![f32::NAN; g.rows * g.out_elements()],
        dkernel: vec![f32::NAN; g.kernel_elements()],
        dx: vec![f32::NAN; g.rows * g.in_elements()],
    };
    let mut workspace = vec![f32::NAN; cpu.convolution_workspace(g)];
    let tensors = Convolution { x, kernel, bias };
    cpu.convolve(g, Activation::Linear, tensors, &mut run.y, &mut workspace);
    workspace.fill(f32::NAN);
    let write = Accumulate::Set;
    cpu.convolve_backward_kernel(g, x, dy, &mut run.dkernel, write, &mut workspace);
    workspace.fill(f32::NAN);
    cpu.convolve_backward_input(g, kernel, dy, &mut run.dx, &mut workspace);
    run
}

/// `(x, kernel, y)` places that belong together, once for every product of a convolution.
fn products(g: &ConvGeometry) -> impl Iterator<Item = (usize, usize, usize)> {
    let g = *g;
    let places = (0..g.rows).flat_map(move |image| {
        (0..g.out_height)
            .flat_map(move |row| (0..g.out_width).map(move |column| (image, row, column)))
    });
    places.flat_map(move |(image, row, column)| {
        let window =
            (0..g.kernel_height).flat_map(move |i| (0..g.kernel_width).map(move |j| (i, j)));
        window.flat_map(move |(i, j)| {
            let h = (row * g.stride_height + i).wrapping_sub(g.pad_top);
            let w = (column * g.stride_width + j).wrapping_sub(g.pad_left);
            let inside = h < g.in_height && w < g.in_width;
            let channels = if inside {
                g.in_channels * g.out_channels
            } else {
                0
            };
            (0..channels).map(move |pair| {
                let (from, to) = (pair / g.out_channels, pair % g.out_channels);
                (
                    ((image * g.in_height + h) * g.in_width + w) * g.in_channels + from,
                    ((i * g.kernel_width + j) * g.in_channels + from) * g.out_channels + to,
                    ((image * g.out_height + row) * g.out_width + column) * g.out_channels + to,
                )
            })
        })
    })
}

/// Largest difference over the largest magnitude.
fn error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1e-30_f64, |most, x| most.max(x.abs()));
    let pairs = got.iter().zip(want);
    let difference = |(&x, &y): (&f32, &f64)| (f64::from(x) - y).abs();
    pairs
        .map(difference)
        .fold(0.0, |most: f64, x| if x <= most { most } else { x })
        / largest
}

fn check(g: &ConvGeometry, seed: u32) {
    let x = numbers(g.rows * g.in_elements(), seed);
    let kernel = numbers(g.kernel_elements(), seed + 1);
    let bias = numbers(g.out_channels, seed + 2);
    let dy = numbers(g.rows * g.out_elements(), seed + 3);
    let got = run(g, &x, &kernel, Some(&bias), &dy);
    assert_near(&got, g, &x, &kernel, &bias, &dy);
}

/// Compares with plain loops in f64.
pub(super) fn assert_near(
    got: &Run,
    g: &ConvGeometry,
    x: &[f32],
    kernel: &[f32],
    bias: &[f32],
    dy: &[f32],
) {
    let mut y: Vec<f64> = bias.iter().map(|&x| x.into()).collect();
    y = y.repeat(g.rows * g.out_height * g.out_width);
    let (mut dkernel, mut dx) = (vec![0.0; kernel.len()], vec![0.0; x.len()]);
    for (i, k, o) in products(g) {
        y[o] += f64::from(x[i]) * f64::from(kernel[k]);
        dkernel[k] += f64::from(x[i]) * f64::from(dy[o]);
        dx[i] += f64::from(dy[o]) * f64::from(kernel[k]);
    }
    for (name, error) in [
        ("output", error(&got.y, &y)),
        ("kernel's gradient", error(&got.dkernel, &dkernel)),
        ("input's gradient", error(&got.dx, &dx)),
    ] {
        // Sums of up to a few thousand products in f32.
        assert!(error < 5e-6, "{name}: {error:e} with {g:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_geometries_match_plain_loops(
        rows in 0..5_usize,
        image in [1..12_usize, 1..12, 1..6],
        filters in prop_oneof![1..8_usize, 15..18_usize, 30..70_usize],
        window in [1..5_usize, 1..5],
        strides in [1..4_usize, 1..4],
        same: bool,
        seed: u32,
    ) {
        let padding = if same { Padding::Same } else { Padding::Valid };
        if let Some(g) = ConvGeometry::new(rows, image, filters, window, strides, padding) {
            check(&g, seed >> 1);
        } else {
            prop_assert!(!same && (window[0] > image[0] || window[1] > image[1]));
        }
    }
}

fn geometry(rows: usize, image: [usize; 3], filters: usize, padding: Padding) -> ConvGeometry {
    ConvGeometry::new(rows, image, filters, [3, 3], [1, 1], padding).unwrap()
}

#[test]
fn sums_longer_than_a_block_and_wider_than_a_panel_match_plain_loops() {
    // More than one block of lines in an image, one of images, many panels, a split panel.
    check(&geometry(2, [60, 40, 3], 33, Padding::Same), 1);
    check(&geometry(9, [12, 12, 2], 130, Padding::Valid), 2);
    check(&geometry(1, [5, 5, 700], 65, Padding::Valid), 3);
    check(&geometry(3, [4, 4, 70], 6, Padding::Same), 4);
}

#[test]
fn an_image_gives_the_same_bits_wherever_it_stands() {
    for (image, filters, padding) in [
        ([9, 7, 3], 20, Padding::Same),
        ([26, 26, 32], 64, Padding::Valid),
        ([4, 4, 5], 10, Padding::Valid),
    ] {
        let g = geometry(13, image, filters, padding);
        let x = numbers(g.rows * g.in_elements(), 1);
        let kernel = numbers(g.kernel_elements(), 2);
        let dy = numbers(g.rows * g.out_elements(), 3);
        let all = run(&g, &x, &kernel, None, &dy);
        for row in 0..g.rows {
            let one = ConvGeometry { rows: 1, ..g };
            let (x_row, y_row) = (row * g.in_elements(), row * g.out_elements());
            // Copied to another offset, so that addresses differ as well.
            let moved = |from: &[f32]| [&[0.0; 64][..row + 1], from].concat();
            let x = moved(&x[x_row..][..g.in_elements()]);
            let dy = moved(&dy[y_row..][..g.out_elements()]);
            let single = run(&one, &x[row + 1..], &kernel, None, &dy[row + 1..]);
            assert_eq!(single.y, all.y[y_row..][..g.out_elements()]);
            assert_eq!(single.dx, all.dx[x_row..][..g.in_elements()]);
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (image, filters, padding) in [
        ([7, 6, 3], 20, Padding::Same),
        ([5, 5, 20], 33, Padding::Valid),
    ] {
        let g = geometry(5, image, filters, padding);
        let x = numbers(g.rows * g.in_elements(), 1);
        let kernel = numbers(g.kernel_elements(), 2);
        let bias = numbers(g.out_channels, 3);
        let dy = numbers(g.rows * g.out_elements(), 4);
        let runs: Vec<Run> = InstructionSet::ALL
            .into_iter()
            .filter_map(Cpu::with_instructions)
            .map(|cpu| run_on(cpu, &g, &x, &kernel, Some(&bias), &dy))
            .collect();
        assert!(runs.iter().all(|run| *run == runs[0]));
    }
}

#[test]
fn a_gradient_is_the_same_on_each_run_and_can_be_added() {
    let g = geometry(11, [10, 9, 4], 24, Padding::Same);
    let x = numbers(g.rows * g.in_elements(), 1);
    let kernel = numbers(g.kernel_elements(), 2);
    let dy = numbers(g.rows * g.out_elements(), 3);
    let first = run(&g, &x, &kernel, None, &dy).dkernel;
    assert_eq!(first, run(&g, &x, &kernel, None, &dy).dkernel);
    let mut cpu = Cpu::new();
    let mut workspace = vec![f32::NAN; cpu.convolution_workspace(&g)];
    let mut sum = vec![1.0; first.len()];
    cpu.convolve_backward_kernel(&g, &x, &dy, &mut sum, Accumulate::Add, &mut workspace);
    let want: Vec<f64> = first.iter().map(|&x| f64::from(x) + 1.0).collect();
    assert!(error(&sum, &want) < 1e-6);
}

#[test]
fn a_nan_reaches_every_output_it_takes_part_in() {
    let g = geometry(2, [6, 6, 3], 5, Padding::Same);
    let mut x = numbers(g.rows * g.in_elements(), 1);
    let hole = g.in_elements() - 1;
    x[hole] = f32::NAN;
    let kernel = vec![0.0; g.kernel_elements()];
    let dy = vec![0.0; g.rows * g.out_elements()];
    let got = run(&g, &x, &kernel, None, &dy);
    let mut touched = vec![false; got.y.len()];
    for (_, _, o) in products(&g).filter(|&(i, _, _)| i == hole) {
        touched[o] = true;
    }
    assert_eq!(
        got.y.iter().map(|y| y.is_nan()).collect::<Vec<_>>(),
        touched
    );
    assert!(touched.contains(&true) && touched.contains(&false));
}

#[test]
fn same_pads_the_smaller_half_first() {
    assert_eq!(Padding::Same.extent(7, 3, 1), Some((7, 1)));
    assert_eq!(Padding::Same.extent(6, 2, 1), Some((6, 0)));
    assert_eq!(Padding::Same.extent(6, 3, 2), Some((3, 0)));
    assert_eq!(Padding::Same.extent(7, 3, 2), Some((4, 1)));
    assert_eq!(Padding::Valid.extent(7, 3, 2), Some((3, 0)));
    assert_eq!(Padding::Valid.extent(2, 3, 1), None);
}

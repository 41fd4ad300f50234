//! Convolutions: against sums in `f64`, against the CPU, and bits against bits.

use ringstep::backend::cpu::Cpu;
use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Accumulate, Activation, ConvGeometry, Convolution, Convolve, Padding};

use crate::matmul::ACTIVATIONS;
use crate::twins::{
    F32_ERROR, assert_close, assert_same_bits, cuda, download, for_random_sizes, normals, upload,
};

/// What the three calls are given.
#[derive(Clone)]
pub(crate) struct Inputs {
    pub(crate) x: Vec<f32>,
    pub(crate) kernel: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) dy: Vec<f32>,
    /// What the gradient of the kernel is added to.
    pub(crate) gradient: Option<Vec<f32>>,
}

impl Inputs {
    pub(crate) fn new(g: &ConvGeometry, seed: u64) -> Self {
        Self {
            x: normals(seed, g.rows * g.in_elements()),
            kernel: normals(seed + 1, g.kernel_elements()),
            bias: Some(normals(seed + 2, g.out_channels)),
            dy: normals(seed + 3, g.rows * g.out_elements()),
            gradient: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outputs {
    y: Vec<f32>,
    dkernel: Vec<f32>,
    dx: Vec<f32>,
}

impl Outputs {
    pub(crate) fn assert_same_bits(&self, other: &Self) {
        assert_same_bits(&self.y, &other.y);
        assert_same_bits(&self.dkernel, &other.dkernel);
        assert_same_bits(&self.dx, &other.dx);
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    /// With this activation.
    Forward(Activation),
    BackwardKernel,
    BackwardInput,
}

impl Call {
    /// What the call computes, on views that start at element `offset` of their buffers.
    pub(crate) fn run<B: Convolve>(
        self,
        backend: &mut B,
        g: &ConvGeometry,
        inputs: &Inputs,
        offset: usize,
    ) -> Vec<f32> {
        let moved = |values: &[f32]| [&vec![f32::NAN; offset], values].concat();
        let x = upload(backend, &moved(&inputs.x));
        let kernel = upload(backend, &moved(&inputs.kernel));
        let dy = upload(backend, &moved(&inputs.dy));
        let bias = inputs.bias.as_deref();
        let bias = bias.map(|bias| upload(backend, &moved(bias)));
        let view = |buffer| {
            let whole = B::view(buffer);
            B::slice(whole, offset..B::len(whole))
        };
        let (x, kernel, dy, bias) = (view(&x), view(&kernel), view(&dy), bias.as_ref().map(view));
        let workspace = backend.convolution_workspace(g);
        let mut workspace = upload(backend, &vec![f32::NAN; workspace]);
        let workspace = B::view_mut(&mut workspace);
        let mut write = Accumulate::Set;
        let before = match self {
            Self::Forward(_) => vec![f32::NAN; inputs.dy.len()],
            Self::BackwardInput => vec![f32::NAN; inputs.x.len()],
            Self::BackwardKernel => match &inputs.gradient {
                Some(gradient) => {
                    write = Accumulate::Add;
                    gradient.clone()
                }
                None => vec![f32::NAN; inputs.kernel.len()],
            },
        };
        let mut output = upload(backend, &moved(&before));
        let to = B::slice_mut(B::view_mut(&mut output), offset..offset + before.len());
        match self {
            Self::Forward(activation) => {
                let tensors = Convolution { x, kernel, bias };
                backend.convolve(g, activation, tensors, to, workspace);
            }
            Self::BackwardKernel => {
                backend.convolve_backward_kernel(g, x, dy, to, write, workspace);
            }
            Self::BackwardInput => backend.convolve_backward_input(g, kernel, dy, to, workspace),
        }
        let output = download(backend, &output);
        backend.synchronize().unwrap();
        let (before, output) = output.split_at(offset);
        assert!(before.iter().all(|x| x.is_nan()), "written before the view");
        output.to_vec()
    }
}

pub(crate) fn run<B: Convolve>(
    backend: &mut B,
    g: &ConvGeometry,
    inputs: &Inputs,
    offset: usize,
) -> Outputs {
    let linear = Call::Forward(Activation::Linear);
    Outputs {
        y: linear.run(backend, g, inputs, offset),
        dkernel: Call::BackwardKernel.run(backend, g, inputs, offset),
        dx: Call::BackwardInput.run(backend, g, inputs, offset),
    }
}

/// `(x, kernel, y)` places that belong together, once for every product of a convolution.
fn for_each_product(g: &ConvGeometry, mut body: impl FnMut(usize, usize, usize)) {
    for place in 0..g.rows * g.out_height * g.out_width {
        let (line, column) = (place / g.out_width, place % g.out_width);
        let (image, row) = (line / g.out_height, line % g.out_height);
        for tap in 0..g.kernel_height * g.kernel_width {
            let (i, j) = (tap / g.kernel_width, tap % g.kernel_width);
            let h = (row * g.stride_height + i).wrapping_sub(g.pad_top);
            let w = (column * g.stride_width + j).wrapping_sub(g.pad_left);
            if h >= g.in_height || w >= g.in_width {
                continue;
            }
            let from = ((image * g.in_height + h) * g.in_width + w) * g.in_channels;
            for channel in 0..g.in_channels {
                let weights = (tap * g.in_channels + channel) * g.out_channels;
                for filter in 0..g.out_channels {
                    body(
                        from + channel,
                        weights + filter,
                        place * g.out_channels + filter,
                    );
                }
            }
        }
    }
}

/// All three, summed in `f64`.
pub(crate) fn reference(g: &ConvGeometry, inputs: &Inputs) -> Outputs {
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| x.into()).collect() };
    let (x, kernel, dy) = (wide(&inputs.x), wide(&inputs.kernel), wide(&inputs.dy));
    let places = dy.len() / g.out_channels;
    let bias = inputs.bias.as_deref().map(wide);
    let mut y = bias.map_or(vec![0.0; dy.len()], |bias| bias.repeat(places));
    let gradient = inputs.gradient.as_deref().map(wide);
    let mut dkernel = gradient.unwrap_or(vec![0.0; kernel.len()]);
    let mut dx = vec![0.0; x.len()];
    for_each_product(g, |i, k, o| {
        y[o] += x[i] * kernel[k];
        dkernel[k] += x[i] * dy[o];
        dx[i] += dy[o] * kernel[k];
    });
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    Outputs {
        y: narrow(y),
        dkernel: narrow(dkernel),
        dx: narrow(dx),
    }
}

#[track_caller]
pub(crate) fn assert_all_close(expected: &Outputs, actual: &Outputs, error: f64) {
    assert_close(&expected.y, &actual.y, error);
    assert_close(&expected.dkernel, &actual.dkernel, error);
    assert_close(&expected.dx, &actual.dx, error);
}

/// Against `f64` and against the CPU, with aligned views and with odd ones.
fn check(cuda: &mut Cuda, g: &ConvGeometry, inputs: &Inputs) {
    let mut cpu = Cpu::new();
    let aligned = run(cuda, g, inputs, 0);
    assert_all_close(&reference(g, inputs), &aligned, F32_ERROR);
    assert_all_close(&run(&mut cpu, g, inputs, 0), &aligned, F32_ERROR);
    let odd = run(cuda, g, inputs, 1);
    aligned.assert_same_bits(&odd);
}

const WINDOWS: [[usize; 2]; 4] = [[1, 1], [3, 3], [5, 5], [2, 3]];
const STRIDES: [[usize; 2]; 3] = [[1, 1], [2, 2], [2, 1]];

#[test]
fn every_window_stride_and_padding() {
    let mut cuda = cuda();
    let channels = [1, 3, 4, 17, 32];
    let mut case = 0;
    for window in WINDOWS {
        for strides in STRIDES {
            for padding in [Padding::Valid, Padding::Same] {
                for (i, from) in channels.into_iter().enumerate() {
                    // Other pairs each time.
                    let to = channels[(i + case) % 5];
                    let (rows, image) = ([1, 3][case % 2], [7, 5, from]);
                    let g = ConvGeometry::new(rows, image, to, window, strides, padding).unwrap();
                    let mut inputs = Inputs::new(&g, case as u64);
                    if case % 3 == 0 {
                        inputs.bias = None;
                        inputs.gradient = Some(normals(77, g.kernel_elements()));
                    }
                    check(&mut cuda, &g, &inputs);
                }
                case += 1;
            }
        }
    }
}

#[test]
fn random_windows_strides_images_and_channels() {
    let mut cuda = cuda();
    let most = [3, 7, 7, 20, 40, 4, 4, 3, 3];
    for_random_sizes(4, 6, most, |[rows, h, w, from, to, i, j, down, right]| {
        // An image that the window fits into.
        let (image, window, strides) = ([h + i - 1, w + j - 1, from], [i, j], [down, right]);
        for padding in [Padding::Valid, Padding::Same] {
            let g = ConvGeometry::new(rows, image, to, window, strides, padding).unwrap();
            check(&mut cuda, &g, &Inputs::new(&g, 3));
        }
    });
}

#[test]
fn windows_in_quads_of_any_number_of_channels() {
    let mut cuda = cuda();
    for (image, window, strides) in [
        // Every window's row starts at a quad, and has whole ones.
        ([8, 12, 3], [4, 4], [4, 4]),
        // All but the distance of windows, of rows of the image, and the first window's place.
        ([5, 12, 1], [2, 4], [2, 3]),
        ([5, 13, 1], [2, 4], [2, 4]),
        ([5, 8, 1], [2, 8], [2, 4]),
    ] {
        for padding in [Padding::Valid, Padding::Same] {
            let g = ConvGeometry::new(2, image, 6, window, strides, padding).unwrap();
            check(&mut cuda, &g, &Inputs::new(&g, 3));
        }
    }
}

#[test]
fn strides_that_pass_over_rows_of_the_image() {
    let mut cuda = cuda();
    for (window, strides) in [([1, 1], [3, 2]), ([2, 1], [3, 3]), ([2, 2], [9, 9])] {
        for padding in [Padding::Valid, Padding::Same] {
            let g = ConvGeometry::new(2, [8, 7, 4], 5, window, strides, padding).unwrap();
            check(&mut cuda, &g, &Inputs::new(&g, 5));
        }
    }
}

#[test]
fn sums_in_slices() {
    // More than 256 terms each: 288 of a window, 270 of the images, 288 of the kernel.
    let mut cuda = cuda();
    for (strides, padding) in [([1, 1], Padding::Same), ([2, 1], Padding::Valid)] {
        let g = ConvGeometry::new(3, [10, 9, 32], 32, [3, 3], strides, padding).unwrap();
        let mut inputs = Inputs::new(&g, 9);
        inputs.gradient = Some(normals(5, g.kernel_elements()));
        check(&mut cuda, &g, &inputs);
    }
    let g = ConvGeometry::new(1, [5, 5, 33], 130, [3, 3], [2, 2], Padding::Same).unwrap();
    check(&mut cuda, &g, &Inputs::new(&g, 11));
}

#[test]
fn no_images() {
    let mut cuda = cuda();
    let g = ConvGeometry::new(0, [5, 5, 3], 4, [3, 3], [1, 1], Padding::Same).unwrap();
    let mut inputs = Inputs::new(&g, 1);
    let outputs = run(&mut cuda, &g, &inputs, 0);
    assert!(outputs.y.is_empty() && outputs.dx.is_empty());
    assert!(outputs.dkernel.iter().all(|&x| x == 0.0));
    let gradient = normals(2, g.kernel_elements());
    inputs.gradient = Some(gradient.clone());
    let outputs = run(&mut cuda, &g, &inputs, 0);
    assert_same_bits(&gradient, &outputs.dkernel);
}

#[test]
fn every_tile() {
    let (mut cpu, mut cuda) = (Cpu::new(), cuda());
    // The extents of C for which each tile is the quickest; six terms for each sum.
    for [m, n] in [[1403, 1533], [16_893, 29], [701, 637]] {
        for (call, image, filters, window) in [
            (Call::Forward(Activation::Relu), [m, 1, 2], n, [3, 1]),
            (Call::BackwardInput, [m, 1, n], 2, [3, 1]),
            (Call::BackwardKernel, [2, 3, m], n, [1, 1]),
        ] {
            let g = ConvGeometry::new(1, image, filters, window, [1, 1], Padding::Same).unwrap();
            let inputs = Inputs::new(&g, 3);
            let expected = call.run(&mut cpu, &g, &inputs, 0);
            let actual = call.run(&mut cuda, &g, &inputs, 0);
            assert_close(&expected, &actual, F32_ERROR);
        }
    }
}

#[test]
fn a_bias_and_every_activation() {
    let mut cpu = Cpu::new();
    let mut cuda = cuda();
    // In one piece and in slices, with quads and without.
    for (channels, filters) in [(3, 8), (32, 5)] {
        let image = [5, 6, channels];
        let g = ConvGeometry::new(2, image, filters, [3, 3], [1, 1], Padding::Same).unwrap();
        let mut inputs = Inputs::new(&g, 21);
        inputs.x.iter_mut().for_each(|x| *x *= 0.1);
        for activation in ACTIVATIONS {
            for bias in [inputs.bias.clone(), None] {
                let inputs = Inputs {
                    bias,
                    ..inputs.clone()
                };
                let call = Call::Forward(activation);
                let on_cpu = call.run(&mut cpu, &g, &inputs, 0);
                let on_cuda = call.run(&mut cuda, &g, &inputs, 0);
                assert_close(&on_cpu, &on_cuda, F32_ERROR);
            }
        }
    }
}

/// Which elements are NaN.
fn poisoned(values: &[f32]) -> Vec<bool> {
    values.iter().map(|x| x.is_nan()).collect()
}

#[test]
fn a_nan_reaches_every_output_it_takes_part_in() {
    let (mut cpu, mut cuda) = (Cpu::new(), cuda());
    for strides in STRIDES {
        let g = ConvGeometry::new(2, [6, 7, 3], 5, [3, 3], strides, Padding::Same).unwrap();
        // Zeros do not hide it.
        let zeros = Inputs {
            x: vec![0.0; g.rows * g.in_elements()],
            kernel: vec![0.0; g.kernel_elements()],
            bias: None,
            dy: vec![0.0; g.rows * g.out_elements()],
            gradient: None,
        };
        for hole in [0, g.in_elements() + 40, zeros.x.len() - 1] {
            let mut inputs = zeros.clone();
            inputs.x[hole] = f32::NAN;
            let outputs = run(&mut cuda, &g, &inputs, 0);
            let mut y = vec![false; zeros.dy.len()];
            let mut dkernel = vec![false; zeros.kernel.len()];
            for_each_product(&g, |i, k, o| {
                y[o] |= i == hole;
                dkernel[k] |= i == hole;
            });
            assert_eq!(poisoned(&outputs.y), y);
            assert_eq!(poisoned(&outputs.dkernel), dkernel);
            assert!(!poisoned(&outputs.dx).contains(&true));
        }
        for hole in [0, g.out_elements() + 1, zeros.dy.len() - 1] {
            let mut inputs = zeros.clone();
            inputs.dy[hole] = f32::NAN;
            let outputs = run(&mut cuda, &g, &inputs, 0);
            let mut dx = vec![false; zeros.x.len()];
            for_each_product(&g, |i, _, o| dx[i] |= o == hole);
            assert_eq!(poisoned(&outputs.dx), dx);
            // Where a window reaches over the border, it meets the zeros there too, as on the CPU.
            let twin = run(&mut cpu, &g, &inputs, 0);
            assert_eq!(poisoned(&outputs.dkernel), poisoned(&twin.dkernel));
            assert!(
                outputs.dkernel[hole % 5..]
                    .iter()
                    .step_by(5)
                    .all(|x| x.is_nan())
            );
        }
        let mut inputs = zeros.clone();
        let hole = 4 * 15 + 2;
        inputs.kernel[hole] = f32::NAN;
        let outputs = run(&mut cuda, &g, &inputs, 0);
        let (y, dx) = (poisoned(&outputs.y), poisoned(&outputs.dx));
        for_each_product(&g, |i, k, o| assert!(k != hole || y[o] && dx[i]));
        let twin = run(&mut cpu, &g, &inputs, 0);
        assert_eq!(y, poisoned(&twin.y));
    }
}

#[test]
fn an_image_gives_the_same_bits_wherever_it_stands() {
    let mut cuda = cuda();
    let linear = Call::Forward(Activation::Linear);
    // Three slices, which blocks of their own sum where there are few images, and one where there
    // are many.
    for (call, rows, channels, filters) in [
        (linear, 33, 60, 8),
        (linear, 5, 3, 20),
        (Call::BackwardInput, 33, 8, 60),
        (Call::BackwardInput, 5, 20, 3),
    ] {
        let image = [16, 16, channels];
        let g = ConvGeometry::new(rows, image, filters, [3, 3], [1, 1], Padding::Same).unwrap();
        let inputs = Inputs::new(&g, 31);
        let all = call.run(&mut cuda, &g, &inputs, 0);
        let image = all.len() / rows;
        for (first, rows) in [(0, 1), (rows - 3, 2), (rows - 1, 1)] {
            let few = ConvGeometry { rows, ..g };
            let part = |values: &[f32], each| values[first * each..][..rows * each].to_vec();
            let inputs = Inputs {
                x: part(&inputs.x, g.in_elements()),
                dy: part(&inputs.dy, g.out_elements()),
                ..inputs.clone()
            };
            let alone = call.run(&mut cuda, &few, &inputs, 1);
            assert_same_bits(&part(&all, image), &alone);
        }
    }
}

//! Two-dimensional convolution, channels last, as products that read images where they lie.

mod windows;

use bytemuck::Zeroable;

use self::windows::{PHASES, Phase, input_windows, phases};
use super::kernels::Kernel;
use super::product::{Output, Plan, Product, Slices, TABLE_ELEMENTS, is_wide};
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Activation, ConvGeometry, Convolution, Convolve};

const FORWARD: [Kernel; 4] = [
    Kernel::ConvolveLarge,
    Kernel::ConvolveTall,
    Kernel::ConvolveMedium,
    Kernel::ConvolveSmall,
];

const BACKWARD_INPUT: [Kernel; 4] = [
    Kernel::ConvolveBackwardInputLarge,
    Kernel::ConvolveBackwardInputTall,
    Kernel::ConvolveBackwardInputMedium,
    Kernel::ConvolveBackwardInputSmall,
];

const BACKWARD_KERNEL: [Kernel; 4] = [
    Kernel::ConvolveBackwardKernelLarge,
    Kernel::ConvolveBackwardKernelTall,
    Kernel::ConvolveBackwardKernelMedium,
    Kernel::ConvolveBackwardKernelSmall,
];

impl Convolve for Cuda {
    /// None: slices have their tables in the device's own scratch memory.
    fn convolution_workspace(&self, _geometry: &ConvGeometry) -> usize {
        0
    }

    fn convolve(
        &mut self,
        geometry: &ConvGeometry,
        activation: Activation,
        Convolution { x, kernel, bias }: Convolution<'_, Self>,
        y: ViewMut<'_, f32>,
        _workspace: ViewMut<'_, f32>,
    ) {
        let g = geometry;
        check(g, x.len, kernel.len, y.len);
        assert!(
            bias.is_none_or(|bias| bias.len == g.out_channels),
            "convolution: length of the bias differs from {g:?}"
        );
        let [m, n, k] = [places(g), g.out_channels, terms(g)];
        let slices = Slices::of(k, self.precision);
        let plan = Plan::of(m, n, slices.count, self.precision);
        let (windows, run) = input_windows(g);
        let wide = [
            windows.are_wide(x, run),
            is_wide(kernel.pointer, g.out_channels),
        ];
        let output = Output {
            c: y,
            columns: n,
            bias,
            write: Accumulate::Set,
            activation,
        };
        self.write_sums(plan, slices, output, |target| {
            let product = Product::new([m, n, k], slices, wide, &target);
            let arguments = [
                (&product).into(),
                (&windows).into(),
                (&run).into(),
                (&x).into(),
                (&kernel).into(),
                (&target.bias).into(),
                (&target.c).into(),
            ];
            let grid = plan.grid(m, n, slices.count);
            self.launch(plan.tile.choose(FORWARD), grid, &arguments);
        });
    }

    fn convolve_backward_kernel(
        &mut self,
        geometry: &ConvGeometry,
        x: View<'_, f32>,
        dy: View<'_, f32>,
        dkernel: ViewMut<'_, f32>,
        write: Accumulate,
        _workspace: ViewMut<'_, f32>,
    ) {
        let g = geometry;
        check(g, x.len, dkernel.len, dy.len);
        let [m, n, k] = [terms(g), g.out_channels, places(g)];
        // So few that their tables have room, and can be summed by blocks of their own: where
        // sums are few and long, most multiprocessors would otherwise idle.
        let slices = Slices::at_most(TABLE_ELEMENTS / (m * n).max(1), k, self.precision);
        let plan = Plan::of(m, n, slices.count, self.precision);
        let (windows, run) = input_windows(g);
        let wide = [
            windows.are_wide(x, run),
            is_wide(dy.pointer, g.out_channels),
        ];
        let output = Output {
            c: dkernel,
            columns: n,
            bias: None,
            write,
            activation: Activation::Linear,
        };
        self.write_sums(plan, slices, output, |target| {
            let product = Product::new([m, n, k], slices, wide, &target);
            let arguments = [
                (&product).into(),
                (&windows).into(),
                (&run).into(),
                (&x).into(),
                (&dy).into(),
                (&target.c).into(),
            ];
            let grid = plan.grid(m, n, slices.count);
            self.launch(plan.tile.choose(BACKWARD_KERNEL), grid, &arguments);
        });
    }

    fn convolve_backward_input(
        &mut self,
        geometry: &ConvGeometry,
        kernel: View<'_, f32>,
        dy: View<'_, f32>,
        dx: ViewMut<'_, f32>,
        _workspace: ViewMut<'_, f32>,
    ) {
        let g = geometry;
        check(g, dx.len, kernel.len, dy.len);
        let n = g.in_channels;
        // No phase has more places or more terms.
        let places = g.rows * g.in_height.div_ceil(g.stride_height);
        let places = places * g.in_width.div_ceil(g.stride_width);
        let met = g.kernel_height.div_ceil(g.stride_height);
        let met = met * g.kernel_width.div_ceil(g.stride_width);
        let slices = Slices::of(met * g.out_channels, self.precision);
        let mut phases = phases(g);
        let mut left = g.stride_height.min(g.in_height) * g.stride_width.min(g.in_width);
        let plan = Plan::of(left * places, n, slices.count, self.precision);
        let wide = [dy, kernel].map(|view| is_wide(view.pointer, g.out_channels));
        let output = Output {
            c: dx,
            columns: n,
            bias: None,
            write: Accumulate::Set,
            activation: Activation::Linear,
        };
        self.write_sums(plan, slices, output, |target| {
            // Each phase has its own number of places and terms.
            let product = Product::new([0, n, 0], slices, wide, &target);
            while left > 0 {
                let batch: [Phase; PHASES] =
                    std::array::from_fn(|_| phases.next().unwrap_or(Phase::zeroed()));
                let arguments = [
                    (&product).into(),
                    (&batch).into(),
                    (&dy).into(),
                    (&kernel).into(),
                    (&target.c).into(),
                ];
                let mut grid = plan.grid(places, n, slices.count);
                grid.blocks[2] = left.min(PHASES) as u32;
                self.launch(plan.tile.choose(BACKWARD_INPUT), grid, &arguments);
                left -= left.min(PHASES);
            }
        });
    }
}

fn check(g: &ConvGeometry, x: usize, kernel: usize, y: usize) {
    assert_eq!(
        (x, kernel, y),
        (
            g.rows * g.in_elements(),
            g.kernel_elements(),
            g.rows * g.out_elements()
        ),
        "convolution: lengths of input, kernel and output differ from {g:?}"
    );
    // Kernels count these in 32 bits, with room for what lies outside of an image.
    let counted = [
        places(g),
        g.rows * g.in_height * g.in_width,
        g.kernel_height * g.in_width * g.in_channels,
        g.kernel_height * g.out_width * g.out_channels,
        g.kernel_elements(),
    ];
    assert!(
        counted.iter().all(|&count| count < 1 << 29),
        "convolution: {g:?} has 2^29 places or weights, or more; use a smaller micro_batch or kernel"
    );
}

/// Windows of all images.
fn places(g: &ConvGeometry) -> usize {
    g.rows * g.out_height * g.out_width
}

/// Elements of a window.
fn terms(g: &ConvGeometry) -> usize {
    g.kernel_height * g.kernel_width * g.in_channels
}

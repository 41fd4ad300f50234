//! Matrix products, the heart of dense and convolution layers.

use super::device::SCRATCH_BYTES;
use super::kernels::Kernel;
use super::launch::Grid;
use super::product::{Finish, Fold, Plan, Slices, is_bias_wide, is_wide};
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Activation, Form, Matmul, MatmulShape};

impl Matmul for Cuda {
    fn matmul(
        &mut self,
        shape: MatmulShape,
        a: View<'_, f32>,
        b: View<'_, f32>,
        c: ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        self.multiply(shape, (a, b), None, (write, Activation::Linear), c);
    }

    fn matmul_bias_activation(
        &mut self,
        shape: MatmulShape,
        a: View<'_, f32>,
        b: View<'_, f32>,
        bias: Option<View<'_, f32>>,
        activation: Activation,
        c: ViewMut<'_, f32>,
    ) {
        self.multiply(shape, (a, b), bias, (Accumulate::Set, activation), c);
    }
}

/// `Product` of `matmul.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    slice: usize,
    wide_a: u32,
    wide_b: u32,
    is_split: u32,
    finish: Finish,
    unused: u32,
}

impl Cuda {
    fn multiply(
        &self,
        shape: MatmulShape,
        (a, b): (View<'_, f32>, View<'_, f32>),
        bias: Option<View<'_, f32>>,
        (write, activation): (Accumulate, Activation),
        c: ViewMut<'_, f32>,
    ) {
        let MatmulShape { form, m, n, k } = shape;
        assert_eq!(
            (a.len, b.len, c.len),
            (m * k, k * n, m * n),
            "matmul: lengths of a, b and c differ from {shape:?}"
        );
        assert!(
            bias.is_none_or(|bias| bias.len == n),
            "matmul: length of the bias differs from {shape:?}"
        );
        let slices = Slices::of(k);
        let plan = Plan::of(m, n, slices.count, SCRATCH_BYTES / size_of::<f32>());
        let wide_c = is_wide(c.pointer, n) && is_bias_wide(bias);
        let finish = Finish::new(write, activation, wide_c);
        let (a_row, b_row) = match form {
            Form::NN => (k, n),
            Form::NT => (k, k),
            Form::TN => (m, n),
        };
        let product = Product {
            m,
            n,
            k,
            slice: slices.terms,
            wide_a: is_wide(a.pointer, a_row).into(),
            wide_b: is_wide(b.pointer, b_row).into(),
            is_split: plan.is_split.into(),
            finish: if plan.is_split {
                Finish::of_slice(n.is_multiple_of(4))
            } else {
                finish
            },
            unused: 0,
        };
        let kernel = plan.tile.choose(kernels(form));
        let grid = plan.grid(m, n, slices.count);
        let bias = View::or_null(bias);
        if !plan.is_split {
            let arguments = [
                (&product).into(),
                (&a).into(),
                (&b).into(),
                (&bias).into(),
                (&c).into(),
            ];
            return self.launch(kernel, grid, &arguments);
        }
        let tables = self.scratch::<f32>(slices.count * m * n);
        let none = View::<f32>::or_null(None);
        let arguments = [
            (&product).into(),
            (&a).into(),
            (&b).into(),
            (&none).into(),
            (&tables).into(),
        ];
        self.launch(kernel, grid, &arguments);
        let fold = Fold {
            len: m * n,
            columns: n,
            slices: slices.count,
            finish,
        };
        let arguments = [
            (&fold).into(),
            (&tables).into(),
            (&bias).into(),
            (&c).into(),
        ];
        self.launch(Kernel::MatmulFold, Grid::elements(m * n), &arguments);
    }
}

/// A form's kernels, as [`super::product::Tile::choose`] wants them.
fn kernels(form: Form) -> [Kernel; 4] {
    match form {
        Form::NN => [
            Kernel::MatmulNnLarge,
            Kernel::MatmulNnTall,
            Kernel::MatmulNnMedium,
            Kernel::MatmulNnSmall,
        ],
        Form::NT => [
            Kernel::MatmulNtLarge,
            Kernel::MatmulNtTall,
            Kernel::MatmulNtMedium,
            Kernel::MatmulNtSmall,
        ],
        Form::TN => [
            Kernel::MatmulTnLarge,
            Kernel::MatmulTnTall,
            Kernel::MatmulTnMedium,
            Kernel::MatmulTnSmall,
        ],
    }
}

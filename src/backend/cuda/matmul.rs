//! Matrix products, the heart of dense and convolution layers.

use super::kernels::Kernel;
use super::product::{Output, Plan, Product, Slices, is_wide};
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Activation, Form, Matmul, MatmulCall, MatmulShape};

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

impl Cuda {
    pub(super) fn multiply(
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
        let call = MatmulCall {
            shape,
            write,
            bias: bias.is_some(),
            activation,
        };
        if self.multiply_by_library(call, (a, b), bias, &c) {
            return;
        }
        let output = Output {
            c,
            columns: n,
            bias,
            write,
            activation,
        };
        if let Some(multiplier) = self.takes_packed(k) {
            return self.multiply_packed(multiplier, shape, (a, b), output);
        }
        let slices = Slices::of(k, self.precision);
        let plan = Plan::of(m, n, slices.count, self.precision);
        let (a_row, b_row) = match form {
            Form::NN => (k, n),
            Form::NT => (k, k),
            Form::TN => (m, n),
        };
        let wide = [is_wide(a.pointer, a_row), is_wide(b.pointer, b_row)];
        self.write_sums(plan, slices, output, |target| {
            let product = Product::new([m, n, k], slices, wide, &target);
            let arguments = [
                (&product).into(),
                (&a).into(),
                (&b).into(),
                (&target.bias).into(),
                (&target.c).into(),
            ];
            let kernel = plan.tile.choose(kernels(form));
            self.launch(kernel, plan.grid(m, n, slices.count), &arguments);
        });
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

//! Products with a bias and an activation, and convolution.

use ringstep::backend::cpu::{Cpu, InstructionSet};
use ringstep::backend::{
    Accumulate, Activation, ConvGeometry, Convolution, Convolve, Form, Matmul, MatmulShape,
    Padding, Precision,
};

use super::*;

#[test]
fn of_products_with_bias_and_activation() {
    let (n, k) = (37, 50);
    for precision in Precision::ALL {
        for form in [Form::NN, Form::NT] {
            for activation in [Activation::Relu, Activation::Tanh] {
                assert_same_bits_in(
                    precision,
                    &format!("matmul_bias_activation, {form:?}, {activation:?}"),
                    [rows(k, 1), shared(k * n, 2), shared(n, 3)],
                    [rows(n, 4), rows(n, 5)],
                    |cpu, _, [a, b, bias], [plain, biased]| {
                        let m = a.len() / k;
                        let shape = MatmulShape { form, m, n, k };
                        cpu.matmul_bias_activation(shape, a, b, None, activation, plain);
                        cpu.matmul_bias_activation(shape, a, b, Some(bias), activation, biased);
                    },
                );
            }
        }
    }
}

#[test]
fn of_products_transposed() {
    let (n, k) = (37, 50);
    for precision in Precision::ALL {
        assert_same_bits_in(
            precision,
            "matmul, TN",
            [shared(k * ROWS, 1), shared(k * n, 2)],
            [shared(ROWS * n, 3)],
            |cpu, _, [a, b], [c]| cpu.matmul(MatmulShape::tn(ROWS, n, k), a, b, c, Accumulate::Add),
        );
    }
}

#[test]
fn of_convolution() {
    for precision in Precision::ALL {
        of_convolution_in(precision);
    }
}

fn of_convolution_in(precision: Precision) {
    for (channels, filters, strides, padding) in [
        (1, 5, [1, 1], Padding::Valid),
        (2, 17, [1, 1], Padding::Same),
        (3, 4, [2, 1], Padding::Same),
    ] {
        let geometry = |count| {
            ConvGeometry::new(count, [4, 5, channels], filters, [3, 2], strides, padding).unwrap()
        };
        let one = geometry(1);
        let (image, outputs) = (one.in_elements(), one.out_elements());
        let kernel = |seed| shared(one.kernel_elements(), seed);
        let workspace = || mapped(scratch(shared(workspace(&geometry(ROWS)), 9)), |_| f32::NAN);
        let name = format!("{channels} to {filters} channels, strides {strides:?}, {padding:?}");

        for (bias, activation) in [(false, Activation::Linear), (true, Activation::Relu)] {
            assert_same_bits_in(
                precision,
                &format!("convolve, {name}, {activation:?}"),
                [rows(image, 1), kernel(2), shared(filters, 3)],
                [rows(outputs, 4), workspace()],
                |cpu, _, [x, kernel, biases], [y, workspace]| {
                    let geometry = geometry(x.len() / image);
                    let bias = bias.then_some(biases);
                    let tensors = Convolution { x, kernel, bias };
                    cpu.convolve(&geometry, activation, tensors, y, workspace);
                },
            );
        }
        for write in [Accumulate::Set, Accumulate::Add] {
            assert_same_bits_in(
                precision,
                &format!("convolve_backward_kernel, {name}, {write:?}"),
                [rows(image, 1), rows(outputs, 2)],
                [kernel(3), workspace()],
                |cpu, _, [x, dy], [dkernel, workspace]| {
                    let geometry = geometry(x.len() / image);
                    cpu.convolve_backward_kernel(&geometry, x, dy, dkernel, write, workspace);
                },
            );
        }
        assert_same_bits_in(
            precision,
            &format!("convolve_backward_input, {name}"),
            [kernel(1), rows(outputs, 2)],
            [rows(image, 3), workspace()],
            |cpu, _, [kernel, dy], [dx, workspace]| {
                let geometry = geometry(dy.len() / outputs);
                cpu.convolve_backward_input(&geometry, kernel, dy, dx, workspace);
            },
        );
    }
}

/// As much scratch memory as any instruction set needs.
fn workspace(geometry: &ConvGeometry) -> usize {
    let backends = InstructionSet::ALL
        .into_iter()
        .filter_map(Cpu::with_instructions);
    let needs = backends.flat_map(|cpu| {
        Precision::ALL.map(|precision| {
            cpu.with_precision(precision)
                .convolution_workspace(geometry)
        })
    });
    needs.max().unwrap()
}

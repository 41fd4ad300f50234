//! The kernels: sums in f64 of operands that other software rounded, and the bits of f32 kernels on them.

use ringstep::backend::cpu::{Cpu, InstructionSet};
use ringstep::backend::{
    Accumulate, Activation, ConvGeometry, Form, Matmul, MatmulShape, Padding, Precision,
};

use super::{ROUNDING, rounded};
use crate::convolution::{assert_near, numbers, run_on};

fn backends() -> impl Iterator<Item = Cpu> {
    InstructionSet::ALL
        .into_iter()
        .filter_map(Cpu::with_instructions)
}

fn all_rounded(precision: Precision, values: &[f32]) -> Vec<f32> {
    let round = |&value: &f32| rounded(precision, value);
    values.iter().map(round).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Set, added, and with bias and relu.
fn multiply(mut cpu: Cpu, shape: MatmulShape, a: &[f32], b: &[f32], c: &[f32]) -> [Vec<f32>; 3] {
    let [mut set, mut added, mut relu] = [(); 3].map(|()| c.to_vec());
    let bias = &c[..shape.n];
    cpu.matmul(shape, a, b, &mut set, Accumulate::Set);
    cpu.matmul(shape, a, b, &mut added, Accumulate::Add);
    cpu.matmul_bias_activation(shape, a, b, Some(bias), Activation::Relu, &mut relu);
    [set, added, relu]
}

#[test]
fn products_are_sums_of_rounded_operands() {
    let shapes = [
        (1, 1, 1),
        (2, 70, 3),
        (70, 2, 9),
        (17, 33, 8),
        (64, 48, 64),
        (5, 300, 513),
        (300, 5, 800),
        // More columns than are packed together.
        (3, 700, 400),
        (40, 900, 170),
    ];
    for (seed, (m, n, k)) in shapes.into_iter().enumerate() {
        for form in [Form::NN, Form::NT, Form::TN] {
            let shape = MatmulShape { form, m, n, k };
            let seed = seed as u32 * 3;
            let (a, b) = (numbers(m * k, seed), numbers(k * n, seed + 1));
            let c = numbers(m * n, seed + 2);
            for precision in ROUNDING {
                let (a_rounded, b_rounded) =
                    (all_rounded(precision, &a), all_rounded(precision, &b));
                let plain = multiply(Cpu::new(), shape, &a_rounded, &b_rounded, &c);
                for cpu in backends() {
                    let cpu = cpu.with_precision(precision);
                    let got = multiply(cpu, shape, &a, &b, &c);
                    let what = format!("{cpu:?} {shape:?}");
                    assert_eq!(
                        got.each_ref().map(|x| bits(x)),
                        plain.each_ref().map(|x| bits(x)),
                        "{what}"
                    );
                    for place in (0..m * n).step_by(1 + m * n / 500) {
                        let (i, j) = (place / n, place % n);
                        let term = |p: usize| {
                            let left = match form {
                                Form::TN => a_rounded[p * m + i],
                                Form::NN | Form::NT => a_rounded[i * k + p],
                            };
                            let right = match form {
                                Form::NT => b_rounded[j * k + p],
                                Form::NN | Form::TN => b_rounded[p * n + j],
                            };
                            f64::from(left) * f64::from(right)
                        };
                        let sum: f64 = (0..k).map(term).sum();
                        let size: f64 = (0..k).map(|p| term(p).abs()).sum();
                        let error = (f64::from(got[0][place]) - sum).abs();
                        // Of sums in f32; operands that are not rounded are a thousand times as far.
                        assert!(
                            error <= 1e-6 * (size + 0.1),
                            "{what}: {error:e} of {size:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn convolutions_are_sums_of_rounded_operands() {
    for (rows, image, filters, strides, padding) in [
        (3, [7, 6, 3], 20, [1, 1], Padding::Same),
        (5, [5, 5, 20], 33, [2, 1], Padding::Valid),
        (0, [5, 5, 2], 3, [1, 1], Padding::Valid),
        // More than a block of lines in an image, one of images, many panels, a split panel.
        (2, [60, 40, 3], 33, [1, 1], Padding::Same),
        (9, [12, 12, 2], 130, [1, 1], Padding::Valid),
        (1, [5, 5, 700], 65, [1, 1], Padding::Valid),
    ] {
        let g = ConvGeometry::new(rows, image, filters, [3, 3], strides, padding).unwrap();
        let x = numbers(g.rows * g.in_elements(), 1);
        let kernel = numbers(g.kernel_elements(), 2);
        let bias = numbers(g.out_channels, 3);
        let dy = numbers(g.rows * g.out_elements(), 4);
        for precision in ROUNDING {
            let [x_rounded, kernel_rounded, dy_rounded] =
                [&x, &kernel, &dy].map(|values| all_rounded(precision, values));
            let rounded = (&x_rounded, &kernel_rounded, &dy_rounded);
            let plain = run_on(Cpu::new(), &g, rounded.0, rounded.1, Some(&bias), rounded.2);
            assert_near(&plain, &g, rounded.0, rounded.1, &bias, rounded.2);
            for cpu in backends() {
                let cpu = cpu.with_precision(precision);
                let got = run_on(cpu, &g, &x, &kernel, Some(&bias), &dy);
                assert_eq!(got, plain, "{cpu:?} {g:?}");
            }
        }
    }
}

#[test]
fn what_no_f16_can_hold_is_infinite_in_products() {
    for cpu in backends() {
        let mut cpu = cpu.with_precision(Precision::F16);
        for (value, expected) in [
            (65504.0, 65504.0),
            (65519.0, 65504.0),
            (65520.0, f32::INFINITY),
            (-1e9, f32::NEG_INFINITY),
            (2f32.powi(-25), 0.0),
            (1.5 * 2f32.powi(-25), 2f32.powi(-24)),
        ] {
            let (mut c, one) = ([0.0], [1.0]);
            cpu.matmul(
                MatmulShape::nn(1, 1, 1),
                &[value],
                &one,
                &mut c,
                Accumulate::Set,
            );
            assert_eq!(c, [expected]);
            cpu.matmul(
                MatmulShape::nn(1, 1, 1),
                &one,
                &[value],
                &mut c,
                Accumulate::Set,
            );
            assert_eq!(c, [expected]);
        }
    }
}

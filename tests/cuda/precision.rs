//! Products of rounded operands, by tensor cores: against sums in `f64`, and bits against bits.

use half::{bf16, f16};
use ringstep::backend::cpu::Cpu;
use ringstep::backend::cuda::{Capability, Cuda};
use ringstep::backend::{
    Accumulate, Activation, ConvGeometry, Form, Matmul, MatmulShape, Memory, Padding, Precision,
};

use crate::convolution::{Call, Inputs, assert_all_close, reference as convolved, run};
use crate::matmul::{ACTIVATIONS, FORMS, multiply, operands, reference};
use crate::twins::{
    F32_ERROR, alone, assert_close, assert_same_bits, cuda, download, for_random_sizes, normals,
    upload,
};

const ROUNDED: [Precision; 3] = [Precision::Tf32, Precision::Bf16, Precision::F16];

/// Those of them that the GPU at hand takes.
fn precisions() -> Vec<Precision> {
    let taken = cuda().capability().precisions();
    taken
        .filter(|precision| ROUNDED.contains(precision))
        .collect()
}

pub(crate) fn gpu(precision: Precision) -> Cuda {
    cuda().with_precision(precision).unwrap()
}

/// `x` as tensor cores are given it.
fn rounded(precision: Precision, x: f32) -> f32 {
    match precision {
        Precision::F32 => x,
        // Half of the last place that stays, added to the magnitude: ties go away from zero.
        Precision::Tf32 if x.is_finite() => f32::from_bits((x.to_bits() + 0x1000) & !0x1fff),
        Precision::Tf32 => x,
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
        Precision::F16 => f16::from_f32(x).to_f32(),
    }
}

pub(crate) fn all_rounded(precision: Precision, values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| rounded(precision, x)).collect()
}

/// Largest relative error against operands as they were.
fn rounding_error(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => F32_ERROR,
        Precision::Tf32 | Precision::F16 => 1e-3,
        Precision::Bf16 => 1e-2,
    }
}

/// Both ways to write, against `f64`.
pub(crate) fn check(precision: Precision, cuda: &mut Cuda, shape: MatmulShape) {
    let (a, b) = operands(7, shape);
    let (a_rounded, b_rounded) = (all_rounded(precision, &a), all_rounded(precision, &b));
    let start = normals(9, shape.m * shape.n);
    let zeros = vec![0.0; start.len()];
    for (write, before) in [(Accumulate::Set, &zeros), (Accumulate::Add, &start)] {
        let actual = multiply(cuda, shape, (&a, &b), &start, write);
        let expected = reference(shape, (&a_rounded, &b_rounded), before);
        assert_close(&expected, &actual, F32_ERROR);
        let expected = reference(shape, (&a, &b), before);
        assert_close(&expected, &actual, rounding_error(precision));
    }
}

#[test]
fn any_extents_in_every_form() {
    let extents = [
        [1, 1, 1],
        [1, 33, 17],
        [33, 1, 300],
        [7, 13, 31],
        [32, 32, 32],
        [36, 40, 20],
        [37, 65, 129],
        [64, 10, 257],
        [65, 68, 600],
    ];
    for precision in precisions() {
        let mut cuda = gpu(precision);
        for form in FORMS {
            for [m, n, k] in extents {
                check(precision, &mut cuda, MatmulShape { form, m, n, k });
            }
        }
    }
}

#[test]
fn random_extents_in_every_form() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        for_random_sizes(2, 5, [90, 90, 400], |[m, n, k]| {
            for form in FORMS {
                check(precision, &mut cuda, MatmulShape { form, m, n, k });
            }
        });
    }
}

#[test]
fn no_terms() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        let (shape, start) = (MatmulShape::nn(5, 3, 0), normals(2, 15));
        let set = multiply(&mut cuda, shape, (&[], &[]), &start, Accumulate::Set);
        assert_eq!(set, [0.0; 15]);
        let added = multiply(&mut cuda, shape, (&[], &[]), &start, Accumulate::Add);
        assert_same_bits(&start, &added);
    }
}

#[test]
fn every_tile_in_every_form() {
    // The extents for which each tile is the quickest, whole and odd.
    let extents = [
        [1408, 1536, 36],
        [1403, 1533, 19],
        [16_896, 32, 20],
        [16_893, 29, 7],
        [704, 640, 36],
        [701, 637, 35],
    ];
    // Bf16 and f16 differ in two instructions, not in how tiles are made.
    for precision in [Precision::Tf32, Precision::Bf16] {
        let mut cuda = gpu(precision);
        for [m, n, k] in extents {
            for form in FORMS {
                let shape = MatmulShape { form, m, n, k };
                let (a, b) = operands(3, shape);
                let start = vec![f32::NAN; m * n];
                let actual = multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Set);
                let (a, b) = (all_rounded(precision, &a), all_rounded(precision, &b));
                let expected = reference(shape, (&a, &b), &vec![0.0; m * n]);
                assert_close(&expected, &actual, F32_ERROR);
            }
        }
    }
}

/// `activation(a · b + bias)`.
pub(crate) fn activated<B: Matmul>(
    backend: &mut B,
    shape: MatmulShape,
    (a, b): (&[f32], &[f32]),
    bias: Option<&[f32]>,
    activation: Activation,
) -> Vec<f32> {
    let (a, b) = (upload(backend, a), upload(backend, b));
    let bias = bias.map(|bias| upload(backend, bias));
    let mut c = upload(backend, &vec![f32::NAN; shape.m * shape.n]);
    let (a, b, bias) = (B::view(&a), B::view(&b), bias.as_ref().map(B::view));
    backend.matmul_bias_activation(shape, a, b, bias, activation, B::view_mut(&mut c));
    download(backend, &c)
}

/// With and without a bias, every activation, against the CPU.
pub(crate) fn check_activations(precision: Precision, cuda: &mut Cuda, shape: MatmulShape) {
    let mut cpu = Cpu::new();
    let (mut a, b) = operands(11, shape);
    let scale = (shape.k as f32).sqrt();
    a.iter_mut().for_each(|a| *a /= scale);
    let (a_rounded, b_rounded) = (all_rounded(precision, &a), all_rounded(precision, &b));
    // Of neither sum nor bias is anything rounded.
    let bias = normals(13, shape.n);
    for activation in ACTIVATIONS {
        for bias in [Some(&*bias), None] {
            let expected = (&*a_rounded, &*b_rounded);
            let expected = activated(&mut cpu, shape, expected, bias, activation);
            let actual = activated(cuda, shape, (&a, &b), bias, activation);
            assert_close(&expected, &actual, F32_ERROR);
        }
    }
}

#[test]
fn a_bias_and_every_activation() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        // In one piece, in slices, with odd rows.
        for [m, n, k] in [[35, 44, 20], [5, 12, 300], [9, 7, 261]] {
            check_activations(precision, &mut cuda, MatmulShape::nn(m, n, k));
        }
    }
}

/// What is not finite in the last term of the last row, which is not the last of anything that is staged,
/// reaches that row alone.
pub(crate) fn check_what_is_not_finite(cuda: &mut Cuda, form: Form, k: usize) {
    let (m, n) = (34, 37);
    let shape = MatmulShape { form, m, n, k };
    let (row, term) = (m - 1, k - 1);
    let (at, zero) = match form {
        Form::NN => (row * k + term, term * n + 3),
        Form::NT => (row * k + term, 3 * k + term),
        Form::TN => (term * m + row, term * n + 3),
    };
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (mut a, mut b) = operands(5, shape);
        a[at] = poison;
        // A zero in B makes NaN of an infinity.
        b[zero] = 0.0;
        let start = vec![0.0; m * n];
        let c = multiply(cuda, shape, (&a, &b), &start, Accumulate::Set);
        let (clean, dirty) = c.split_at(row * n);
        assert!(clean.iter().all(|x| x.is_finite()));
        assert!(dirty.iter().all(|x| !x.is_finite()));
        assert!(dirty[3].is_nan());
    }
}

#[test]
fn what_is_not_finite_reaches_every_element_it_takes_part_in() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        for form in FORMS {
            check_what_is_not_finite(&mut cuda, form, 300);
        }
    }
}

#[test]
fn what_f16_cannot_hold_is_infinite() {
    let shape = MatmulShape::nn(4, 1, 1);
    let product = |precision, a: &[f32; 4]| {
        multiply(
            &mut gpu(precision),
            shape,
            (a, &[0.5]),
            &[0.0; 4],
            Accumulate::Set,
        )
    };
    // The largest number, and the first that is nearer to the next power of two.
    let a = [65_519.0, 65_520.0, -1e5, f32::MAX];
    let of_f16 = product(Precision::F16, &a);
    assert_eq!(
        of_f16,
        [32_752.0, f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY]
    );
    let of_bf16 = product(Precision::Bf16, &a);
    assert_eq!(of_bf16, [32_768.0, 32_768.0, -49_920.0, f32::INFINITY]);
    // And the least, 2^-24; what is less than half of it is zero.
    let least = 2.0_f32.powi(-24);
    let small = product(Precision::F16, &[least, 0.51 * least, 0.49 * least, -least]);
    assert_eq!(small, [0.5 * least, 0.5 * least, 0.0, -0.5 * least]);
}

/// Bits of a row do not depend on where and with how many others it is computed, on the form, or on
/// addresses.
#[test]
fn bits_depend_on_row_column_and_terms_alone() {
    let transposed = |x: &[f32], columns: usize| -> Vec<f32> {
        let column = |j| x.iter().skip(j).step_by(columns);
        (0..columns).flat_map(column).copied().collect()
    };
    for precision in precisions() {
        let mut cuda = gpu(precision);
        // Two slices, of 160 terms where 32 are staged at a time, else of 144: those of a few rows are
        // summed by different blocks, those of many by one.
        let (n, k) = (8, 280);
        let many = MatmulShape::nn(8448, n, k);
        let (a, b) = operands(21, many);
        let start = vec![0.0; many.m * n];
        let all = multiply(&mut cuda, many, (&a, &b), &start, Accumulate::Set);
        for (first, m) in [(0, 1), (5000, 3), (8448 - 70, 70)] {
            let few = MatmulShape::nn(m, n, k);
            let a = &a[first * k..][..m * k];
            let alone = multiply(&mut cuda, few, (a, &b), &start[..m * n], Accumulate::Set);
            assert_same_bits(&all[first * n..][..m * n], &alone);
        }
        let (m, a) = (9, &a[..9 * k]);
        let (at, bt) = (transposed(a, k), transposed(&b, n));
        for (form, a, b) in [(Form::NT, a, &*bt), (Form::TN, &*at, &*b)] {
            let shape = MatmulShape { form, m, n, k };
            let c = multiply(&mut cuda, shape, (a, b), &start[..m * n], Accumulate::Set);
            assert_same_bits(&all[..m * n], &c);
            // The same a float further on.
            let moved = |values: &[f32]| [&[f32::NAN], values].concat();
            let (a, b) = (upload(&mut cuda, &moved(a)), upload(&mut cuda, &moved(b)));
            let mut c = upload(&mut cuda, &vec![f32::NAN; 1 + m * n]);
            let (a, b) = (Cuda::view(&a), Cuda::view(&b));
            let (a, b) = (Cuda::slice(a, 1..1 + m * k), Cuda::slice(b, 1..1 + k * n));
            let part = Cuda::slice_mut(Cuda::view_mut(&mut c), 1..1 + m * n);
            cuda.matmul(shape, a, b, part, Accumulate::Set);
            let c = download(&mut cuda, &c);
            assert!(c[0].is_nan());
            assert_same_bits(&all[..m * n], &c[1..]);
        }
        // Other columns.
        let (narrow, columns) = (MatmulShape::nt(m, 3, k), &bt[2 * k..5 * k]);
        let c = multiply(&mut cuda, narrow, (a, columns), &[0.0; 27], Accumulate::Set);
        for (row, c) in c.chunks(3).enumerate() {
            assert_same_bits(&all[row * n + 2..][..3], c);
        }
    }
}

#[test]
fn convolutions() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        // Odd numbers of channels, quads of them, and more than 256 terms.
        for (rows, image, filters, window, strides, padding) in [
            (3, [7, 5, 3], 5, [3, 3], [1, 1], Padding::Same),
            (1, [7, 5, 4], 8, [5, 5], [2, 2], Padding::Same),
            (3, [7, 5, 17], 4, [2, 3], [2, 1], Padding::Valid),
            (2, [8, 7, 4], 5, [2, 2], [9, 9], Padding::Valid),
            (2, [8, 12, 3], 6, [4, 4], [4, 4], Padding::Valid),
            (3, [10, 9, 32], 32, [3, 3], [1, 1], Padding::Same),
            (1, [5, 5, 33], 130, [3, 3], [2, 2], Padding::Same),
        ] {
            let g = ConvGeometry::new(rows, image, filters, window, strides, padding).unwrap();
            let mut inputs = Inputs::new(&g, 17);
            inputs.gradient = (filters % 2 == 0).then(|| normals(5, g.kernel_elements()));
            let actual = run(&mut cuda, &g, &inputs, 0);
            let of_rounded = Inputs {
                x: all_rounded(precision, &inputs.x),
                kernel: all_rounded(precision, &inputs.kernel),
                dy: all_rounded(precision, &inputs.dy),
                ..inputs.clone()
            };
            assert_all_close(&convolved(&g, &of_rounded), &actual, F32_ERROR);
            assert_all_close(&convolved(&g, &inputs), &actual, rounding_error(precision));
            actual.assert_same_bits(&run(&mut cuda, &g, &inputs, 1));
        }
    }
}

#[test]
fn an_image_gives_the_same_bits_wherever_it_stands() {
    for precision in precisions() {
        let mut cuda = gpu(precision);
        // Three slices, which blocks of their own sum where there are few images, and one where
        // there are many.
        for (call, channels, filters) in [
            (Call::Forward(Activation::Relu), 60, 8),
            (Call::BackwardInput, 8, 60),
        ] {
            let image = [16, 16, channels];
            let g = ConvGeometry::new(33, image, filters, [3, 3], [1, 1], Padding::Same).unwrap();
            let inputs = Inputs::new(&g, 31);
            let all = call.run(&mut cuda, &g, &inputs, 0);
            let last = |values: &[f32], each| values[32 * each..].to_vec();
            let inputs = Inputs {
                x: last(&inputs.x, g.in_elements()),
                dy: last(&inputs.dy, g.out_elements()),
                ..inputs
            };
            let alone = call.run(&mut cuda, &ConvGeometry { rows: 1, ..g }, &inputs, 1);
            assert_same_bits(&all[all.len() / 33 * 32..], &alone);
        }
    }
}

#[test]
fn the_dot_product_of_slide_32() {
    let golden = include_str!("../golden/slide32.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let golden = |name: &str| golden[name].as_f64().unwrap();
    let a: Vec<f32> = (1..=256).map(|x| x as f32).collect();
    let dot = |precision| {
        let (shape, b) = (MatmulShape::nn(1, 1, 256), [0.1f32; 256]);
        let sum = multiply(
            &mut gpu(precision),
            shape,
            (&a, &b),
            &[0.0],
            Accumulate::Set,
        );
        f64::from(sum[0])
    };
    assert_eq!(dot(Precision::F32), golden("exact_rounded_to_f32"));
    // A half has 0.1 as 0.09998, a bfloat16 as 0.10010; all else is exact in both. Sums are those of
    // f32: in f16 they would come to 3284.
    let within = |precision, exact: f64| {
        let error = (dot(precision) / exact - 1.0).abs();
        assert!(error < 1e-6, "{precision}: {error:.1e} from {exact}");
    };
    within(Precision::F16, golden("f16_inputs_exact"));
    within(Precision::Bf16, 32_896.0 * f64::from(bf16::from_f32(0.1)));
}

#[test]
fn a_gpu_of_7_5_multiplies_halves_and_refuses_the_rest() {
    let output = alone("precision::on_an_old_gpu", &[("FAKE_CUDA_CC", "7.5")]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "a process that another test starts"]
fn on_an_old_gpu() {
    let is_old = cuda().capability() < Capability { major: 8, minor: 0 };
    assert!(is_old || !cuda().name().starts_with("Emulated"));
    for precision in [Precision::Tf32, Precision::Bf16] {
        let result = cuda().with_precision(precision);
        assert_eq!(result.is_err(), is_old);
        if let Err(error) = result {
            let expected = format!(
                "GPU 0 has compute capability 7.5; products of {precision} need 8.0; use a newer GPU, \
                 or `--precision f32`"
            );
            assert_eq!(error.to_string(), expected);
        }
    }
    cuda().with_precision(Precision::F32).unwrap();
    assert!(!is_old || precisions() == [Precision::F16]);
    any_extents_in_every_form();
    no_terms();
    a_bias_and_every_activation();
    convolutions();
    an_image_gives_the_same_bits_wherever_it_stands();
}

//! Matrix products: every form against sums in `f64`, and bits against bits.

use ringstep::backend::cpu::Cpu;
use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Accumulate, Activation, Form, Matmul, MatmulShape, Memory};

use crate::twins::{
    F32_ERROR, assert_close, assert_same_bits, cuda, download, for_random_sizes, normals, twins,
    upload,
};

pub(crate) const FORMS: [Form; 3] = [Form::NN, Form::NT, Form::TN];

pub(crate) const ACTIVATIONS: [Activation; 9] = [
    Activation::Linear,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.3 },
    Activation::Elu { alpha: 0.7 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
];

/// A and B of `shape`.
pub(crate) fn operands(
    seed: u64,
    MatmulShape { m, n, k, .. }: MatmulShape,
) -> (Vec<f32>, Vec<f32>) {
    (normals(seed, m * k), normals(seed + 1, k * n))
}

/// `start + a · b`, summed in `f64`.
pub(crate) fn reference(shape: MatmulShape, (a, b): (&[f32], &[f32]), start: &[f32]) -> Vec<f32> {
    let MatmulShape { form, m, n, k } = shape;
    let mut sums: Vec<f64> = start.iter().map(|&x| x.into()).collect();
    for i in 0..m {
        for term in 0..k {
            let left = if form == Form::TN {
                term * m + i
            } else {
                i * k + term
            };
            for j in 0..n {
                let right = if form == Form::NT {
                    j * k + term
                } else {
                    term * n + j
                };
                sums[i * n + j] += f64::from(a[left]) * f64::from(b[right]);
            }
        }
    }
    sums.into_iter().map(|x| x as f32).collect()
}

/// C after a product, from what it held before.
pub(crate) fn multiply(
    cuda: &mut Cuda,
    shape: MatmulShape,
    (a, b): (&[f32], &[f32]),
    start: &[f32],
    write: Accumulate,
) -> Vec<f32> {
    let (a, b, mut c) = (upload(cuda, a), upload(cuda, b), upload(cuda, start));
    let (a, b) = (Cuda::view(&a), Cuda::view(&b));
    cuda.matmul(shape, a, b, Cuda::view_mut(&mut c), write);
    let c = download(cuda, &c);
    cuda.synchronize().unwrap();
    c
}

/// Both ways to write, against `f64`.
fn check(cuda: &mut Cuda, shape: MatmulShape) {
    let (a, b) = operands(7, shape);
    let start = normals(9, shape.m * shape.n);
    for (write, before) in [
        (Accumulate::Set, vec![0.0; start.len()]),
        (Accumulate::Add, start.clone()),
    ] {
        let expected = reference(shape, (&a, &b), &before);
        let actual = multiply(cuda, shape, (&a, &b), &start, write);
        assert_close(&expected, &actual, F32_ERROR);
    }
}

#[test]
fn any_extents_in_every_form() {
    let mut cuda = cuda();
    let extents = [
        [1, 1, 1],
        [1, 33, 17],
        [33, 1, 300],
        [7, 13, 31],
        [32, 32, 16],
        [36, 40, 20],
        [37, 65, 129],
        [64, 10, 257],
        [65, 68, 600],
    ];
    for form in FORMS {
        for [m, n, k] in extents {
            check(&mut cuda, MatmulShape { form, m, n, k });
        }
    }
}

#[test]
fn random_extents_in_every_form() {
    let mut cuda = cuda();
    for_random_sizes(1, 5, [90, 90, 400], |[m, n, k]| {
        for form in FORMS {
            check(&mut cuda, MatmulShape { form, m, n, k });
        }
    });
}

#[test]
fn extents_of_zero() {
    let mut cuda = cuda();
    for form in FORMS {
        for [m, n, k] in [[0, 3, 4], [3, 0, 4], [0, 0, 0]] {
            let shape = MatmulShape { form, m, n, k };
            let (a, b) = operands(1, shape);
            assert!(multiply(&mut cuda, shape, (&a, &b), &[], Accumulate::Set).is_empty());
        }
        let shape = MatmulShape {
            form,
            m: 5,
            n: 3,
            k: 0,
        };
        let start = normals(2, 15);
        let set = multiply(&mut cuda, shape, (&[], &[]), &start, Accumulate::Set);
        assert_eq!(set, [0.0; 15]);
        let added = multiply(&mut cuda, shape, (&[], &[]), &start, Accumulate::Add);
        assert_same_bits(&start, &added);
    }
}

#[test]
fn every_tile_in_every_form() {
    let mut cuda = cuda();
    // The extents for which each tile is the quickest, whole and odd.
    for [m, n, k] in [
        [1408, 1536, 36],
        [1403, 1533, 19],
        [16_896, 32, 20],
        [16_893, 29, 7],
        [704, 640, 20],
        [701, 637, 19],
    ] {
        for form in FORMS {
            let shape = MatmulShape { form, m, n, k };
            let (a, b) = operands(3, shape);
            let start = vec![f32::NAN; m * n];
            let expected = reference(shape, (&a, &b), &vec![0.0; m * n]);
            let actual = multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Set);
            assert_close(&expected, &actual, F32_ERROR);
        }
    }
}

#[test]
fn a_bias_and_every_activation() {
    fn body<B: Matmul>(
        backend: &mut B,
        shape: MatmulShape,
        has_bias: bool,
        activation: Activation,
    ) -> Vec<f32> {
        let (a, b) = operands(11, shape);
        let scale = 1.0 / (shape.k as f32).sqrt();
        let a: Vec<f32> = a.iter().map(|a| a * scale).collect();
        let (a, b) = (upload(backend, &a), upload(backend, &b));
        let bias = upload(backend, &normals(13, shape.n));
        let mut c = upload(backend, &vec![f32::NAN; shape.m * shape.n]);
        let bias = has_bias.then(|| B::view(&bias));
        let (a, b) = (B::view(&a), B::view(&b));
        backend.matmul_bias_activation(shape, a, b, bias, activation, B::view_mut(&mut c));
        download(backend, &c)
    }
    for activation in ACTIVATIONS {
        // In one piece, in slices, with odd rows, and over several tiles.
        for [m, n, k] in [[35, 44, 20], [5, 12, 300], [9, 7, 261], [33, 35, 3]] {
            for has_bias in [false, true] {
                let shape = MatmulShape::nn(m, n, k);
                let (cpu, cuda) = twins!(body, shape, has_bias, activation);
                assert_close(&cpu, &cuda, F32_ERROR);
            }
        }
    }
}

#[test]
fn what_is_not_finite_reaches_every_element_it_takes_part_in() {
    let mut cuda = cuda();
    for form in FORMS {
        for k in [19, 300] {
            let shape = MatmulShape {
                form,
                m: 34,
                n: 37,
                k,
            };
            for poison in [f32::NAN, f32::INFINITY] {
                let (mut a, b) = operands(5, shape);
                let (row, term) = (33, k - 1);
                let at = if form == Form::TN {
                    term * 34 + row
                } else {
                    row * k + term
                };
                a[at] = poison;
                // A zero in B makes NaN of an infinity.
                let mut b_zero = b.clone();
                b_zero[if form == Form::NT {
                    3 * k + term
                } else {
                    term * 37 + 3
                }] = 0.0;
                let start = vec![0.0; 34 * 37];
                let c = multiply(&mut cuda, shape, (&a, &b_zero), &start, Accumulate::Set);
                let (clean, dirty) = c.split_at(row * 37);
                assert!(clean.iter().all(|x| x.is_finite()));
                assert!(dirty.iter().all(|x| !x.is_finite()));
                assert!(dirty[3].is_nan());
            }
        }
    }
    // Neither does an activation drop it.
    for activation in ACTIVATIONS {
        let (a, b) = (upload(&mut cuda, &[f32::NAN]), upload(&mut cuda, &[1.0f32]));
        let mut c = upload(&mut cuda, &[0.0f32]);
        let (a, b) = (Cuda::view(&a), Cuda::view(&b));
        let shape = MatmulShape::nn(1, 1, 1);
        cuda.matmul_bias_activation(shape, a, b, None, activation, Cuda::view_mut(&mut c));
        assert!(download(&mut cuda, &c)[0].is_nan(), "{activation:?}");
    }
}

#[test]
fn bits_do_not_depend_on_the_other_rows_and_columns() {
    let mut cuda = cuda();
    // Two slices: those of a few rows are summed by different blocks, those of many by one.
    let (n, k) = (8, 300);
    let many = MatmulShape::nn(8448, n, k);
    let (a, b) = operands(21, many);
    let all = multiply(
        &mut cuda,
        many,
        (&a, &b),
        &vec![0.0; many.m * n],
        Accumulate::Set,
    );
    for (first, rows) in [(0, 1), (5000, 3), (8448 - 70, 70)] {
        let few = MatmulShape::nn(rows, n, k);
        let a = &a[first * k..][..rows * k];
        let alone = multiply(
            &mut cuda,
            few,
            (a, &b),
            &vec![0.0; rows * n],
            Accumulate::Set,
        );
        assert_same_bits(&all[first * n..][..rows * n], &alone);
    }
    // The other forms, stored the other way round; columns of an odd number.
    let shape = MatmulShape::nn(9, n, k);
    let a = &a[..9 * k];
    let transposed = |x: &[f32], columns: usize| -> Vec<f32> {
        let column = |j| x.iter().skip(j).step_by(columns);
        (0..columns).flat_map(column).copied().collect()
    };
    let (at, bt) = (transposed(a, k), transposed(&b, n));
    let start = vec![0.0; 9 * n];
    for (form, a, b) in [(Form::NT, a, &bt[..]), (Form::TN, &at[..], &b[..])] {
        let shape = MatmulShape { form, ..shape };
        let c = multiply(&mut cuda, shape, (a, b), &start, Accumulate::Set);
        assert_same_bits(&all[..9 * n], &c);
    }
    let narrow = MatmulShape::nt(9, 3, k);
    let c = multiply(
        &mut cuda,
        narrow,
        (a, &bt[2 * k..5 * k]),
        &[0.0; 27],
        Accumulate::Set,
    );
    for (row, c) in c.chunks(3).enumerate() {
        assert_same_bits(&all[row * n + 2..][..3], c);
    }
}

#[test]
fn bits_do_not_depend_on_addresses() {
    let mut cuda = cuda();
    for form in FORMS {
        for k in [20, 272] {
            let shape = MatmulShape {
                form,
                m: 36,
                n: 40,
                k,
            };
            let (a, b) = operands(31, shape);
            let start = normals(33, 36 * 40);
            let aligned = multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Add);
            let moved = |values: &[f32]| [&[f32::NAN], values].concat();
            let (a, b) = (upload(&mut cuda, &moved(&a)), upload(&mut cuda, &moved(&b)));
            let mut c = upload(&mut cuda, &moved(&start));
            let (a, b) = (Cuda::view(&a), Cuda::view(&b));
            let (a, b) = (
                Cuda::slice(a, 1..Cuda::len(a)),
                Cuda::slice(b, 1..Cuda::len(b)),
            );
            let whole = Cuda::view_mut(&mut c);
            let part = Cuda::slice_mut(whole, 1..1 + 36 * 40);
            cuda.matmul(shape, a, b, part, Accumulate::Add);
            let c = download(&mut cuda, &c);
            assert!(c[0].is_nan());
            assert_same_bits(&aligned, &c[1..]);
        }
    }
}

#[test]
fn the_dot_product_of_slide_32() {
    let golden = include_str!("../golden/slide32.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let expected = golden["exact_rounded_to_f32"].as_f64().unwrap() as f32;
    let mut cuda = cuda();
    let a: Vec<f32> = (1..=256).map(|x| x as f32).collect();
    let b = [0.1f32; 256];
    let dot = MatmulShape::nn(1, 1, 256);
    let sum = multiply(&mut cuda, dot, (&a, &b), &[0.0], Accumulate::Set);
    assert_eq!(sum, [expected]);
    let mut cpu = [0.0];
    Cpu::new().matmul(dot, &a, &b, &mut cpu, Accumulate::Set);
    assert_eq!(sum, cpu);
}

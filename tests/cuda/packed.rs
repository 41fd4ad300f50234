//! Products of 1024 terms and more, rounded to 16 bits, of operands that are packed before: by TMA and wgmma
//! where there is compute capability 9.0, and by cp.async and mma.sync, against sums in `f64`, against the CPU
//! and against products of operands that are not packed.

use ringstep::backend::cpu::Cpu;
use ringstep::backend::cuda::{Capability, Cuda};
use ringstep::backend::{Accumulate, Activation, Form, Matmul, MatmulShape, Memory, Precision};

use crate::matmul::{FORMS, multiply, operands};
use crate::precision::{activated, check, check_activations, check_what_is_not_finite, gpu};
use crate::twins::{
    F32_ERROR, alone, assert_close, assert_same_bits, download, for_random_sizes, normals, upload,
};

const HALVES: [Precision; 2] = [Precision::Bf16, Precision::F16];

/// Fewest terms of a product that is made this way.
const FEWEST_TERMS: usize = 1024;

/// Whether operands are packed here.
fn is_packing(cuda: &Cuda) -> bool {
    cuda.capability() >= Capability { major: 8, minor: 0 }
}

/// By each of the two kernels that multiply packed operands.
fn both(precision: Precision) -> [Cuda; 2] {
    let cuda = gpu(precision);
    [cuda.clone(), cuda.without_wgmma()]
}

#[test]
fn any_extents_in_every_form() {
    // On either side of a tile's 64 and 128, and of a stage's 64 terms.
    let extents = [
        [1, 1, 1024],
        [63, 129, 1025],
        [127, 65, 1100],
        [300, 7, 1151],
    ];
    for precision in HALVES {
        for mut cuda in both(precision) {
            for form in FORMS {
                for [m, n, k] in extents {
                    check(precision, &mut cuda, MatmulShape { form, m, n, k });
                }
            }
        }
    }
}

#[test]
fn random_extents_in_every_form() {
    for precision in HALVES {
        for mut cuda in both(precision) {
            for_random_sizes(3, 3, [140, 140, 200], |[m, n, more]| {
                let k = FEWEST_TERMS + more;
                for form in FORMS {
                    check(precision, &mut cuda, MatmulShape { form, m, n, k });
                }
            });
        }
    }
}

#[test]
fn products_are_those_of_the_cpu_and_of_operands_that_are_not_packed() {
    for (precision, cuda) in HALVES
        .into_iter()
        .flat_map(|it| both(it).map(|cuda| (it, cuda)))
    {
        // Operands of the second form and further are packed and multiplied by a graph.
        let mut cuda = cuda.with_graphs();
        let mut other = cuda.clone().without_packing();
        let mut cpu = Cpu::new().with_precision(precision);
        for form in FORMS {
            for k in [FEWEST_TERMS - 1, FEWEST_TERMS, 2100] {
                let (m, n) = (70, 132);
                let shape = MatmulShape { form, m, n, k };
                let (a, b) = operands(15, shape);
                let start = normals(17, m * n);
                let c = multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Add);
                let by_other = multiply(&mut other, shape, (&a, &b), &start, Accumulate::Add);
                assert_close(&by_other, &c, F32_ERROR);
                let mut on_cpu = start.clone();
                cpu.matmul(shape, &a, &b, &mut on_cpu, Accumulate::Add);
                assert_close(&on_cpu, &c, F32_ERROR);
                // Sums are added in another order, which shows who has made them.
                let is_packed = is_packing(&cuda) && k >= FEWEST_TERMS;
                assert_eq!(c != by_other, is_packed, "{k} terms in {precision}");
            }
        }
        assert!(cuda.graph_counts().launches > 0);
    }
}

#[test]
fn a_bias_and_every_activation() {
    for precision in HALVES {
        for mut cuda in both(precision) {
            for [m, n] in [[5, 12], [9, 7]] {
                let shape = MatmulShape::nn(m, n, FEWEST_TERMS);
                check_activations(precision, &mut cuda, shape);
            }
        }
    }
}

#[test]
fn what_is_not_finite_reaches_every_element_it_takes_part_in() {
    for precision in HALVES {
        for mut cuda in both(precision) {
            for form in FORMS {
                check_what_is_not_finite(&mut cuda, form, 1027);
            }
        }
    }
}

#[test]
fn extents_of_zero() {
    let mut cuda = gpu(Precision::Bf16);
    for [m, n] in [[0, 3], [3, 0], [0, 0]] {
        let shape = MatmulShape::nn(m, n, FEWEST_TERMS);
        let (a, b) = operands(1, shape);
        assert!(multiply(&mut cuda, shape, (&a, &b), &[], Accumulate::Set).is_empty());
    }
}

/// Bits of a row do not depend on where and with how many others it is computed, on the form, or on
/// addresses.
#[test]
fn bits_depend_on_row_column_and_terms_alone() {
    for (cuda, blocks) in both(Precision::Bf16).into_iter().zip([132, 67]) {
        check_bits(cuda, blocks * 128 + 129);
    }
}

/// `rows` are more than the slices' tables are made for.
fn check_bits(mut cuda: Cuda, rows: usize) {
    let transposed = |x: &[f32], columns: usize| -> Vec<f32> {
        let column = |j| x.iter().skip(j).step_by(columns);
        (0..columns).flat_map(column).copied().collect()
    };
    // A block sums all slices of a tile, by wgmma of several where tiles are more than a wave of blocks; the
    // slices of few rows have blocks of their own.
    let (n, k) = (9, 1090);
    let many = MatmulShape::nn(rows, n, k);
    let (a, b) = operands(21, many);
    let bias = normals(23, n);
    let all = activated(&mut cuda, many, (&a, &b), Some(&bias), Activation::Relu);
    assert!(all.iter().filter(|x| **x > 0.0).count() > all.len() / 4);
    for (first, m) in [(0, 1), (5000, 3), (rows - 140, 140)] {
        let (shape, a) = (MatmulShape::nn(m, n, k), &a[first * k..][..m * k]);
        let alone = activated(&mut cuda, shape, (a, &b), Some(&bias), Activation::Relu);
        assert_same_bits(&all[first * n..][..m * n], &alone);
    }
    // Without an activation, which would hide half of the sums.
    let (m, a) = (9, &a[..9 * k]);
    let start = vec![0.0; m * n];
    let shape = MatmulShape::nn(m, n, k);
    let sums = multiply(&mut cuda, shape, (a, &b), &start, Accumulate::Set);
    let (at, bt) = (transposed(a, k), transposed(&b, n));
    for (form, a, b) in [(Form::NT, a, &*bt), (Form::TN, &*at, &*b)] {
        let shape = MatmulShape { form, m, n, k };
        let c = multiply(&mut cuda, shape, (a, b), &start, Accumulate::Set);
        assert_same_bits(&sums, &c);
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
        assert_same_bits(&sums, &c[1..]);
    }
    // Other columns.
    let (narrow, columns) = (MatmulShape::nt(m, 3, k), &bt[2 * k..5 * k]);
    let c = multiply(&mut cuda, narrow, (a, columns), &[0.0; 27], Accumulate::Set);
    for (row, c) in c.chunks(3).enumerate() {
        assert_same_bits(&sums[row * n + 2..][..3], c);
    }
}

#[test]
fn gpus_without_wgmma_take_what_all_of_them_have() {
    let output = alone("packed::on_another_gpu", &[("FAKE_CUDA_CC", "8.0")]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "a process that another test starts"]
fn on_another_gpu() {
    let mut cuda = gpu(Precision::F16);
    if !cuda.name().starts_with("Emulated") {
        return; // There is one GPU, which is what it is.
    }
    let capability = cuda.capability().to_string();
    assert_eq!(std::env::var("FAKE_CUDA_CC"), Ok(capability));
    let shape = MatmulShape::nt(20, 30, FEWEST_TERMS);
    check(Precision::F16, &mut cuda, shape);
    let (a, b) = operands(3, shape);
    let start = [0.0; 20 * 30];
    let product = |mut cuda: Cuda| multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Set);
    let c = product(cuda.clone());
    assert_eq!(c, product(cuda.clone().without_wgmma()));
    assert_ne!(c, product(cuda.without_packing()));
}

/// Allocations of `on_a_gpu_whose_memory_ends`: scratch, three operands for each of two products, and packed
/// operands of the first.
const ALLOCATIONS: usize = 1 + 2 * 3 + 1;

#[test]
fn packed_operands_are_allocated_once_and_missed_by_name_by_faults() {
    let fault = format!("cuMemAlloc:{}", ALLOCATIONS + 1);
    let test = "packed::on_a_gpu_whose_memory_ends";
    let output = alone(test, &[("FAKE_CUDA_FAIL", &fault)]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "a process that another test starts"]
fn on_a_gpu_whose_memory_ends() {
    let mut cuda = gpu(Precision::F16);
    let mut buffers = |m: usize| {
        let shape = MatmulShape::nn(m, 8, FEWEST_TERMS);
        let (a, b) = operands(3, shape);
        let (a, b) = (upload(&mut cuda, &a), upload(&mut cuda, &b));
        (shape, a, b, upload(&mut cuda, &vec![0.0; m * 8]))
    };
    let [mut small, mut large] = [8, 9].map(&mut buffers);
    let mut multiply = |(shape, a, b, c): &mut (_, _, _, _)| {
        let (a, b, c) = (Cuda::view(a), Cuda::view(b), Cuda::view_mut(c));
        cuda.matmul(*shape, a, b, c, Accumulate::Add);
        cuda.synchronize()
    };
    for _ in 0..3 {
        multiply(&mut small).unwrap();
    }
    let error = multiply(&mut large).unwrap_err().to_string();
    // Rows of A and columns of B, of 1024 terms.
    let bytes = (9 + 8) * FEWEST_TERMS * 2;
    let expected = format!("no memory for packed operands of a product on GPU 0: {bytes} bytes");
    assert!(error.contains(&expected), "{error}");
    // The device goes on.
    multiply(&mut small).unwrap();
    let sums = download(&mut cuda, &small.3);
    assert!(sums.iter().all(|x| x.is_finite()) && sums.iter().any(|x| *x != 0.0));
}

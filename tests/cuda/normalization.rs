//! Batch and layer normalisation and their gradients against the CPU's, and `scale`.

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Affine, Memory, Normalize, Normalized};

use crate::twins::{
    F32_ERROR, Inset, assert_alike, assert_close, assert_same_bits, cuda, for_random_sizes,
    normals, twins,
};

const EPSILON: f32 = 1e-3;

/// Rows and columns, around warps, teams, batches of loads and the chunks of rows that are summed.
const SHAPES: [(usize, usize); 13] = [
    (1, 1),
    (1, 33),
    (3, 3),
    (33, 10),
    (5, 31),
    (64, 33),
    (65, 4),
    (71, 100),
    (257, 1),
    (129, 32),
    (3, 257),
    (2, 1025),
    (70_000, 1),
];

/// A matrix, a gradient of its shape, and parameters, on the host.
struct Given {
    columns: usize,
    x: Vec<f32>,
    dy: Vec<f32>,
    scale: Vec<f32>,
    offset: Vec<f32>,
    is_affine: bool,
}

impl Given {
    fn new(rows: usize, columns: usize, is_affine: bool) -> Self {
        // Not around zero, and another deviation than 1.
        let x = normals(1, rows * columns);
        Self {
            columns,
            x: x.iter().map(|x| 5.0 + 0.5 * x).collect(),
            dy: normals(2, rows * columns),
            scale: normals(3, columns),
            offset: normals(4, columns),
            is_affine,
        }
    }

    /// The matrix of some of the columns.
    fn columns(&self, first: usize, columns: usize) -> Self {
        let of = |x: &[f32]| {
            let row = |row: &[f32]| row[first..first + columns].to_vec();
            x.chunks(self.columns).flat_map(row).collect()
        };
        Self {
            columns,
            x: of(&self.x),
            dy: of(&self.dy),
            scale: of(&self.scale),
            offset: of(&self.offset),
            is_affine: self.is_affine,
        }
    }

    /// The matrix of the rows from `first` on.
    fn rows(&self, first: usize) -> Self {
        Self {
            columns: self.columns,
            x: self.x[first * self.columns..].to_vec(),
            dy: self.dy[first * self.columns..].to_vec(),
            scale: self.scale.clone(),
            offset: self.offset.clone(),
            is_affine: self.is_affine,
        }
    }
}

/// Mean, variance, output, sums, and `dx` with the moments of `x` and with constant ones.
fn over_columns<B: Normalize>(backend: &mut B, given: &Given, before: usize) -> [Vec<f32>; 6] {
    let (columns, len) = (given.columns, given.x.len());
    let x = Inset::new(backend, before, &given.x);
    let dy = Inset::new(backend, before, &given.dy);
    let scale = Inset::new(backend, before + 1, &given.scale);
    let offset = Inset::new(backend, before, &given.offset);
    let mut mean = Inset::room(backend, before + 1, columns);
    let mut variance = Inset::room(backend, before, columns);
    backend.column_moments(columns, x.view(), mean.view_mut(), variance.view_mut());

    let scale = given.is_affine.then(|| scale.view());
    let affine = Affine {
        scale,
        offset: given.is_affine.then(|| offset.view()),
    };
    let mut y = Inset::room(backend, before, len);
    let (m, v) = (mean.view(), variance.view());
    backend.normalize_columns(EPSILON, x.view(), m, v, affine, y.view_mut());

    let mut sums = Inset::room(backend, before, 2 * columns);
    backend.column_gradients(EPSILON, x.view(), m, v, dy.view(), sums.view_mut());

    let mut own = Inset::room(backend, before + 1, len);
    let mut constant = Inset::room(backend, before, len);
    for (sums, dx) in [(Some(sums.view()), &mut own), (None, &mut constant)] {
        let normalized = Normalized {
            x: x.view(),
            mean: m,
            variance: v,
        };
        let dx = dx.view_mut();
        backend.normalize_columns_backward(EPSILON, normalized, scale, sums, dy.view(), dx);
    }
    [mean, variance, y, sums, own, constant].map(|inset| inset.download(backend))
}

/// Output, moments, sums and `dx`.
fn over_rows<B: Normalize>(backend: &mut B, given: &Given, before: usize) -> [Vec<f32>; 4] {
    let (columns, len) = (given.columns, given.x.len());
    let x = Inset::new(backend, before, &given.x);
    let dy = Inset::new(backend, before, &given.dy);
    let scale = Inset::new(backend, before + 1, &given.scale);
    let offset = Inset::new(backend, before, &given.offset);
    let scale = given.is_affine.then(|| scale.view());
    let affine = Affine {
        scale,
        offset: given.is_affine.then(|| offset.view()),
    };
    let mut y = Inset::room(backend, before, len);
    let mut moments = Inset::room(backend, before + 1, 2 * (len / columns));
    let (to, m) = (y.view_mut(), moments.view_mut());
    backend.normalize_rows(columns, EPSILON, x.view(), affine, to, m);

    let mut sums = Inset::room(backend, before, 2 * columns);
    let mut dx = Inset::room(backend, before + 1, len);
    let (m, to) = (moments.view(), Some(dx.view_mut()));
    backend.normalize_rows_backward(x.view(), m, scale, dy.view(), sums.view_mut(), to);

    // Without `dx` the sums are the same.
    let mut alone = Inset::room(backend, before, 2 * columns);
    backend.normalize_rows_backward(x.view(), m, scale, dy.view(), alone.view_mut(), None);
    let all = [y, moments, sums, dx].map(|inset| inset.download(backend));
    let alone = alone.download(backend);
    let alike = |(a, b): (&f32, &f32)| a == b || a.is_nan() && b.is_nan();
    assert!(all[2].iter().zip(&alone).all(alike));
    all
}

/// Both normalisations of so many rows and columns.
fn check(cuda: &mut Cuda, rows: usize, columns: usize) {
    for is_affine in [false, true] {
        let given = Given::new(rows, columns, is_affine);
        let (cpu, gpu) = twins!(on cuda, over_columns, &given, 1);
        let (cpu_rows, gpu_rows) = twins!(on cuda, over_rows, &given, 1);
        for (cpu, gpu) in cpu.iter().chain(&cpu_rows).zip(gpu.iter().chain(&gpu_rows)) {
            assert_close(cpu, gpu, F32_ERROR);
        }
    }
}

#[test]
fn columns_and_rows_of_any_shape() {
    let mut cuda = cuda();
    for (rows, columns) in SHAPES {
        check(&mut cuda, rows, columns);
    }
}

#[test]
fn columns_and_rows_of_random_shapes() {
    let mut cuda = cuda();
    for_random_sizes(6, 5, [250, 150], |[rows, columns]| {
        check(&mut cuda, rows, columns);
    });
}

#[test]
fn moments_keep_their_digits_far_from_zero() {
    let mut cuda = cuda();
    for start in [4096.0, -1e7] {
        let mut given = Given::new(999, 1, false);
        given.x = (0..999).map(|i| start + (i % 3) as f32).collect();
        let [mean, variance, ..] = over_columns(&mut cuda, &given, 0);
        assert_eq!((mean[0], variance[0]), (start + 1.0, 2.0 / 3.0));
        (given.columns, given.scale, given.offset) = (999, vec![1.0; 999], vec![0.0; 999]);
        let [_, moments, ..] = over_rows(&mut cuda, &given, 0);
        let inverse = 1.0 / (2.0f32 / 3.0 + EPSILON).sqrt();
        assert_eq!(moments, [start + 1.0, inverse]);
    }
}

#[test]
fn what_is_not_finite_stays_in_its_column_or_row() {
    let mut cuda = cuda();
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // In the first row and behind it.
        for row in [0, 3] {
            let mut given = Given::new(5, 7, true);
            given.x[row * 7 + 2] = poison;
            given.dy[row * 7 + 5] = poison;
            let (cpu, gpu) = twins!(on &mut cuda, over_columns, &given, 0);
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                assert_alike(cpu, gpu, 1e-4);
            }
            assert!(!gpu[0][2].is_finite() && gpu[0][3].is_finite());
            let (cpu, gpu) = twins!(on &mut cuda, over_rows, &given, 0);
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                assert_alike(cpu, gpu, 1e-4);
            }
        }
    }
}

#[test]
fn no_rows_have_gradients_of_zero() {
    let mut cuda = cuda();
    let given = Given::new(0, 5, true);
    let (cpu, gpu) = twins!(on &mut cuda, over_columns, &given, 0);
    assert!(cpu[0].iter().chain(&cpu[1]).all(|x| x.is_nan()));
    assert!(gpu[0].iter().chain(&gpu[1]).all(|x| x.is_nan()));
    let (cpu, gpu) = twins!(on &mut cuda, over_rows, &given, 0);
    assert_same_bits(&cpu[2], &gpu[2]);
    assert_eq!(gpu[2], [0.0; 10]);
}

fn scaled<B: Normalize>(backend: &mut B, factor: f32, x: &[f32], before: usize) -> Vec<f32> {
    let x_inset = Inset::new(backend, before, x);
    let mut y = Inset::room(backend, before + 1, x.len());
    backend.scale(factor, x_inset.view(), y.view_mut());
    y.download(backend)
}

#[test]
fn scaling_has_the_bits_of_the_cpu() {
    let mut cuda = cuda();
    for len in [0, 1, 3, 31, 33, 257, 500] {
        let mut x = normals(5, len);
        if len > 30 {
            (x[7], x[30]) = (f32::INFINITY, 1e-39);
        }
        for before in [0, 1, 3] {
            for factor in [0.1, -3.0, 1e30] {
                let (cpu, gpu) = twins!(on &mut cuda, scaled, factor, &x, before);
                assert_same_bits(&cpu, &gpu);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice_or_on_the_other_columns_and_rows() {
    let mut cuda = cuda();
    let (rows, columns) = (70, 37);
    let given = Given::new(rows, columns, true);
    let by_column = over_columns(&mut cuda, &given, 0);
    let by_row = over_rows(&mut cuda, &given, 0);
    for before in 1..8 {
        let moved = over_columns(&mut cuda, &given, before);
        assert_same_bits(&by_column.concat(), &moved.concat());
        let moved = over_rows(&mut cuda, &given, before);
        assert_same_bits(&by_row.concat(), &moved.concat());
        let all = scaled(&mut cuda, 0.3, &given.x, before);
        assert_same_bits(&all[5..], &scaled(&mut cuda, 0.3, &given.x[5..], 0));
    }
    // Fewer columns.
    let (first, few) = (11, 3);
    let alone = over_columns(&mut cuda, &given.columns(first, few), 0);
    for (all, alone) in by_column.iter().zip(&alone) {
        let of = |row: &[f32]| row[first..first + few].to_vec();
        let all: Vec<f32> = all.chunks(columns).flat_map(of).collect();
        assert_same_bits(&all, alone);
    }
    // The last row.
    let alone = over_rows(&mut cuda, &given.rows(rows - 1), 0);
    for (of, width) in [(0, columns), (1, 2), (3, columns)] {
        assert_same_bits(&by_row[of][(rows - 1) * width..], &alone[of]);
    }
    cuda.synchronize().unwrap();
}

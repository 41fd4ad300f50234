//! Pooling and its gradient: the bits of the CPU.

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Memory, Padding, Pool, PoolGeometry, Pooling};

use crate::twins::{Inset, assert_same_bits, cuda, for_random_sizes, normals, twins};

const POOLINGS: [Pooling; 2] = [Pooling::Max, Pooling::Average];

/// Rows, image, window and strides.
type Shape = (usize, [usize; 3], [usize; 2], [usize; 2]);

/// Overlapping windows, gaps between them, windows as large as the image and larger, of one place, and
/// in one dimension only.
const SHAPES: [Shape; 9] = [
    (0, [4, 4, 3], [2, 2], [2, 2]),
    (1, [1, 1, 1], [1, 1], [1, 1]),
    (2, [6, 8, 3], [2, 2], [2, 2]),
    (3, [7, 5, 33], [3, 3], [2, 2]),
    (1, [9, 11, 1], [3, 2], [1, 1]),
    (2, [10, 7, 2], [2, 1], [3, 4]),
    (2, [5, 4, 31], [5, 4], [1, 1]),
    (1, [3, 3, 4], [4, 5], [1, 2]),
    (1, [1, 40, 5], [1, 4], [1, 3]),
];

/// Every shape that fits, with either padding.
fn geometries() -> impl Iterator<Item = PoolGeometry> {
    let padded = |(rows, image, window, strides)| {
        [Padding::Valid, Padding::Same]
            .into_iter()
            .filter_map(move |padding| PoolGeometry::new(rows, image, window, strides, padding))
    };
    SHAPES.into_iter().flat_map(padded)
}

/// The output, and the gradient of the input.
fn pooled<B: Pool>(
    backend: &mut B,
    pooling: Pooling,
    geometry: &PoolGeometry,
    (x, dy): (&[f32], &[f32]),
    before: usize,
) -> [Vec<f32>; 2] {
    let x_inset = Inset::new(backend, before, x);
    let mut y = Inset::room(backend, before + 1, dy.len());
    backend.pool(pooling, geometry, x_inset.view(), y.view_mut());
    let mut dy = Inset::new(backend, before, dy);
    let mut dx = Inset::room(backend, before, x.len());
    let (x, dy) = (x_inset.view(), dy.view_mut());
    backend.pool_backward(pooling, geometry, x, y.view(), dy, dx.view_mut());
    [y, dx].map(|inset| inset.download(backend))
}

fn inputs(geometry: &PoolGeometry) -> (Vec<f32>, Vec<f32>) {
    (
        normals(1, geometry.rows * geometry.in_elements()),
        normals(2, geometry.rows * geometry.out_elements()),
    )
}

fn check(cuda: &mut Cuda, geometry: &PoolGeometry) {
    let (x, dy) = inputs(geometry);
    for pooling in POOLINGS {
        let (cpu, gpu) = twins!(on cuda, pooled, pooling, geometry, (&x, &dy), 1);
        assert_same_bits(&cpu[0], &gpu[0]);
        assert_same_bits(&cpu[1], &gpu[1]);
    }
}

#[test]
fn outputs_and_gradients_of_any_shape() {
    let mut cuda = cuda();
    for geometry in geometries() {
        check(&mut cuda, &geometry);
    }
}

#[test]
fn random_windows_strides_and_images() {
    let mut cuda = cuda();
    for_random_sizes(5, 6, [3, 9, 9, 40, 4, 4, 5, 5], |sizes| {
        let [rows, h, w, channels, i, j, down, right] = sizes;
        // An image that the window fits into.
        let (image, window, strides) = ([h + i - 1, w + j - 1, channels], [i, j], [down, right]);
        for padding in [Padding::Valid, Padding::Same] {
            let geometry = PoolGeometry::new(rows, image, window, strides, padding);
            check(&mut cuda, &geometry.unwrap());
        }
    });
}

#[test]
fn the_gradient_goes_to_the_first_of_equals() {
    let mut cuda = cuda();
    for geometry in geometries() {
        let (x, dy) = inputs(&geometry);
        // Few different values, zeros of both signs among them.
        let x: Vec<f32> = x.iter().map(|x| x.round().clamp(-1.0, 0.0)).collect();
        let (cpu, gpu) = twins!(on &mut cuda, pooled, Pooling::Max, &geometry, (&x, &dy), 0);
        assert_same_bits(&cpu[0], &gpu[0]);
        assert_same_bits(&cpu[1], &gpu[1]);
    }
}

#[test]
fn what_is_not_finite() {
    let mut cuda = cuda();
    for geometry in geometries() {
        let (mut x, mut dy) = inputs(&geometry);
        for (at, x) in x.iter_mut().enumerate() {
            match at % 7 {
                2 => *x = f32::NAN,
                3 => *x = f32::NEG_INFINITY,
                5 => *x = f32::INFINITY,
                _ => {}
            }
        }
        if let Some(dy) = dy.first_mut() {
            *dy = f32::INFINITY;
        }
        for pooling in POOLINGS {
            let (cpu, gpu) = twins!(on &mut cuda, pooled, pooling, &geometry, (&x, &dy), 0);
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                // The sign and the payload of a NaN are anybody's.
                let alike =
                    |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(cpu.iter().zip(gpu).all(alike), "{pooling:?} {geometry:?}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice() {
    let mut cuda = cuda();
    let geometry = PoolGeometry::new(3, [7, 6, 5], [3, 3], [2, 2], Padding::Same).unwrap();
    let (x, dy) = inputs(&geometry);
    for pooling in POOLINGS {
        let all = pooled(&mut cuda, pooling, &geometry, (&x, &dy), 0);
        for before in 1..8 {
            let moved = pooled(&mut cuda, pooling, &geometry, (&x, &dy), before);
            assert_same_bits(&all[0], &moved[0]);
            assert_same_bits(&all[1], &moved[1]);
        }
        // The last image alone.
        let one = PoolGeometry {
            rows: 1,
            ..geometry
        };
        let (inside, outside) = (2 * geometry.in_elements(), 2 * geometry.out_elements());
        let alone = pooled(&mut cuda, pooling, &one, (&x[inside..], &dy[outside..]), 0);
        assert_same_bits(&all[0][outside..], &alone[0]);
        assert_same_bits(&all[1][inside..], &alone[1]);
    }
    cuda.synchronize().unwrap();
}

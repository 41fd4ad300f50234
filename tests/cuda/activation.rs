//! Functions of elements, softmax, sums over rows, additions and dropout against the CPU's.

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Accumulate, Activate, Activation, DropoutKey, Memory, Saved};

use crate::matmul::ACTIVATIONS;
use crate::twins::{
    F32_ERROR, Inset, assert_alike, assert_close, assert_same_bits, cuda, for_random_sizes,
    normals, twins,
};

/// Around warps and quads.
const LENGTHS: [usize; 7] = [0, 1, 3, 31, 33, 257, 500];

/// What is not finite, and what becomes so, with ordinary numbers beside it.
const SPECIALS: [f32; 13] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-30,
    -1e-30,
    100.0,
    -100.0,
    3e38,
    -3e38,
    2.0,
    -0.5,
];

/// Outputs of `activate`, of `activate_in_place`, and gradients, all of slices that begin at `before`
/// and, for `dy`, one later.
fn activated<B: Activate>(
    backend: &mut B,
    activation: Activation,
    (x, dy): (&[f32], &[f32]),
    before: usize,
) -> [Vec<f32>; 3] {
    let inputs = Inset::new(backend, before, x);
    let mut y = Inset::room(backend, before, x.len());
    backend.activate(activation, inputs.view(), y.view_mut());
    let mut in_place = Inset::new(backend, before + 1, x);
    backend.activate_in_place(activation, in_place.view_mut());
    let mut dx = Inset::new(backend, before + 1, dy);
    let saved = match activation.saved() {
        Saved::Input => &inputs,
        Saved::Output => &y,
    };
    backend.activate_backward(activation, saved.view(), dx.view_mut());
    [y, in_place, dx].map(|inset| inset.download(backend))
}

#[test]
fn every_activation_and_its_gradient() {
    let mut cuda = cuda();
    for activation in ACTIVATIONS {
        for len in LENGTHS {
            let x: Vec<f32> = normals(1, len).iter().map(|x| 2.0 * x).collect();
            let dy = normals(2, len);
            for before in [0, 1, 3] {
                let (cpu, gpu) = twins!(on &mut cuda, activated, activation, (&x, &dy), before);
                for (cpu, gpu) in cpu.iter().zip(&gpu) {
                    assert_close(cpu, gpu, F32_ERROR);
                }
            }
        }
    }
}

#[test]
fn activations_of_what_is_not_finite() {
    let mut cuda = cuda();
    for activation in ACTIVATIONS {
        let dy = [2.0; SPECIALS.len()];
        let (cpu, gpu) = twins!(on &mut cuda, activated, activation, (&SPECIALS, &dy), 0);
        for (cpu, gpu) in cpu.iter().zip(&gpu) {
            assert_alike(cpu, gpu, 1e-5);
        }
        // The other way round: a gate that is closed for NaN and infinity.
        let saved = [
            1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 2.0,
        ];
        let (cpu, gpu) = twins!(on &mut cuda, activated, activation, (&saved, &SPECIALS), 0);
        assert_alike(&cpu[2], &gpu[2], 1e-5);
    }
}

fn softmaxes<B: Activate>(
    backend: &mut B,
    columns: usize,
    (x, dy): (&[f32], &[f32]),
    before: usize,
) -> [Vec<f32>; 2] {
    let x_inset = Inset::new(backend, before, x);
    let mut y = Inset::room(backend, before + 1, x.len());
    backend.softmax(columns, x_inset.view(), y.view_mut());
    let mut dx = Inset::new(backend, before, dy);
    backend.softmax_backward(columns, y.view(), dx.view_mut());
    [y, dx].map(|inset| inset.download(backend))
}

#[test]
fn softmax_and_its_gradient() {
    let mut cuda = cuda();
    for columns in [1, 3, 10, 31, 32, 33, 100, 257, 1025] {
        for rows in [1, 3, 33] {
            let x: Vec<f32> = normals(3, rows * columns).iter().map(|x| 5.0 * x).collect();
            let dy = normals(4, rows * columns);
            let (cpu, gpu) = twins!(on &mut cuda, softmaxes, columns, (&x, &dy), 3);
            assert_close(&cpu[0], &gpu[0], F32_ERROR);
            match columns {
                // Nothing but rounding errors: what should be zero.
                1 => assert!(gpu[1].iter().all(|x| x.abs() < 1e-6)),
                _ => assert_close(&cpu[1], &gpu[1], F32_ERROR),
            }
        }
    }
}

#[test]
fn softmax_of_what_is_not_finite() {
    let mut cuda = cuda();
    for columns in [3, 40] {
        let mut x = normals(5, 6 * columns);
        x[0] = f32::NAN;
        x[columns + 1] = f32::INFINITY;
        x[2 * columns + 2] = f32::NEG_INFINITY;
        x[3 * columns..4 * columns].fill(f32::NEG_INFINITY);
        x[4 * columns] = 3e38;
        let dy = normals(6, x.len());
        let (cpu, gpu) = twins!(on &mut cuda, softmaxes, columns, (&x, &dy), 0);
        assert_alike(&cpu[0], &gpu[0], 1e-5);
        // A row that is NaN has gradients that are.
        for row in 0..6 {
            let is_nan = |x: &[f32]| x[row * columns..][..columns].iter().all(|x| x.is_nan());
            assert_eq!(is_nan(&cpu[1]), is_nan(&gpu[1]));
        }
    }
}

fn additions<B: Activate>(backend: &mut B, len: usize, before: usize) -> [Vec<f32>; 2] {
    let a = Inset::new(backend, before, &normals(7, len));
    let b = Inset::new(backend, before, &normals(8, len));
    let mut sum = Inset::room(backend, 0, len);
    backend.add(a.view(), b.view(), sum.view_mut());
    let mut assigned = Inset::new(backend, 2, &normals(9, len));
    backend.add_assign(a.view(), assigned.view_mut());
    [sum, assigned].map(|inset| inset.download(backend))
}

#[test]
fn additions_have_the_bits_of_the_cpu() {
    let mut cuda = cuda();
    // The last is more than the threads of the largest grid take at once.
    for len in LENGTHS.into_iter().chain([(1 << 22) + 1029]) {
        for before in [0, 1, 3] {
            if len > 1000 && before != 1 {
                continue;
            }
            let (cpu, gpu) = twins!(on &mut cuda, additions, len, before);
            assert_same_bits(&cpu[0], &gpu[0]);
            assert_same_bits(&cpu[1], &gpu[1]);
        }
    }
}

fn summed<B: Activate>(
    backend: &mut B,
    columns: usize,
    x: &[f32],
    write: Accumulate,
    before: usize,
) -> Vec<f32> {
    let x = Inset::new(backend, before, x);
    let mut sums = Inset::new(backend, before + 1, &normals(10, columns));
    backend.sum_rows(columns, x.view(), sums.view_mut(), write);
    sums.download(backend)
}

#[test]
fn sums_over_rows_have_the_bits_of_the_cpu() {
    let mut cuda = cuda();
    for rows in [0, 1, 3, 63, 64, 65, 257] {
        for columns in [1, 3, 31, 33, 257] {
            let x = normals(11, rows * columns);
            for write in [Accumulate::Set, Accumulate::Add] {
                let (cpu, gpu) = twins!(on &mut cuda, summed, columns, &x, write, 1);
                assert_same_bits(&cpu, &gpu);
            }
        }
    }
}

const KEY: DropoutKey = DropoutKey {
    seed: 0x0123_4567_89ab_cdef,
    step: (1 << 32) + 7,
    layer: 3,
    first_sample: (1 << 32) - 2,
};

fn dropped<B: Activate>(
    backend: &mut B,
    rate: f32,
    columns: usize,
    x: &[f32],
    before: usize,
) -> Vec<f32> {
    let x_inset = Inset::new(backend, before, x);
    let mut y = Inset::room(backend, before, x.len());
    backend.dropout(KEY, rate, columns, x_inset.view(), y.view_mut());
    y.download(backend)
}

#[test]
fn dropout_has_the_bits_of_the_cpu() {
    let mut cuda = cuda();
    for columns in [1, 3, 4, 31, 33, 256, 257] {
        for rows in [0, 1, 5] {
            let mut x = normals(12, rows * columns);
            if let Some(x) = x.last_mut() {
                *x = f32::INFINITY;
            }
            for rate in [0.0, 0.2, 0.9] {
                for before in [0, 3] {
                    let (cpu, gpu) = twins!(on &mut cuda, dropped, rate, columns, &x, before);
                    assert_same_bits(&cpu, &gpu);
                }
            }
        }
    }
}

#[test]
fn random_rows_and_columns() {
    let mut cuda = cuda();
    // At least two columns: the gradients of softmax of one are nothing but rounding errors.
    for_random_sizes(10, 5, [40, 150, 4], |[rows, columns, before]| {
        let columns = columns + 1;
        let (x, dy) = (normals(16, rows * columns), normals(17, rows * columns));
        for activation in ACTIVATIONS {
            let (cpu, gpu) = twins!(on &mut cuda, activated, activation, (&x, &dy), before);
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                assert_close(cpu, gpu, F32_ERROR);
            }
        }
        let (cpu, gpu) = twins!(on &mut cuda, softmaxes, columns, (&x, &dy), before);
        assert_close(&cpu[0], &gpu[0], F32_ERROR);
        assert_close(&cpu[1], &gpu[1], F32_ERROR);
        let (cpu, gpu) = twins!(on &mut cuda, additions, x.len(), before);
        assert_same_bits(&cpu.concat(), &gpu.concat());
        let (cpu, gpu) = twins!(on &mut cuda, summed, columns, &x, Accumulate::Add, before);
        assert_same_bits(&cpu, &gpu);
        let (cpu, gpu) = twins!(on &mut cuda, dropped, 0.3, columns, &x, before);
        assert_same_bits(&cpu, &gpu);
    });
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice() {
    fn all(cuda: &mut Cuda, x: &[f32], dy: &[f32], before: usize) -> Vec<f32> {
        let mut values = Vec::new();
        for activation in ACTIVATIONS {
            values.extend(activated(cuda, activation, (x, dy), before).concat());
        }
        values.extend(softmaxes(cuda, x.len(), (x, dy), before).concat());
        values.extend(summed(cuda, 1, x, Accumulate::Set, before));
        values.extend(dropped(cuda, 0.5, x.len(), x, before));
        values
    }
    let mut cuda = cuda();
    let (x, dy) = (normals(13, 67), normals(14, 67));
    let expected = all(&mut cuda, &x, &dy, 0);
    for before in 1..8 {
        assert_same_bits(&expected, &all(&mut cuda, &x, &dy, before));
    }
    // Elements and rows alone and among others.
    let mut many = normals(15, 67 * 40);
    many[67 * 31..67 * 32].copy_from_slice(&x);
    for activation in ACTIVATIONS {
        let alone = activated(&mut cuda, activation, (&x, &dy), 0);
        let among = activated(&mut cuda, activation, (&many, &many), 1);
        assert_same_bits(&alone[0], &among[0][67 * 31..67 * 32]);
    }
    let alone = softmaxes(&mut cuda, 67, (&x, &x), 0);
    let among = softmaxes(&mut cuda, 67, (&many, &many), 1);
    assert_same_bits(&alone[0], &among[0][67 * 31..67 * 32]);
    assert_same_bits(&alone[1], &among[1][67 * 31..67 * 32]);
    cuda.synchronize().unwrap();
}

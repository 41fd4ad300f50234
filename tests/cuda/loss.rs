//! Losses, their gradients and reports against the CPU's.

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Compared, Loss, Losses, Memory};
use ringstep::random::Stream;

use crate::twins::{
    F32_ERROR, Inset, assert_alike, assert_close, assert_same_bits, cuda, download,
    for_random_sizes, normals, twins, upload,
};

const ELEMENTWISE: [Loss; 7] = [
    Loss::SigmoidCrossEntropy { smoothing: 0.0 },
    Loss::SigmoidCrossEntropy { smoothing: 0.2 },
    Loss::SquaredError,
    Loss::AbsoluteError,
    Loss::Huber { delta: 0.5 },
    Loss::Huber { delta: 10.0 },
    Loss::Huber { delta: 0.0 },
];

const SOFTMAX: [Loss; 2] = [
    Loss::SoftmaxCrossEntropy { smoothing: 0.0 },
    Loss::SoftmaxCrossEntropy { smoothing: 0.1 },
];

/// Rows and outputs, around warps, teams, batches of loads and the rows that a report stages.
const SHAPES: [(usize, usize); 10] = [
    (1, 1),
    (3, 3),
    (33, 10),
    (5, 31),
    (3, 33),
    (3, 100),
    (2, 257),
    (1, 1025),
    (257, 2),
    (600, 1),
];

/// What is compared, on the host.
#[derive(Clone)]
struct Given {
    rows: usize,
    outputs: Vec<f32>,
    targets: Vec<f32>,
    weights: Option<Vec<f32>>,
}

/// The report and the gradient; the gradient is asked where `is_asked`.
fn computed<B: Losses>(
    backend: &mut B,
    loss: Loss,
    given: &Given,
    is_asked: bool,
    before: usize,
) -> (Vec<f64>, Vec<f32>) {
    let outputs = Inset::new(backend, before, &given.outputs);
    let targets = Inset::new(backend, before + 1, &given.targets);
    let weights = given.weights.as_ref();
    let weights = weights.map(|weights| Inset::new(backend, before + 2, weights));
    let mut gradient = Inset::room(backend, before, given.outputs.len());
    let mut report = upload(backend, &[-1.0f64; 6]);
    let compared = Compared {
        outputs: outputs.view(),
        targets: targets.view(),
        weights: weights.as_ref().map(|weights| weights.view()),
    };
    let slot = B::slice_mut(B::view_mut(&mut report), 1..5);
    let asked = is_asked.then(|| gradient.view_mut());
    backend.loss(loss, given.rows, compared, slot, asked);
    let report = download(backend, &report);
    assert_eq!((report[0], report[5]), (-1.0, -1.0));
    (report[1..5].to_vec(), gradient.download(backend))
}

/// A share of correct classes, targets that sum to 1, classes as indices, and plain numbers.
fn given(rows: usize, columns: usize, targets: Vec<f32>, is_weighted: bool) -> Given {
    let outputs = normals(1, rows * columns);
    let weight = |x: f32| if x < -1.0 { 0.0 } else { x.abs() };
    let weights = normals(2, rows).into_iter().map(weight).collect();
    Given {
        rows,
        outputs: outputs.iter().map(|x| 3.0 * x).collect(),
        targets,
        weights: is_weighted.then_some(weights),
    }
}

fn classes(rows: usize, columns: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "classes");
    (0..rows)
        .map(|_| stream.below(columns as u32) as f32)
        .collect()
}

fn distributions(rows: usize, columns: usize) -> Vec<f32> {
    let mut rows = normals(4, rows * columns);
    for row in rows.chunks_mut(columns) {
        row.iter_mut().for_each(|x| *x = x.exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
    rows
}

/// Relative to what the terms are, which may cancel.
#[track_caller]
fn assert_same_report(cpu: &[f64], gpu: &[f64]) {
    let close = |a: f64, b: f64, error: f64| {
        assert!(
            (a - b).abs() <= error * a.abs().max(1.0),
            "{cpu:?} and {gpu:?}"
        );
    };
    close(cpu[0], gpu[0], 1e-6);
    // Exact terms, in double precision.
    close(cpu[2], gpu[2], 1e-12);
    assert_eq!((cpu[1], cpu[3]), (gpu[1], gpu[3]));
}

/// Every loss of so many rows and outputs.
fn check(cuda: &mut Cuda, rows: usize, columns: usize) {
    let mut cases = Vec::new();
    for loss in ELEMENTWISE {
        let mut targets = normals(5, rows * columns);
        if matches!(loss, Loss::SigmoidCrossEntropy { .. }) {
            targets.iter_mut().for_each(|y| *y = f32::from(*y > 0.3));
        }
        cases.push((loss, targets));
    }
    for loss in SOFTMAX {
        cases.push((loss, classes(rows, columns)));
        cases.push((loss, distributions(rows, columns)));
    }
    for (loss, targets) in cases {
        for is_weighted in [false, true] {
            let given = given(rows, columns, targets.clone(), is_weighted);
            let (cpu, gpu) = twins!(on cuda, computed, loss, &given, true, 1);
            assert_same_report(&cpu.0, &gpu.0);
            assert_close(&cpu.1, &gpu.1, F32_ERROR);
            // Without the gradient: nothing is written, and the report is the same.
            let (report, nothing) = computed(cuda, loss, &given, false, 1);
            assert_same_bits(&gpu.0, &report);
            assert!(nothing.iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn every_loss_of_any_shape() {
    let mut cuda = cuda();
    for (rows, columns) in SHAPES {
        check(&mut cuda, rows, columns);
    }
}

#[test]
fn every_loss_of_random_shapes() {
    let mut cuda = cuda();
    for_random_sizes(7, 4, [150, 80], |[rows, columns]| {
        check(&mut cuda, rows, columns);
    });
}

#[test]
fn no_rows_make_an_empty_report() {
    let mut cuda = cuda();
    for loss in [ELEMENTWISE[0], SOFTMAX[0]] {
        let given = given(0, 4, vec![], true);
        let (cpu, gpu) = twins!(on &mut cuda, computed, loss, &given, true, 0);
        assert_same_bits(&cpu.0, &gpu.0);
        assert_eq!(gpu.0, [0.0; 4]);
    }
}

#[test]
fn a_class_that_is_none_has_a_loss_that_is_none() {
    let mut cuda = cuda();
    for class in [-1.0, 3.0, 0.5, f32::NAN, f32::INFINITY, -0.0, 2.0] {
        let given = given(2, 3, vec![1.0, class], false);
        let (cpu, gpu) = twins!(on &mut cuda, computed, SOFTMAX[0], &given, true, 0);
        assert_eq!(cpu.0[0].is_nan(), gpu.0[0].is_nan(), "class {class}");
        assert_eq!(cpu.0[1..], gpu.0[1..], "class {class}");
        assert_alike(&cpu.1, &gpu.1, 1e-5);
    }
}

/// Outputs whose largest is hard to tell: equal ones, zeros of both signs, infinities, NaNs.
const TIES: [[f32; 4]; 9] = [
    [1.0, 2.0, 2.0, 0.0],
    [-0.0, 0.0, 0.0, -1.0],
    [0.0, -0.0, -1.0, 0.0],
    [-1.0, -2.0, -1.0, -3.0],
    [f32::NAN, 1.0, 5.0, 2.0],
    [1.0, f32::NAN, 5.0, 2.0],
    [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NAN, -3e38],
    [f32::NEG_INFINITY; 4],
    [1.0, f32::INFINITY, f32::INFINITY, f32::NAN],
];

#[test]
fn the_first_of_the_largest_outputs_counts() {
    let mut cuda = cuda();
    for outputs in TIES {
        for class in 0..4 {
            let mut one_hot = vec![0.0; 4];
            one_hot[class] = 1.0;
            for targets in [vec![class as f32], one_hot, TIES[class].to_vec()] {
                let given = Given {
                    rows: 1,
                    outputs: outputs.to_vec(),
                    targets,
                    weights: None,
                };
                let (cpu, gpu) = twins!(on &mut cuda, computed, SOFTMAX[0], &given, true, 0);
                assert_eq!(cpu.0[2], gpu.0[2], "{outputs:?} {class}");
                assert_alike(&[cpu.0[0] as f32], &[gpu.0[0] as f32], 1e-5);
                assert_alike(&cpu.1, &gpu.1, 1e-5);
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_told() {
    let mut cuda = cuda();
    let specials = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        100.0,
        -100.0,
        3e38,
    ];
    for loss in ELEMENTWISE {
        for output in specials {
            for target in [0.0, 1.0, 0.5, f32::NAN, f32::INFINITY, 3e38] {
                let given = Given {
                    rows: 2,
                    outputs: vec![output, 0.3],
                    targets: vec![target, 1.0],
                    weights: Some(vec![1.0, 2.0]),
                };
                let (cpu, gpu) = twins!(on &mut cuda, computed, loss, &given, true, 0);
                let single = |report: &[f64]| report.iter().map(|&x| x as f32).collect::<Vec<_>>();
                assert_alike(&single(&cpu.0), &single(&gpu.0), 1e-5);
                assert_alike(&cpu.1, &gpu.1, 1e-5);
            }
        }
    }
}

#[test]
fn more_rows_than_scratch_memory_holds_are_added_in_order() {
    let mut cuda = cuda();
    let rows = (1 << 16) + 300;
    let given = given(rows, 1, normals(6, rows), true);
    let (cpu, gpu) = twins!(on &mut cuda, computed, Loss::SquaredError, &given, true, 1);
    // One output a row: even the order of the terms is the CPU's.
    assert_same_bits(&cpu.0, &gpu.0);
    assert_same_bits(&cpu.1, &gpu.1);
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice() {
    let mut cuda = cuda();
    let (rows, columns) = (21, 13);
    for loss in ELEMENTWISE.into_iter().chain(SOFTMAX) {
        let given = given(rows, columns, distributions(rows, columns), true);
        let (report, all) = computed(&mut cuda, loss, &given, true, 0);
        for before in 1..8 {
            let (moved, gradient) = computed(&mut cuda, loss, &given, true, before);
            assert_same_bits(&report, &moved);
            assert_same_bits(&all, &gradient);
        }
        // The last row alone.
        let last = (rows - 1) * columns;
        let alone = Given {
            rows: 1,
            outputs: given.outputs[last..].to_vec(),
            targets: given.targets[last..].to_vec(),
            weights: given.weights.map(|weights| weights[rows - 1..].to_vec()),
        };
        let (_, gradient) = computed(&mut cuda, loss, &alone, true, 0);
        assert_same_bits(&all[last..], &gradient);
    }
    cuda.synchronize().unwrap();
}

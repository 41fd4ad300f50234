//! Losses against TensorFlow and against double precision.

use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Compared, Loss, Losses};

use super::golden::{Tensor, distance, read};

/// Report and gradient.
fn run(loss: Loss, rows: usize, x: &[f32], y: &[f32], w: Option<&[f32]>) -> ([f64; 4], Vec<f32>) {
    let (mut report, mut gradient) = ([f64::NAN; 4], vec![f32::NAN; x.len()]);
    let compared = Compared {
        outputs: x,
        targets: y,
        weights: w,
    };
    Cpu::new().loss(loss, rows, compared, &mut report, Some(&mut gradient));
    let mut alone = [f64::NAN; 4];
    let compared = Compared {
        outputs: x,
        targets: y,
        weights: w,
    };
    Cpu::new().loss(loss, rows, compared, &mut alone, None);
    assert_eq!(
        report.map(f64::to_bits),
        alone.map(f64::to_bits),
        "{loss:?}"
    );
    (report, gradient)
}

fn assert_golden(name: &str, loss: Loss, tolerance: f64, to_output: impl Fn(f32) -> f32) {
    let value = |key: &str| read::<f64>(&["losses", name, key]);
    let tensor = |key: &str| read::<Tensor>(&["losses", name, key]);
    let x: Vec<f32> = tensor("y_pred").data.into_iter().map(to_output).collect();
    let (y, w) = (tensor("y_true").data, tensor("sample_weight").data);
    let rows = w.len();
    for (key, weights) in [("value", None), ("weighted", Some(&*w))] {
        let (report, _) = run(loss, rows, &x, &y, weights);
        let (mean, wanted) = (report[0] / report[3], value(key));
        let error = (mean - wanted).abs() / wanted;
        assert!(error <= tolerance, "{name}, {key}: {mean}, wanted {wanted}");
    }
}

#[test]
fn values_follow_tensorflow() {
    let softmax = |smoothing| Loss::SoftmaxCrossEntropy { smoothing };
    let sigmoid = Loss::SigmoidCrossEntropy { smoothing: 0.0 };
    let as_is = |x: f32| x;
    assert_golden("categorical_crossentropy_logits", softmax(0.0), 1e-6, as_is);
    assert_golden(
        "sparse_categorical_crossentropy_logits",
        softmax(0.0),
        1e-6,
        as_is,
    );
    assert_golden("binary_crossentropy_logits", sigmoid, 1e-6, as_is);
    assert_golden("mse", Loss::SquaredError, 1e-6, as_is);
    assert_golden("mae", Loss::AbsoluteError, 1e-6, as_is);
    assert_golden("huber", Loss::Huber { delta: 1.0 }, 1e-6, as_is);
    // Probabilities are the softmax of their logarithms.
    assert_golden("categorical_crossentropy", softmax(0.0), 1e-6, f32::ln);
    assert_golden(
        "categorical_crossentropy_smooth.1",
        softmax(0.1),
        1e-6,
        f32::ln,
    );
    assert_golden(
        "sparse_categorical_crossentropy",
        softmax(0.0),
        1e-6,
        f32::ln,
    );
    // Keras adds 1e-7 to probabilities, which is 1e-4 of 0.001.
    let logit = |p: f32| (p / (1.0 - p)).ln();
    assert_golden("binary_crossentropy", sigmoid, 5e-5, logit);
}

/// The loss of a row in double precision.
fn exact(loss: Loss, x: &[f64], y: &[f64]) -> f64 {
    let n = x.len() as f64;
    let mean =
        |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(&x, &y)| f(x, y)).sum::<f64>() / n;
    match loss {
        Loss::SoftmaxCrossEntropy { smoothing } => {
            let s = f64::from(smoothing);
            let log_sum = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            x.iter()
                .zip(y)
                .map(|(x, y)| (log_sum - x) * (y * (1.0 - s) + s / n))
                .sum()
        }
        Loss::SigmoidCrossEntropy { smoothing } => {
            let s = f64::from(smoothing);
            mean(&|x, y| {
                let y = y * (1.0 - s) + s / 2.0;
                x.exp().ln_1p() - x * y
            })
        }
        Loss::SquaredError => mean(&|x, y| (x - y).powi(2)),
        Loss::AbsoluteError => mean(&|x, y| (x - y).abs()),
        Loss::Huber { delta } => {
            let d = f64::from(delta);
            mean(&|x, y| {
                let far = (x - y).abs();
                if far > d {
                    d * (far - d / 2.0)
                } else {
                    far * far / 2.0
                }
            })
        }
    }
}

#[test]
fn values_and_gradients_follow_double_precision() {
    let (rows, columns) = (9, 5);
    let number = |i: usize, a: f32| ((i as f32) * a).sin() * 4.0;
    let x: Vec<f32> = (0..rows * columns).map(|i| number(i, 1.7)).collect();
    let shares: Vec<f32> = (0..rows * columns)
        .map(|i| (number(i, 0.9) + 4.0) / 8.0)
        .collect();
    let numbers: Vec<f32> = (0..rows * columns).map(|i| number(i, 2.3)).collect();
    let weights: Vec<f32> = (0..rows).map(|i| (i % 4) as f32 / 2.0).collect();
    let mut distributions = shares.clone();
    for row in distributions.chunks_mut(columns) {
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|y| *y /= sum);
    }
    for (loss, y) in [
        (Loss::SoftmaxCrossEntropy { smoothing: 0.0 }, &distributions),
        (Loss::SoftmaxCrossEntropy { smoothing: 0.2 }, &distributions),
        (Loss::SigmoidCrossEntropy { smoothing: 0.0 }, &shares),
        (Loss::SigmoidCrossEntropy { smoothing: 0.2 }, &shares),
        (Loss::SquaredError, &numbers),
        (Loss::AbsoluteError, &numbers),
        (Loss::Huber { delta: 1.5 }, &numbers),
    ] {
        let (report, gradient) = run(loss, rows, &x, y, Some(&weights));
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (mut sum, mut slopes) = (0.0, Vec::new());
        for row in 0..rows {
            let part = row * columns..(row + 1) * columns;
            let (mut x, y) = (wide(&x[part.clone()]), wide(&y[part]));
            let weight = f64::from(weights[row]);
            sum += weight * exact(loss, &x, &y);
            for i in 0..columns {
                let (middle, h) = (x[i], 1e-5);
                x[i] = middle + h;
                let above = exact(loss, &x, &y);
                x[i] = middle - h;
                let below = exact(loss, &x, &y);
                x[i] = middle;
                slopes.push((weight * (above - below) / (2.0 * h)) as f32);
            }
        }
        assert!(
            (report[0] - sum).abs() <= 1e-6 * sum,
            "{loss:?}: {} for {sum}",
            report[0]
        );
        let total: f32 = weights.iter().sum();
        assert_eq!((report[1], report[3]), (f64::from(total), rows as f64));
        let error = distance(&gradient, &slopes);
        assert!(error <= 2e-6, "{loss:?}: gradient off by {error:e}");
    }
}

#[test]
fn metrics_count_right_rows_and_absolute_errors() {
    let softmax = Loss::SoftmaxCrossEntropy { smoothing: 0.0 };
    let x = [1.0, 3.0, 3.0, 0.0, -1.0, 5.0];
    // Of equals the first is the largest.
    assert_eq!(run(softmax, 2, &x, &[1.0, 2.0], None).0[2], 2.0);
    assert_eq!(run(softmax, 2, &x, &[2.0, 2.0], None).0[2], 1.0);
    let dense = [0.0, 1.0, 0.0, 0.0, 0.1, 0.9];
    assert_eq!(run(softmax, 2, &x, &dense, None).0[2], 2.0);
    let sigmoid = Loss::SigmoidCrossEntropy { smoothing: 0.0 };
    assert_eq!(
        run(sigmoid, 3, &[-1.0, 0.0, 1.0], &[0.0, 1.0, 1.0], None).0[2],
        2.0
    );
    let half = run(
        Loss::SquaredError,
        2,
        &[1.0, 2.0, 3.0, 4.0],
        &[2.0, 4.0, 3.0, 3.0],
        None,
    );
    assert_eq!(half.0, [3.0, 2.0, 2.0, 2.0]);
}

#[test]
fn what_is_not_a_number_is_reported_as_such() {
    let all = [
        Loss::SoftmaxCrossEntropy { smoothing: 0.1 },
        Loss::SigmoidCrossEntropy { smoothing: 0.0 },
        Loss::SquaredError,
        Loss::AbsoluteError,
        Loss::Huber { delta: 1.0 },
    ];
    for loss in all {
        let y = [0.0, 1.0, 1.0, 0.0];
        let (report, gradient) = run(loss, 2, &[0.5, 0.25, f32::NAN, 1.0], &y, None);
        assert!(
            report[0].is_nan() && gradient[2].is_nan(),
            "{loss:?}: {report:?}"
        );
        assert!(gradient[..2].iter().all(|dx| dx.is_finite()), "{loss:?}");
    }
    // A class that does not exist.
    for class in [-1.0, 3.0, 0.5, f32::NAN] {
        let (report, _) = run(all[0], 1, &[0.5, 0.25, 0.5], &[class], None);
        assert!(report[0].is_nan(), "class {class}: {report:?}");
    }
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    let softmax = Loss::SoftmaxCrossEntropy { smoothing: 0.0 };
    let (report, gradient) = run(softmax, 1, &[1e4, -1e4], &[1.0], None);
    assert_eq!((report[0], &*gradient), (2e4, &[1.0, -1.0][..]));
    let sigmoid = Loss::SigmoidCrossEntropy { smoothing: 0.0 };
    let (report, gradient) = run(sigmoid, 2, &[1e4, -1e4], &[0.0, 1.0], None);
    assert_eq!((report[0], &*gradient), (2e4, &[1.0, -1.0][..]));
}

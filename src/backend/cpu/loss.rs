//! Losses with their gradient in one pass.

use super::Cpu;
use super::activation::{exp, sigmoid};
use crate::backend::{Compared, Loss, Losses};

impl Losses for Cpu {
    fn loss(
        &mut self,
        loss: Loss,
        rows: usize,
        compared: Compared<'_, Self>,
        report: &mut [f64],
        mut gradient: Option<&mut [f32]>,
    ) {
        let Compared {
            outputs,
            targets,
            weights,
        } = compared;
        let columns = outputs.len() / rows.max(1);
        let width = targets.len() / rows.max(1);
        let mut totals = [0.0, 0.0, 0.0, rows as f64];
        for row in 0..rows {
            let weight = weights.map_or(1.0, |weights| weights[row]);
            let x = &outputs[row * columns..][..columns];
            let y = &targets[row * width..][..width];
            let dx = gradient
                .as_deref_mut()
                .map(|all| &mut all[row * columns..][..columns]);
            let (value, metric) = match loss {
                Loss::SoftmaxCrossEntropy { smoothing } => softmax(smoothing, weight, x, y, dx),
                _ => elementwise(loss, weight, x, y, dx),
            };
            totals[0] += f64::from(weight) * value;
            totals[1] += f64::from(weight);
            totals[2] += metric;
        }
        report.copy_from_slice(&totals);
    }
}

fn softmax(
    smoothing: f32,
    weight: f32,
    x: &[f32],
    y: &[f32],
    dx: Option<&mut [f32]>,
) -> (f64, f64) {
    let classes = x.len();
    let is_index = y.len() == 1 && classes > 1;
    let label = |class: usize| {
        let label = match is_index {
            true => f32::from(y[0] == class as f32),
            false => y[class],
        };
        label * (1.0 - smoothing) + smoothing / classes as f32
    };
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    let mut expected = 0.0;
    for (class, &x) in x.iter().enumerate() {
        sum += f64::from(exp(x - largest));
        expected += f64::from(label(class)) * f64::from(x - largest);
    }
    if is_index && !(y[0].fract() == 0.0 && (0.0..classes as f32).contains(&y[0])) {
        // No such class: nothing can be said about this row.
        expected = f64::NAN;
    }
    if let Some(dx) = dx {
        let inverse = (1.0 / sum) as f32;
        for (class, dx) in dx.iter_mut().enumerate() {
            *dx = weight * (exp(x[class] - largest) * inverse - label(class));
        }
    }
    let right = if is_index {
        argmax(x) as f32 == y[0]
    } else {
        argmax(x) == argmax(y)
    };
    (sum.ln() - expected, f64::from(u8::from(right)))
}

/// Index of the largest value, the first of equals.
fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

fn elementwise(
    loss: Loss,
    weight: f32,
    x: &[f32],
    y: &[f32],
    dx: Option<&mut [f32]>,
) -> (f64, f64) {
    let count = x.len() as f64;
    let (mut value, mut metric) = (0.0, 0.0);
    for (&x, &y) in x.iter().zip(y) {
        value += loss_of(loss, x, y);
        metric += match loss {
            Loss::SigmoidCrossEntropy { .. } => f64::from(u8::from((x > 0.0) == (y > 0.5))),
            _ => f64::from((x - y).abs()),
        };
    }
    if let Some(dx) = dx {
        let share = weight / x.len() as f32;
        for ((dx, &x), &y) in dx.iter_mut().zip(x).zip(y) {
            *dx = share * slope_of(loss, x, y);
        }
    }
    (value / count, metric / count)
}

fn smoothed(smoothing: f32, y: f32) -> f32 {
    y * (1.0 - smoothing) + 0.5 * smoothing
}

fn loss_of(loss: Loss, x: f32, y: f32) -> f64 {
    let difference = f64::from(x) - f64::from(y);
    match loss {
        Loss::SigmoidCrossEntropy { smoothing } => {
            let (x, y) = (f64::from(x), f64::from(smoothed(smoothing, y)));
            // Not `max`, which would lose a NaN.
            let positive = if x < 0.0 { 0.0 } else { x };
            positive - x * y + (-x.abs()).exp().ln_1p()
        }
        Loss::AbsoluteError => difference.abs(),
        Loss::Huber { delta } => {
            let delta = f64::from(delta);
            match difference.abs() > delta {
                true => delta * difference.abs() - 0.5 * delta * delta,
                false => 0.5 * difference * difference,
            }
        }
        Loss::SquaredError | Loss::SoftmaxCrossEntropy { .. } => difference * difference,
    }
}

fn slope_of(loss: Loss, x: f32, y: f32) -> f32 {
    let difference = x - y;
    match loss {
        Loss::SigmoidCrossEntropy { smoothing } => sigmoid(x) - smoothed(smoothing, y),
        // The slope at 0 is 0.
        Loss::AbsoluteError if difference == 0.0 => 0.0,
        Loss::AbsoluteError => difference.signum(),
        Loss::Huber { delta } => difference.clamp(-delta, delta),
        Loss::SquaredError | Loss::SoftmaxCrossEntropy { .. } => 2.0 * difference,
    }
}

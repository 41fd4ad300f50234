//! The optimizers' rules in double precision.

use ringstep::optim::*;
use ringstep::params::Group;

/// The rules once more, in double precision and tensor by tensor.
pub(crate) fn reference(
    spec: &OptimizerSpec,
    group: Group,
    t: i32,
    rate: f64,
    p: &mut [f64],
    g: &[f64],
    state: &mut [Vec<f64>; 3],
) {
    let decays = f64::from(u8::from(group == Group::Decay));
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let [a, b, c] = state;
    let shrink = |p: &mut f64, weight_decay: f64| *p -= *p * weight_decay * rate * decays;
    match spec {
        OptimizerSpec::Sgd(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            a[i] = s.momentum * a[i] - rate * g[i];
            let ahead = s.momentum * a[i] - rate * g[i];
            p[i] += if s.nesterov { ahead } else { a[i] };
        }),
        OptimizerSpec::AdamW(s) => {
            let AdamW {
                learning_rate,
                beta_1,
                beta_2,
                epsilon,
                weight_decay,
            } = *s;
            let adam = Adam {
                learning_rate,
                beta_1,
                beta_2,
                epsilon,
                weight_decay,
            };
            reference(&adam.into(), group, t, rate, p, g, state);
        }
        OptimizerSpec::Adam(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            a[i] = s.beta_1 * a[i] + (1.0 - s.beta_1) * g[i];
            b[i] = s.beta_2 * b[i] + (1.0 - s.beta_2) * g[i] * g[i];
            let corrected = (1.0 - s.beta_2.powi(t)).sqrt() / (1.0 - s.beta_1.powi(t));
            p[i] -= rate * corrected * a[i] / (b[i].sqrt() + s.epsilon);
        }),
        OptimizerSpec::Adagrad(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            a[i] += g[i] * g[i] + if t == 1 { s.initial_accumulator } else { 0.0 };
            p[i] -= rate * g[i] / (a[i].sqrt() + s.epsilon);
        }),
        OptimizerSpec::RmsProp(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            let before = if t == 1 { s.initial_mean_square } else { a[i] };
            a[i] = s.rho * before + (1.0 - s.rho) * g[i] * g[i];
            b[i] = s.rho * b[i] + (1.0 - s.rho) * g[i];
            let square = if s.centered { a[i] - b[i] * b[i] } else { a[i] };
            let divisor = match s.epsilon_placement {
                EpsilonPlacement::UnderRoot => (square + s.epsilon).sqrt(),
                EpsilonPlacement::BesideRoot => square.max(0.0).sqrt() + s.epsilon,
            };
            c[i] = s.momentum * c[i] + rate * g[i] / divisor;
            p[i] -= c[i];
        }),
        OptimizerSpec::Ftrl(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            let before = if t == 1 { s.initial_accumulator } else { a[i] };
            a[i] = before + g[i] * g[i];
            let power = -s.learning_rate_power;
            let sigma = (a[i].powf(power) - before.powf(power)) / rate;
            b[i] += g[i] + 2.0 * s.l2_shrinkage * p[i] - sigma * p[i];
            let divisor = (a[i].powf(power) + s.beta) / rate + 2.0 * s.l2;
            p[i] = (b[i].clamp(-s.l1, s.l1) - b[i]) / divisor;
        }),
        OptimizerSpec::Lion(s) => (0..p.len()).for_each(|i| {
            shrink(&mut p[i], s.weight_decay);
            p[i] -= rate * (s.beta_1 * a[i] + (1.0 - s.beta_1) * g[i]).signum();
            a[i] = s.beta_2 * a[i] + (1.0 - s.beta_2) * g[i];
        }),
        OptimizerSpec::Lamb(s) => {
            for i in 0..p.len() {
                a[i] = s.beta_1 * a[i] + (1.0 - s.beta_1) * g[i];
                b[i] = s.beta_2 * b[i] + (1.0 - s.beta_2) * g[i] * g[i];
                let root = (b[i] / (1.0 - s.beta_2.powi(t))).sqrt();
                c[i] = a[i] / (1.0 - s.beta_1.powi(t)) / (root + s.epsilon)
                    + decays * s.weight_decay * p[i];
            }
            let ratio = if decays == 1.0 {
                norm(p) / norm(c)
            } else {
                1.0
            };
            (0..p.len()).for_each(|i| p[i] -= rate * ratio * c[i]);
        }
        OptimizerSpec::Lars(s) => {
            let (weights, gradient) = (norm(p), norm(g));
            let divisor = gradient + s.weight_decay * weights + s.epsilon;
            let ratio = if decays == 1.0 {
                s.trust * weights / divisor
            } else {
                1.0
            };
            for i in 0..p.len() {
                let direction = g[i] + decays * s.weight_decay * p[i];
                a[i] = s.momentum * a[i] - rate * ratio * direction;
                p[i] += a[i];
            }
        }
    }
}

//! Ten steps beside TensorFlow's, and beside the same rules in double precision.

use crate::golden::{Tensor, distance, read};

use super::update_rules::reference;
use super::*;

/// By how much TensorFlow's corrections of Adam's bias are off: it takes `1 - 0.999^t` in single
/// precision, where 2e-5 of it get lost; at a learning rate of 0.05 this is more than 1e-6 a step.
fn rounding_of_corrections(adam: &Adam, t: i32) -> f64 {
    let exact = (1.0 - adam.beta_2.powi(t)).sqrt() / (1.0 - adam.beta_1.powi(t));
    let power = |beta: f64| f64::from(beta as f32).powi(t) as f32;
    let rounded = (1.0 - power(adam.beta_2)).sqrt() / (1.0 - power(adam.beta_1));
    f64::from(rounded) / exact
}

fn assert_trace(name: &str, rate: f64, clip: Option<ClipSpec>, spec: impl Into<OptimizerSpec>) {
    let start: Tensor = read(&["optimizers", "w0"]);
    let target: Tensor = read(&["optimizers", "target"]);
    let scale: Tensor = read(&["optimizers", "scale"]);
    let wanted: Vec<Vec<f32>> = read(&["optimizers", "w_after_each_step", name]);
    assert_eq!(wanted.len(), 10);
    let layout = layout(&[(start.data.len(), Group::Decay)]);
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    let spec = spec.into();
    let mut replica = Replica::new(&spec, clip, &layout, &everything);
    replica.p[..start.data.len()].copy_from_slice(&start.data);
    for (step, wanted) in wanted.iter().enumerate() {
        for i in 0..wanted.len() {
            replica.g[i] = 2.0 * scale.data[i] * (replica.p[i] - target.data[i]);
        }
        let rounding = match &spec {
            OptimizerSpec::Adam(adam) => rounding_of_corrections(adam, step as i32 + 1),
            OptimizerSpec::AdamW(_) => rounding_of_corrections(&Adam::default(), step as i32 + 1),
            _ => 1.0,
        };
        replica.step(rate * rounding, 1.0, &mut Alone);
        let pairs = replica.p.iter().zip(wanted);
        let errors = pairs.map(|(got, want)| (got - want).abs() / want.abs().max(1.0));
        for error in errors {
            assert!(error <= 1e-6, "{name}, step {step}: off by {error:e}");
        }
    }
}

#[test]
fn traces_follow_tensorflow() {
    let none = None;
    let sgd = Sgd::default();
    let momentum = Sgd {
        momentum: 0.9,
        ..sgd
    };
    assert_trace("SGD", 0.01, none, sgd);
    assert_trace("SGD_mom", 0.05, none, momentum);
    assert_trace(
        "SGD_nesterov",
        0.05,
        none,
        Sgd {
            nesterov: true,
            ..momentum
        },
    );
    assert_trace("Adam", 0.001, none, Adam::default());
    assert_trace("AdamW", 0.05, none, AdamW::default());
    assert_trace("RMSprop", 0.05, none, RmsProp::default());
    assert_trace("Adagrad", 0.05, none, Adagrad::default());
    assert_trace("Ftrl", 0.05, none, Ftrl::default());
    let penalties = Ftrl {
        l1: 0.01,
        l2: 0.02,
        beta: 0.1,
        ..Ftrl::default()
    };
    assert_trace("Ftrl_l1_l2_beta", 0.5, none, penalties);
    assert_trace("Lion", 0.05, none, Lion::default());
    assert_trace(
        "SGD_weight_decay",
        0.05,
        none,
        Sgd {
            weight_decay: 0.1,
            ..sgd
        },
    );
    assert_trace("SGD_clipvalue", 0.05, Some(ClipSpec::Value(0.5)), sgd);
    assert_trace(
        "SGD_global_clipnorm",
        0.05,
        Some(ClipSpec::GlobalNorm(1.0)),
        sgd,
    );
    // The older kernel has the betas, and one less each, in single precision.
    let rounded = Adam {
        beta_1: 0.9_f32.into(),
        beta_2: 0.999_f32.into(),
        ..Adam::default()
    };
    assert_trace("legacy_Adam", 0.05, none, rounded);
    assert_trace("legacy_Adagrad", 0.05, none, Adagrad::default());
    assert_trace("legacy_Ftrl", 0.05, none, Ftrl::default());
    let beside = EpsilonPlacement::BesideRoot;
    let legacy = RmsProp {
        epsilon_placement: beside,
        ..RmsProp::default()
    };
    assert_trace("legacy_RMSprop", 0.05, none, legacy);
}

#[test]
fn every_optimizer_follows_double_precision() {
    let layout = mixed_layout();
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    for spec in every_optimizer() {
        let mut replica = Replica::new(&spec, None, &layout, &everything);
        fill_tensors(&layout, &mut replica.p, 1);
        let mut exact: Vec<Vec<f64>> = layout
            .tensors()
            .iter()
            .map(|tensor| {
                replica.p[tensor.range()]
                    .iter()
                    .map(|&x| x.into())
                    .collect()
            })
            .collect();
        let zeros = |tensor: &Vec<f64>| [(); 3].map(|()| vec![0.0; tensor.len()]);
        let mut states: Vec<_> = exact.iter().map(zeros).collect();
        for step in 1..=10 {
            fill_tensors(&layout, &mut replica.g, 1 + step as u64);
            // Rates that differ from step to step, as under a schedule.
            let rate = 0.02 / f64::from(step);
            replica.step(rate, 0.25, &mut Alone);
            let mut wanted = vec![0.0; replica.p.len()];
            for ((tensor, p), state) in layout.tensors().iter().zip(&mut exact).zip(&mut states) {
                let g = replica.g[tensor.range()].iter();
                let g: Vec<_> = g.map(|&g| 0.25 * f64::from(g)).collect();
                reference(&spec, tensor.group, step, rate, p, &g, state);
                let rounded = p.iter().map(|&p| p as f32).collect::<Vec<_>>();
                wanted[tensor.range()].copy_from_slice(&rounded);
            }
            let error = distance(&replica.p, &wanted);
            // Rounding of ten steps in single precision.
            assert!(error <= 3e-6, "{spec:?}, step {step}: off by {error:e}");
        }
    }
}

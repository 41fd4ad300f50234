//! Learning rate schedules against TensorFlow.

use ringstep::optim::*;

use super::golden::read;

#[test]
fn schedules_follow_keras() {
    let steps: Vec<u64> = read(&["schedules", "steps"]);
    let assert = |name: &str, base: f64, spec: ScheduleSpec| {
        spec.check().unwrap();
        let wanted: Vec<f32> = read(&["schedules", name]);
        for (&step, wanted) in steps.iter().zip(wanted) {
            let rate = spec.rate(base, step);
            // Keras computes in single precision.
            let error = (rate - f64::from(wanted)).abs();
            assert!(
                error <= 1e-6 * base,
                "{name} at step {step}: {rate}, wanted {wanted}"
            );
        }
    };
    let (decay_steps, staircase) = (100, false);
    let exponential = Exponential {
        decay_steps,
        decay_rate: 0.96,
        staircase,
    };
    assert("exponential", 0.1, exponential.into());
    let halves = Exponential {
        decay_steps,
        decay_rate: 0.5,
        staircase: true,
    };
    assert("exponential_staircase", 0.1, halves.into());
    let piecewise = Piecewise {
        boundaries: vec![5, 100],
        values: vec![1.0, 0.5, 0.1],
    };
    assert("piecewise", 1.0, piecewise.into());
    let polynomial = Polynomial {
        decay_steps,
        end_learning_rate: 0.01,
        power: 2.0,
        cycle: false,
    };
    assert("polynomial", 0.1, polynomial.into());
    let inverse = InverseTime {
        decay_steps,
        decay_rate: 0.5,
        staircase,
    };
    assert("inverse_time", 0.1, inverse.into());
    assert(
        "cosine",
        0.1,
        Cosine {
            decay_steps,
            alpha: 0.1,
        }
        .into(),
    );
    let then = Box::new(
        Cosine {
            decay_steps,
            alpha: 0.0,
        }
        .into(),
    );
    assert(
        "cosine_warmup",
        0.1,
        Warmup {
            steps: 50,
            from: 0.0,
            then,
        }
        .into(),
    );
}

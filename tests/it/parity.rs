//! The digits network against TensorFlow: the same weights at the start, the same losses on the way.

use ringstep::comm::{CollectiveChoice, ReduceMode};

use crate::digits::{Digits, Recipe, Variable, distance, variables};

use CollectiveChoice::{Auto, Ring};

fn golden_losses() -> Vec<f64> {
    let text = include_str!("../golden/cnn_digits_parity.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    golden["train_loss"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| loss.as_f64().unwrap())
        .collect()
}

/// Norm of all differences over the norm of all weights.
fn relative_norm(a: &[Variable], b: &[Variable]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        for (&a, &b) in a.values.iter().zip(&b.values) {
            difference += f64::from(a - b).powi(2);
            norm += f64::from(b).powi(2);
        }
    }
    (difference / norm).sqrt()
}

#[test]
fn losses_follow_tensorflow_for_ninety_steps() {
    let golden = golden_losses();
    let digits = Digits::load();
    for (ranks, reduce, micro_batch) in [
        ((1, Auto), ReduceMode::F32, 32),
        ((1, Auto), ReduceMode::Exact, 32),
        ((2, Auto), ReduceMode::Exact, 8),
        ((2, Ring), ReduceMode::Exact, 8),
        ((3, Ring), ReduceMode::Exact, 8),
        ((4, Ring), ReduceMode::Exact, 8),
        ((2, Ring), ReduceMode::F32, 8),
        ((3, Ring), ReduceMode::F32, 8),
        ((4, Ring), ReduceMode::F32, 8),
    ] {
        let recipe = Recipe::adam(reduce, micro_batch, 90);
        let (losses, weights) = digits.train_threads(ranks, &recipe);
        assert_eq!(losses.len(), golden.len());
        for (step, (loss, golden)) in losses.iter().zip(&golden).enumerate() {
            let error = (loss - golden).abs() / golden;
            assert!(
                error < 1e-4,
                "step {step} of {ranks:?}, {reduce:?}: {loss} against {golden}"
            );
        }
        // Adam divides by the gradient's own size, so a weight whose gradient is but rounding moves
        // at random; the weights as a whole do not.
        let distance = relative_norm(&weights, &variables("cnn_digits_final"));
        assert!(
            distance < 1e-3,
            "{ranks:?}, {reduce:?}: weights are {distance} apart"
        );
    }
}

#[test]
fn float_sums_of_several_ranks_stay_close_to_one_rank() {
    let digits = Digits::load();
    let recipe = Recipe::adam(ReduceMode::F32, 8, 50);
    let (_, one) = digits.train_threads((1, Auto), &recipe);
    for ranks in [(4, Auto), (2, Ring), (3, Ring), (4, Ring)] {
        let (_, several) = digits.train_threads(ranks, &recipe);
        let distance = distance(&several, &one);
        assert!(distance < 1e-5, "{ranks:?}: weights are {distance} apart");
    }
}

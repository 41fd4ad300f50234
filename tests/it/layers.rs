//! Every layer against golden numbers and finite differences.

use std::collections::BTreeMap;

use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Accumulate, Activate as _, Activation, Saved};
use ringstep::layers::{
    Activate, ActivationSpec, BatchNorm, Dense, Dropout, Elu, Embedding, Flatten, Initializer,
    LayerNorm, LayerSpec, LeakyRelu, Mode, Residual, Softmax,
};
use serde::Deserialize;

use crate::golden::{self, Tensor, assert_near};
use crate::gradient::{OneLayer, check_finite_differences, check_golden, normal};

fn dense(units: usize, activation: ActivationSpec) -> Dense {
    Dense::new(units).activation(activation)
}

#[test]
fn dense_is_tensorflows() {
    check_golden("dense", dense(3, ActivationSpec::Linear));
    check_golden("dense_relu", dense(6, ActivationSpec::Relu));
    check_golden("dense_softmax", dense(4, ActivationSpec::Softmax));
}

#[test]
fn layers_without_weights_are_tensorflows() {
    check_golden("flatten", Flatten::default());
    check_golden("leakyrelu", LeakyRelu::default());
    check_golden("elu", Elu::default());
    check_golden("softmax", Softmax::default());
}

#[test]
fn normalisations_are_tensorflows() {
    check_golden("bn_train", BatchNorm::default());
    check_golden("bn_infer", BatchNorm::default());
    check_golden("ln", LayerNorm::default());
}

#[test]
fn embedding_is_tensorflows() {
    check_golden("embedding", Embedding::new(7, 3));
}

#[test]
fn activations_are_tensorflows() {
    #[derive(Deserialize)]
    struct Curve {
        y: Tensor,
        dy: Tensor,
    }
    let x: Tensor = golden::read(&["activations", "x"]);
    for (name, activation) in [
        ("linear", Activation::Linear),
        ("relu", Activation::Relu),
        ("elu", Activation::Elu { alpha: 1.0 }),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
        ("gelu", Activation::Gelu),
        ("swish", Activation::Silu),
    ] {
        let want: Curve = golden::read(&["activations", "f", name]);
        let mut y = vec![0.0; x.data.len()];
        Cpu::new().activate(activation, &x.data, &mut y);
        assert_near(name, &y, &want.y.data, 1e-6);
        let saved = match activation.saved() {
            Saved::Input => &x.data,
            Saved::Output => &y,
        };
        let mut dy = vec![1.0; y.len()];
        Cpu::new().activate_backward(activation, saved, &mut dy);
        assert_near(name, &dy, &want.dy.data, 1e-5);
    }
}

#[test]
fn initialisers_have_tensorflows_moments() {
    #[derive(Deserialize)]
    struct Moments {
        mean: f64,
        std: f64,
        max: f32,
    }
    // What TensorFlow drew: 400 inputs, 500 outputs.
    let shape = [400, 500];
    let count = (shape[0] * shape[1]) as f64;
    for (name, kind) in [
        ("GlorotUniform", "glorot_uniform"),
        ("GlorotNormal", "glorot_normal"),
        ("HeUniform", "he_uniform"),
        ("HeNormal", "he_normal"),
        ("LecunUniform", "lecun_uniform"),
        ("LecunNormal", "lecun_normal"),
        ("RandomUniform", "random_uniform"),
        ("RandomNormal", "random_normal"),
        ("TruncatedNormal", "truncated_normal"),
    ] {
        let want: Moments = golden::read(&["initializers", name]);
        let initializer: Initializer = serde_json::from_value(kind.into()).unwrap();
        let mut values = vec![0.0; shape[0] * shape[1]];
        initializer.fill(1, "dense/kernel", &shape, &mut values);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        // Five standard errors of the mean, three of the deviation of a normal distribution.
        assert!(
            (mean - want.mean).abs() < 5.0 * want.std * (2.0 / count).sqrt(),
            "{name}: mean {mean}"
        );
        assert!(
            (deviation / want.std - 1.0).abs() < 0.007,
            "{name}: deviation {deviation}"
        );
        let largest = values
            .iter()
            .fold(0.0, |largest: f32, x| largest.max(x.abs()));
        if name != "RandomNormal" {
            assert!(
                (largest / want.max - 1.0).abs() < 1e-3,
                "{name}: largest {largest}"
            );
        }
    }
    let bounds: BTreeMap<String, f32> =
        golden::read(&["initializers", "GlorotUniform_conv_3x3x16x32"]);
    let mut values = vec![0.0; 3 * 3 * 16 * 32];
    let glorot: Initializer = serde_json::from_value("glorot_uniform".into()).unwrap();
    glorot.fill(1, "conv2d/kernel", &[3, 3, 16, 32], &mut values);
    let largest = values
        .iter()
        .fold(0.0, |largest: f32, x| largest.max(x.abs()));
    assert!(largest <= bounds["bound"] && largest > 0.99 * bounds["bound"]);
}

/// Finite differences for a micro-batch of five rows of shape `input`.
fn check(spec: impl Into<LayerSpec>, input: &[usize]) {
    let rows = 5;
    let mut layer = OneLayer::new(spec, input, rows);
    let x = normal("input", rows * input.iter().product::<usize>());
    check_finite_differences(&mut layer, &x, true);
}

#[test]
fn gradients_of_dense_are_slopes() {
    use ActivationSpec::*;
    for activation in [Linear, Elu, Sigmoid, Tanh, Gelu, GeluTanh, Silu, Softmax] {
        check(dense(4, activation), &[3]);
    }
    let spec = Dense {
        use_bias: false,
        ..dense(4, Tanh)
    };
    check(spec, &[2, 3, 5]);
}

#[test]
fn gradients_of_layers_without_weights_are_slopes() {
    use ActivationSpec::*;
    for function in [Linear, Elu, Sigmoid, Tanh, Gelu, GeluTanh, Silu, Softmax] {
        let name = None;
        check(Activate { name, function }, &[2, 3]);
    }
    check(Flatten::default(), &[2, 3]);
    let (name, rate) = (None, 0.4);
    check(Dropout { name, rate }, &[10]);
}

#[test]
fn gradients_of_normalisations_are_slopes() {
    check(BatchNorm::default(), &[3]);
    check(BatchNorm::default(), &[2, 3, 20]);
    check(LayerNorm::default(), &[6]);
    check(LayerNorm::default(), &[2, 19]);
    let plain = BatchNorm {
        center: false,
        scale: false,
        ..BatchNorm::default()
    };
    check(plain, &[4]);
    let plain = LayerNorm {
        center: false,
        scale: false,
        ..LayerNorm::default()
    };
    check(plain, &[4]);
}

#[test]
fn gradients_of_embedding_are_slopes() {
    let mut layer = OneLayer::new(Embedding::new(5, 3), &[2], 3);
    // 9 and -2 are taken as the last and the first index.
    check_finite_differences(&mut layer, &[0.0, 2.0, 2.0, 4.0, 9.0, -2.0], false);
}

fn block(layers: Vec<LayerSpec>) -> Residual {
    Residual { name: None, layers }
}

/// A block of six inputs with another inside, and a layer that is only a view.
fn nested() -> Residual {
    use ActivationSpec::*;
    block(vec![
        dense(8, Tanh).into(),
        Flatten::default().into(),
        dense(6, Gelu).into(),
        block(vec![dense(6, Silu).into(), LayerNorm::default().into()]).into(),
        dense(6, Linear).into(),
    ])
}

#[test]
fn gradients_of_residual_blocks_are_slopes() {
    check(nested(), &[6]);
    check(block(vec![Flatten::default().into()]), &[6]);
}

#[test]
fn a_residual_block_finishes_its_layers_one_by_one() {
    let mut layer = OneLayer::new(nested(), &[6], 2);
    let (x, dy) = (normal("x", 12), normal("dy", 12));
    let y = layer.forward(Mode::Train, &x);
    let how = (Mode::Train, Accumulate::Set);
    let with = layer.backward(how, &x, &y, &dy, true);
    // Last first; the inner block's layers, then the inner block itself.
    let mut starts = with.finished.clone();
    starts.dedup();
    assert_eq!(starts.len(), 5, "{:?}", with.finished);
    assert_eq!(starts.last(), Some(&0));
    assert!(starts.is_sorted_by(|a, b| a > b));
    let without = layer.backward(how, &x, &y, &dy, false);
    assert_eq!(without.parameters, with.parameters);
}

#[test]
fn dropout_does_nothing_in_inference() {
    let (name, rate) = (None, 0.4);
    let mut layer = OneLayer::new(Dropout { name, rate }, &[4], 2);
    let x = normal("x", 8);
    assert_eq!(layer.forward(Mode::Infer, &x), x);
    assert_ne!(layer.forward(Mode::Train, &x), x);
}

#[test]
fn a_layer_gives_a_row_the_same_bits_in_any_batch() {
    let specs: [(LayerSpec, &[usize]); 6] = [
        (dense(17, ActivationSpec::Gelu).into(), &[19]),
        (dense(5, ActivationSpec::Softmax).into(), &[2, 7]),
        (LayerNorm::default().into(), &[37]),
        (nested().into(), &[6]),
        (Softmax::default().into(), &[21]),
        (Embedding::new(5, 9).into(), &[3]),
    ];
    for (spec, input) in specs {
        let elements = input.iter().product::<usize>();
        let x = normal("x", 7 * elements);
        let mut together = OneLayer::new(spec.clone(), input, 7);
        let y = together.forward(Mode::Infer, &x);
        for (x, y) in x.chunks(elements).zip(y.chunks(y.len() / 7)) {
            let mut alone = OneLayer::new(spec.clone(), input, 1);
            assert_eq!(alone.forward(Mode::Infer, x), y, "{}", spec.name());
        }
    }
}

#[test]
fn moving_statistics_of_features_follow_the_biased_variance() {
    let mut layer = OneLayer::new(BatchNorm::default(), &[1], 4);
    layer.forward(Mode::Train, &[1.0, 2.0, 3.0, 6.0]);
    assert_near("mean", &layer.next_state("moving_mean"), &[0.03], 1e-6);
    let variance = 0.99 + 0.01 * 3.5;
    assert_near(
        "variance",
        &layer.next_state("moving_variance"),
        &[variance],
        1e-6,
    );
}

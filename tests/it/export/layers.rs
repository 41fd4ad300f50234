//! Every layer, activation and loss, exported and run.

use std::collections::BTreeSet;

use ringstep::config::CustomModels;
use ringstep::data::Targets;
use ringstep::layers::LayerSpec;

use super::{Saved, classes, normal};

/// Layers as a run file lists them, and the rows that they take.
const MODELS: &[(&str, &[usize])] = &[
    (
        "{ kind = 'dense', units = 5, activation = 'relu' }, { kind = 'dense', units = 4, use_bias = false }",
        &[3],
    ),
    // On the last of several dimensions.
    ("{ kind = 'dense', units = 4 }", &[2, 3, 5]),
    (
        "{ kind = 'conv2d', filters = 4, kernel_size = 3 }",
        &[5, 6, 3],
    ),
    (
        "{ kind = 'conv2d', filters = 4, kernel_size = [2, 3], strides = [2, 3], padding = 'same', \
         activation = 'tanh', use_bias = false }, 'max_pooling2d'",
        &[7, 8, 2],
    ),
    // A stride larger than its window, of which nothing lies outside.
    (
        "{ kind = 'conv2d', filters = 2, kernel_size = 1, strides = 3, padding = 'same' }",
        &[5, 7, 2],
    ),
    (
        "{ kind = 'max_pooling2d', pool_size = [3, 2], strides = [2, 1], padding = 'same' }, \
         { kind = 'average_pooling2d', pool_size = 3, strides = 2, padding = 'same' }",
        &[9, 7, 3],
    ),
    (
        "'max_pooling2d', { kind = 'average_pooling2d', pool_size = [2, 1] }, 'flatten'",
        &[9, 6, 2],
    ),
    ("'global_max_pooling2d'", &[4, 3, 5]),
    ("'global_average_pooling2d'", &[4, 3, 5]),
    // As they stand behind a convolution, whose channels come first.
    (
        "{ kind = 'conv2d', filters = 4, kernel_size = 3 }, 'global_max_pooling2d', { kind = 'dense', units = 2 }",
        &[5, 6, 1],
    ),
    (
        "{ kind = 'conv2d', filters = 4, kernel_size = 3 }, 'global_average_pooling2d'",
        &[5, 6, 1],
    ),
    (
        "{ kind = 'conv2d', filters = 3, kernel_size = 2 }, 'softmax', 'layer_normalization', 'flatten', \
         { kind = 'dense', units = 2, activation = 'softmax' }",
        &[4, 4, 2],
    ),
    (
        "{ kind = 'dense', units = 4 }, 'batch_normalization', { kind = 'dropout', rate = 0.5 }",
        &[3],
    ),
    (
        "{ kind = 'conv2d', filters = 3, kernel_size = 2 }, { kind = 'batch_normalization', center = false, epsilon = 0.1 }, \
         { kind = 'activation', function = 'relu' }, 'flatten', { kind = 'batch_normalization', scale = false }",
        &[4, 5, 2],
    ),
    (
        "'batch_normalization', { kind = 'dense', units = 2 }",
        &[4, 3],
    ),
    (
        "{ kind = 'layer_normalization', scale = false }, { kind = 'layer_normalization', center = false, epsilon = 0.2 }",
        &[3, 5],
    ),
    (
        "{ kind = 'residual', layers = [{ kind = 'dense', units = 3 }, { kind = 'residual', layers = ['batch_normalization'] }] }",
        &[3],
    ),
    // Both orders of the channels meet in the sum, whichever of them the body ends with.
    (
        "{ kind = 'residual', layers = [{ kind = 'conv2d', filters = 2, kernel_size = 3, padding = 'same' }] }, \
         { kind = 'residual', layers = [{ kind = 'dense', units = 2 }] }, 'flatten'",
        &[4, 3, 2],
    ),
    // No more than another shape.
    ("'flatten'", &[2, 3]),
    (
        "{ kind = 'leaky_relu', slope = 0.1 }, { kind = 'elu', alpha = 0.5 }",
        &[9],
    ),
];

/// Kinds of the layers in a list of a run file, of those within others, too.
fn kinds(specs: &[LayerSpec], found: &mut BTreeSet<&'static str>) {
    for spec in specs {
        found.insert(spec.name());
        if let LayerSpec::Residual(residual) = spec {
            kinds(&residual.layers, found);
        }
    }
}

fn saved(layers: &str, loss: &str, shape: &[usize], targets: Targets) -> Saved {
    let model = format!("loss = '{loss}'\nlayers = [{layers}]");
    Saved::new(&model, shape, targets, &CustomModels::new())
}

/// Numbers that a row of `shape` turns into.
fn outputs(layers: &str, shape: &[usize]) -> usize {
    use ringstep::backend::cpu::Cpu;
    use ringstep::layers::{Build, Shape, Stack};
    let specs = specs(layers);
    let mut cpu = Cpu::new();
    let mut build = Build::new(&mut cpu, 1);
    let stack = Stack::new(&mut build, &specs, &Shape(shape.to_vec())).unwrap();
    stack.shape().elements()
}

fn specs(layers: &str) -> Vec<LayerSpec> {
    #[derive(serde::Deserialize)]
    struct File {
        layers: Vec<LayerSpec>,
    }
    toml::from_str::<File>(&format!("layers = [{layers}]"))
        .unwrap()
        .layers
}

fn check(layers: &str, shape: &[usize]) {
    let targets = Targets::Numbers(outputs(layers, shape));
    saved(layers, "squared_error", shape, targets).check(layers, normal);
}

#[test]
fn every_layer_predicts_what_it_does_in_the_run() {
    let mut tried = BTreeSet::from(["embedding"]);
    for (layers, shape) in MODELS {
        check(layers, shape);
        kinds(&specs(layers), &mut tried);
    }
    let known = LayerSpec::KINDS.iter().map(|kind| kind.name);
    assert_eq!(tried, known.collect());
}

#[test]
fn embeddings_are_looked_up() {
    let layers = "{ kind = 'embedding', input_dim = 7, output_dim = 3 }, 'layer_normalization', 'flatten', \
                  { kind = 'dense', units = 2 }";
    let indices = |len: usize| (0..len).map(|place| (place * 5 % 7) as f32).collect();
    saved(layers, "squared_error", &[4], Targets::Numbers(2)).check("embedding", indices);
}

#[test]
fn every_activation_is_that_of_the_run() {
    for function in [
        "linear",
        "relu",
        "leaky_relu",
        "elu",
        "sigmoid",
        "tanh",
        "gelu",
        "gelu_tanh",
        "silu",
        "softmax",
    ] {
        let layers = format!("{{ kind = 'activation', function = '{function}' }}");
        let saved = saved(&layers, "squared_error", &[50], Targets::Numbers(50));
        // From where they vanish to where they are straight lines.
        saved.check(function, |len| {
            normal(len).iter().map(|x| 4.0 * x).collect()
        });
        let layers = format!(
            "{{ kind = 'conv2d', filters = 3, kernel_size = 2, activation = '{function}' }}"
        );
        check(&layers, &[4, 3, 2]);
    }
}

#[test]
fn every_loss_has_its_predictions() {
    let dense = |units| format!("{{ kind = 'dense', units = {units}, activation = 'softmax' }}");
    for (loss, units, targets) in [
        ("softmax_cross_entropy", 5, classes(5)),
        ("softmax_cross_entropy", 5, Targets::Numbers(5)),
        ("sigmoid_cross_entropy", 1, classes(2)),
        ("squared_error", 3, Targets::Numbers(3)),
        ("absolute_error", 3, Targets::Numbers(3)),
        ("huber", 3, Targets::Numbers(3)),
    ] {
        let layers = match loss {
            "sigmoid_cross_entropy" => "{ kind = 'dense', units = 1 }".to_owned(),
            _ => dense(units),
        };
        saved(&layers, loss, &[4], targets).check(loss, normal);
    }
    // Probabilities are over a whole row, whatever its shape.
    let layers = "{ kind = 'conv2d', filters = 2, kernel_size = 2 }";
    saved(layers, "softmax_cross_entropy", &[3, 3, 1], classes(8)).check("an image", normal);
}

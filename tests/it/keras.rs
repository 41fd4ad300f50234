//! Models that Keras describes: `tests/golden/keras` holds what `to_json()` of Keras 2.15 and 3 returned.

use std::fs;
use std::path::Path;

use ringstep::backend::cpu::Cpu;
use ringstep::config::{Architecture, RunConfig};
use ringstep::data::{Description, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{BuildModel, KerasModel, LossSpec};
use serde_json::{Value, json};

const VERSIONS: [&str; 2] = ["2.15", "3"];

fn golden(model: &str, version: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keras");
    fs::read_to_string(root.join(format!("{model}_{version}.json"))).unwrap()
}

/// Layers as a run file would have them.
fn written(layers: Value) -> Vec<LayerSpec> {
    serde_json::from_value(layers).unwrap()
}

#[test]
fn the_small_cnn_is_the_one_that_is_written_by_hand() {
    let layers = written(json!([
        {"kind": "conv2d", "name": "conv2d", "filters": 32, "kernel_size": 3, "activation": "relu"},
        {"kind": "max_pooling2d", "name": "max_pooling2d", "strides": 2},
        {"kind": "flatten", "name": "flatten"},
        {"kind": "dense", "name": "dense", "units": 128, "activation": "relu"},
        {"kind": "dropout", "name": "dropout", "rate": 0.2},
        {"kind": "dense", "name": "dense_1", "units": 10, "activation": "softmax"},
    ]));
    for version in VERSIONS {
        let model = KerasModel::parse(&golden("cnn", version)).unwrap();
        assert_eq!(model.layers.specs(), layers, "Keras {version}");
        assert_eq!(model.input, Some([28, 28, 1].into()));
        let classes = (0..10).map(|digit| digit.to_string()).collect();
        let data = Description {
            shape: [28, 28, 1].into(),
            targets: Targets::Classes(classes),
            ..Description::default()
        };
        let loss: LossSpec = serde_json::from_value(json!("softmax_cross_entropy")).unwrap();
        let mut backend = Cpu::new();
        let built = model
            .layers
            .build(Build::new(&mut backend, 1), &data, &loss);
        assert_eq!(built.unwrap().structure().layout.parameters(), 693_962);
    }
}

#[test]
fn every_argument_is_carried_over() {
    let random = |kind: &str, settings: Value| {
        let mut table = settings;
        table["kind"] = json!(kind);
        table
    };
    let layers = written(json!([
        {"kind": "conv2d", "name": "stem", "filters": 8, "kernel_size": [3, 5], "strides": 2,
         "padding": "same", "use_bias": false, "kernel_initializer": "he_normal"},
        {"kind": "batch_normalization", "name": "batch_normalization", "momentum": 0.9,
         "epsilon": 1e-5, "scale": false},
        {"kind": "activation", "name": "activation", "function": "gelu"},
        {"kind": "conv2d", "name": "conv2d", "filters": 8, "kernel_size": 1,
         "kernel_initializer": random("random_normal", json!({"stddev": 0.1})),
         "bias_initializer": random("constant", json!({"value": 0.5}))},
        {"kind": "leaky_relu", "name": "leaky_re_lu", "slope": 0.1},
        {"kind": "average_pooling2d", "name": "average_pooling2d", "pool_size": 3, "strides": 1,
         "padding": "same"},
        {"kind": "elu", "name": "elu", "alpha": 0.5},
        {"kind": "activation", "name": "re_lu", "function": "relu"},
        {"kind": "global_average_pooling2d", "name": "global_average_pooling2d"},
        {"kind": "layer_normalization", "name": "layer_normalization", "epsilon": 1e-6,
         "center": false},
        {"kind": "dense", "name": "dense", "units": 6, "activation": "tanh",
         "kernel_initializer": random("random_uniform", json!({"min": -0.1, "max": 0.2}))},
        {"kind": "softmax", "name": "softmax"},
    ]));
    let embedding = written(json!([
        {"kind": "embedding", "name": "embedding", "input_dim": 100, "output_dim": 8},
        {"kind": "flatten", "name": "flatten"},
        {"kind": "dense", "name": "dense", "units": 2},
    ]));
    for version in VERSIONS {
        let read = |model| KerasModel::parse(&golden(model, version)).unwrap();
        assert_eq!(read("layers").layers.specs(), layers, "Keras {version}");
        assert_eq!(
            read("embedding").layers.specs(),
            embedding,
            "Keras {version}"
        );
    }
}

/// The error of the golden model with one piece of text replaced by another.
fn error(model: &str, version: &str, from: &str, to: &str) -> String {
    let text = golden(model, version);
    assert!(text.contains(from), "{from} is not in {model}");
    let error = KerasModel::parse(&text.replacen(from, to, 1)).unwrap_err();
    error.to_string()
}

#[test]
fn an_axis_is_the_last_where_no_layer_says_its_input_as_before_2_13() {
    let text = golden("layers", "2.15");
    let mut model: Value = serde_json::from_str(&text).unwrap();
    for layer in model["config"]["layers"].as_array_mut().unwrap() {
        layer.as_object_mut().unwrap().remove("build_config");
    }
    let of_older = KerasModel::parse(&model.to_string()).unwrap();
    assert_eq!(of_older, KerasModel::parse(&text).unwrap());
}

#[test]
fn what_is_not_known_is_named_with_its_layer() {
    for version in VERSIONS {
        let conv2d = |from, to| error("cnn", version, from, to);
        assert_eq!(
            conv2d("channels_last", "channels_first"),
            "layer 'conv2d' (Conv2D): data_format is \"channels_first\", but can only be \
             \"channels_last\" here"
        );
        assert_eq!(
            conv2d("\"padding\": \"valid\"", "\"padding\": \"causal\""),
            "layer 'conv2d' (Conv2D): padding is \"causal\": unknown variant `causal`, expected \
             `valid` or `same`"
        );
        assert_eq!(
            conv2d("\"relu\"", "\"leaky_relu\""),
            "layer 'conv2d' (Conv2D): activation \"leaky_relu\" has a slope of 0.2, and 0.3 here; \
             write it as a layer of its own, LeakyReLU, with the slope it is to have"
        );
        assert_eq!(
            conv2d(
                "\"kernel_regularizer\": null",
                "\"kernel_regularizer\": {\"l2\": 1}"
            ),
            "layer 'conv2d' (Conv2D): kernel_regularizer is {\"l2\":1}, but can only be null here"
        );
        assert_eq!(
            conv2d("\"rate\": 0.2", "\"rate\": 1.2"),
            "layer 'dropout' (Dropout): rate is 1.2: invalid value: 1.2, expected a number from 0 to \
             below 1"
        );
        assert_eq!(
            conv2d("\"units\": 128", "\"units\": 128, \"lora\": 4")
                .split_once(", expected")
                .unwrap()
                .0,
            "layer 'dense' (Dense): lora is 4: unknown field `lora`"
        );
        assert_eq!(
            conv2d("\"units\": 128,", ""),
            "layer 'dense' (Dense): missing field `units`"
        );
        assert_eq!(
            error("layers", version, "HeNormal", "Orthogonal")
                .split_once(", expected")
                .unwrap()
                .0,
            "layer 'stem' (Conv2D): kernel_initializer is {\"kind\":\"orthogonal\"}: unknown variant \
             `orthogonal`"
        );
        let unknown = conv2d("\"class_name\": \"Flatten\"", "\"class_name\": \"Permute\"");
        let known = "layer 'flatten' (Permute): there is no such layer here; known are InputLayer, Conv2D, ";
        assert!(unknown.starts_with(known), "{unknown}");
        let functional = error("functional", version, "Functional", "Functional");
        let refused = "a model of the class 'Functional', but only Sequential is read; write ";
        assert!(functional.starts_with(refused), "{functional}");
    }
    // Keras 2.15 counts the axis from the first, 3 from the last.
    assert_eq!(
        error("layers", "2.15", "\"axis\": [3]", "\"axis\": [1]"),
        "layer 'batch_normalization' (BatchNormalization): axis is [1], but can only be -1 here"
    );
    assert_eq!(
        KerasModel::parse("{").unwrap_err().to_string(),
        "not the architecture of a Keras model: EOF while parsing an object at line 1 column 1; write \
         what model.to_json() returns"
    );
}

const RUN: &str = r#"[data]
format = "csv"
train = "train.csv"
label = "digit"

[model]
keras = "model.json"
loss = "softmax_cross_entropy"

[train]
global_batch = 64
epochs = 3
optimizer = "adam"
"#;

#[test]
fn a_run_keeps_the_layers_and_needs_the_file_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (run, model) = (
        folder.path().join("run.toml"),
        folder.path().join("model.json"),
    );
    let load = |text: &str| {
        fs::write(&run, text).unwrap();
        let loaded = RunConfig::load(&run, &[]);
        let shown = format!("{}/", folder.path().display());
        loaded.map_err(|error| error.to_string().replace(&shown, ""))
    };
    assert_eq!(
        load(RUN).unwrap_err(),
        "run.toml:7: model.keras: cannot read model.json: No such file or directory (os error 2)"
    );
    let text = golden("cnn", "3");
    fs::write(&model, text.replacen("channels_last", "channels_first", 1)).unwrap();
    assert_eq!(
        load(RUN).unwrap_err(),
        "run.toml:7: model.keras: model.json: layer 'conv2d' (Conv2D): data_format is \
         \"channels_first\", but can only be \"channels_last\" here"
    );
    fs::write(&model, &text).unwrap();
    let config = load(RUN).unwrap();
    let Architecture::Layers(layers) = &config.model.architecture else {
        panic!("{:?}", config.model.architecture);
    };
    assert_eq!(*layers, KerasModel::parse(&text).unwrap().layers);
    assert_eq!(config.data.shape, Some([28, 28, 1].into()));
    fs::remove_file(&model).unwrap();
    assert_eq!(load(&config.to_toml()).unwrap(), config);

    fs::write(&model, &text).unwrap();
    assert_eq!(
        load(&RUN.replace("label", "shape = [784]\nlabel")).unwrap_err(),
        "run.toml:4: data.shape: [784], but the model takes [28, 28, 1]; leave shape out to take that, \
         or change the model"
    );
    assert_eq!(
        load(&RUN.replace("loss", "layers = [\"flatten\"]\nloss")).unwrap_err(),
        "run.toml:7: model.keras: layers are given, too; keep one of them"
    );
}

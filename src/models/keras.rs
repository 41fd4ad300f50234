//! Keras's description of a sequential model, what `model.to_json()` returns, as layers.
//!
//! Keras calls almost everything as it is called here, so that an argument is handed on by its name and
//! read as a run file's would be. What this page knows is the rest: what is called otherwise, and what has
//! no meaning here but for one value. Seeds of layers and initialisers are passed over: a run has its own.

use std::iter;

use serde_json::{Map, Value, json};

use super::Layers;
use crate::layers::{LayerSpec, Shape};

/// Keras's classes and the kinds that they are here.
const CLASSES: [(&str, &str); 16] = [
    ("Conv2D", "conv2d"),
    ("MaxPooling2D", "max_pooling2d"),
    ("AveragePooling2D", "average_pooling2d"),
    ("GlobalMaxPooling2D", "global_max_pooling2d"),
    ("GlobalAveragePooling2D", "global_average_pooling2d"),
    ("Flatten", "flatten"),
    ("Dense", "dense"),
    ("Dropout", "dropout"),
    ("BatchNormalization", "batch_normalization"),
    ("LayerNormalization", "layer_normalization"),
    ("Embedding", "embedding"),
    ("Activation", "activation"),
    ("ReLU", "activation"),
    ("LeakyReLU", "leaky_relu"),
    ("ELU", "elu"),
    ("Softmax", "softmax"),
];

/// A class's arguments that have another name here: class, theirs, ours.
const RENAMED: [(&str, &str, &str); 5] = [
    ("Activation", "activation", "function"),
    ("LeakyReLU", "negative_slope", "slope"),
    ("LeakyReLU", "alpha", "slope"),
    ("RandomUniform", "minval", "min"),
    ("RandomUniform", "maxval", "max"),
];

/// Arguments that say nothing of what is computed.
const PASSED_OVER: [&str; 6] = [
    "seed",
    "batch_shape",
    "batch_input_shape",
    "input_length",
    // Both are of `renorm`.
    "renorm_clipping",
    "renorm_momentum",
];

/// The layer that says what goes in.
const INPUT: &str = "InputLayer";

/// The only value that an argument may have where layers here have no such setting.
fn only(argument: &str) -> Option<Value> {
    Some(match argument {
        "trainable" => json!(true),
        "dtype" => json!("float32"),
        "data_format" => json!("channels_last"),
        "dilation_rate" => json!([1, 1]),
        "groups" => json!(1),
        "axis" => json!(-1),
        "keepdims" | "mask_zero" | "synchronized" | "renorm" | "rms_scaling" => json!(false),
        "negative_slope" | "threshold" => json!(0.0),
        "noise_shape" | "max_value" | "input_axes" | "output_axes" | "quantization_config" => {
            Value::Null
        }
        "beta_initializer" | "moving_mean_initializer" => json!({"kind": "zeros"}),
        "gamma_initializer" | "moving_variance_initializer" => json!({"kind": "ones"}),
        _ if argument.ends_with("_regularizer") || argument.ends_with("_constraint") => Value::Null,
        _ => return None,
    })
}

/// A sequential model as Keras describes it.
///
/// ```
/// use ringstep::models::KerasModel;
///
/// let json = r#"{"class_name": "Sequential", "config": {"layers": [
///     {"class_name": "InputLayer", "config": {"batch_shape": [null, 4]}},
///     {"class_name": "Dense", "config": {"units": 3, "activation": "softmax"}}
/// ]}}"#;
/// let model = KerasModel::parse(json).unwrap();
/// assert_eq!(model.input, Some([4].into()));
/// assert_eq!(model.layers.specs()[0].name(), "dense");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct KerasModel {
    /// The layers, by the names that they have there.
    pub layers: Layers,
    /// Shape of one row of the input, where it is said.
    pub input: Option<Shape>,
}

/// A description that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KerasError {
    /// It is none.
    #[error("not the architecture of a Keras model: {problem}; write what model.to_json() returns")]
    Format {
        /// What is wrong.
        problem: String,
    },
    /// The model is not a list of layers.
    #[error(
        "a model of the class '{class}', but only Sequential is read; write the layers one after another \
         in keras.Sequential, or as model.layers, where \"residual\" adds around a block, or the model in \
         Rust, as model.custom"
    )]
    Class {
        /// What it is.
        class: String,
    },
    /// A layer, or an argument of it, has no counterpart.
    #[error("layer '{layer}' ({class}): {problem}")]
    Layer {
        /// Its name.
        layer: String,
        /// What it is.
        class: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl KerasModel {
    /// The classes of layers that are read.
    pub fn classes() -> impl Iterator<Item = &'static str> {
        iter::once(INPUT).chain(CLASSES.iter().map(|(name, _)| *name))
    }

    /// Reads what `model.to_json()` of Keras 2 or 3 returns.
    ///
    /// # Errors
    /// For a model that is not sequential, and for the first layer or argument that is not known here.
    pub fn parse(json: &str) -> Result<Self, KerasError> {
        let format = |problem: String| KerasError::Format { problem };
        let model: Value = serde_json::from_str(json).map_err(|error| format(error.to_string()))?;
        let class = class(&model).ok_or_else(|| format("it has no class_name".to_owned()))?;
        if class != "Sequential" {
            let class = class.to_owned();
            return Err(KerasError::Class { class });
        }
        let layers = model["config"]["layers"].as_array();
        let layers = layers.ok_or_else(|| format("it has no list of layers".to_owned()))?;
        let first = layers
            .first()
            .map_or(&Value::Null, |first| &first["config"]);
        let batch = match &first["batch_shape"] {
            Value::Null => &first["batch_input_shape"],
            shape => shape,
        };
        let mut rank = batch.as_array().map(Vec::len);
        let mut specs = Vec::new();
        for layer in layers {
            if self::class(layer) != Some(INPUT) {
                specs.push(read(layer, rank)?);
                rank = rank.map(|rank| rank_behind(layer, rank));
            }
        }
        if specs.is_empty() {
            return Err(format("it has no layers".to_owned()));
        }
        Ok(Self {
            layers: specs.into(),
            input: dimensions(batch),
        })
    }
}

fn class(node: &Value) -> Option<&str> {
    node["class_name"].as_str()
}

/// The shape of a row, where all of it is known: the first dimension counts rows.
fn dimensions(batch: &Value) -> Option<Shape> {
    let (_, row) = batch.as_array()?.split_first()?;
    let sizes = row.iter().map(|size| size.as_u64()?.try_into().ok());
    Some(Shape(sizes.collect::<Option<_>>()?))
}

/// How many dimensions a batch has behind a layer.
fn rank_behind(entry: &Value, rank: usize) -> usize {
    match class(entry) {
        Some("Flatten" | "GlobalMaxPooling2D" | "GlobalAveragePooling2D") => 2,
        Some("Embedding") => rank + 1,
        _ => rank,
    }
}

/// The layer that an entry of the list is, before which a batch has `rank` dimensions. The versions that say
/// so with each layer are those since 2.13.
fn read(entry: &Value, rank: Option<usize>) -> Result<LayerSpec, KerasError> {
    let shape = entry["build_config"]["input_shape"].as_array();
    let rank = shape.map(Vec::len).or(rank);
    let class = class(entry).unwrap_or_default();
    let fail = |problem: String| KerasError::Layer {
        layer: entry["config"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        class: class.to_owned(),
        problem,
    };
    let Some((_, kind)) = CLASSES.iter().find(|(name, _)| *name == class) else {
        let known: Vec<_> = KerasModel::classes().collect();
        let known = known.join(", ");
        return Err(fail(format!(
            "there is no such layer here; known are {known}"
        )));
    };
    let mut settings = Map::new();
    if class == "ReLU" {
        settings.insert("function".to_owned(), json!("relu"));
    }
    for (argument, value) in entry["config"].as_object().into_iter().flatten() {
        let value = translated(argument, value, rank).map_err(&fail)?;
        let setting = renamed(class, argument);
        match only(setting) {
            _ if PASSED_OVER.contains(&setting) => {}
            Some(meant) if equal(&value, &meant) => {}
            Some(meant) => {
                let given = &entry["config"][argument];
                return Err(fail(format!(
                    "{argument} is {given}, but can only be {meant} here"
                )));
            }
            None => {
                settings.insert(setting.to_owned(), value);
            }
        }
    }
    spec(kind, &settings).map_err(|problem| {
        // The argument to blame is the one without which something else is wrong, or nothing.
        let is_cause = |setting: &String| {
            let mut others = settings.clone();
            others.remove(setting);
            spec(kind, &others).map_or_else(|other| other != problem, |_| true)
        };
        match settings.keys().find(|setting| is_cause(setting)) {
            Some(setting) if !problem.starts_with("missing field") => {
                let argument = as_written(class, setting, &entry["config"]);
                fail(format!("{argument} is {}: {problem}", settings[setting]))
            }
            _ => fail(problem),
        }
    })
}

fn spec(kind: &str, settings: &Map<String, Value>) -> Result<LayerSpec, String> {
    let mut table = settings.clone();
    table.insert("kind".to_owned(), json!(kind));
    serde_json::from_value(Value::Object(table)).map_err(|error| error.to_string())
}

fn renamed<'a>(class: &str, argument: &'a str) -> &'a str {
    let is_it = |(of, theirs, _): &&(&str, &str, &str)| *of == class && *theirs == argument;
    RENAMED
        .iter()
        .find(is_it)
        .map_or(argument, |(_, _, ours)| ours)
}

/// What `config` calls a setting.
fn as_written<'a>(class: &str, setting: &'a str, config: &Value) -> &'a str {
    let is_it = |(of, theirs, ours): &&(&str, &str, &str)| {
        *of == class && *ours == setting && config.get(*theirs).is_some()
    };
    RENAMED
        .iter()
        .find(is_it)
        .map_or(setting, |(_, theirs, _)| theirs)
}

/// As JSON values are, but 0 is 0.0.
fn equal(value: &Value, other: &Value) -> bool {
    value == other
        || value
            .as_f64()
            .is_some_and(|value| other.as_f64() == Some(value))
}

/// The value as settings here have it, of a layer before which a batch has `rank` dimensions.
fn translated(argument: &str, value: &Value, rank: Option<usize>) -> Result<Value, String> {
    Ok(match argument {
        "activation" => function(value)?,
        // A policy, of which all that counts is its name.
        "dtype" if value.is_object() => value["config"]["name"].clone(),
        // The last one, counted from the first, which is the row.
        "axis" => {
            let last = rank.and_then(|rank| rank.checked_sub(1));
            let axis = match value.as_array() {
                Some(axes) if axes.len() == 1 => &axes[0],
                _ => value,
            };
            match axis.as_u64() {
                Some(axis) if last.map(|last| last as u64) == Some(axis) => json!(-1),
                _ => axis.clone(),
            }
        }
        _ if argument.ends_with("_initializer") => initializer(value),
        _ => value.clone(),
    })
}

/// The name of an activation, which may be written as the function it is.
fn function(value: &Value) -> Result<Value, String> {
    let name = match value {
        Value::Null => &json!("linear"),
        Value::Object(function) if value["class_name"] == "function" => &function["config"],
        other => other,
    };
    match name.as_str() {
        Some("leaky_relu") => Err(
            "activation \"leaky_relu\" has a slope of 0.2, and 0.3 here; write it as a layer of its own, \
             LeakyReLU, with the slope it is to have"
                .to_owned(),
        ),
        _ => Ok(name.clone()),
    }
}

/// An initialiser with its settings: Keras writes `{"class_name": "HeNormal", "config": {"seed": null}}`.
fn initializer(value: &Value) -> Value {
    let (Some(class), Some(config)) = (class(value), value["config"].as_object()) else {
        return value.clone();
    };
    let mut table = Map::from_iter([("kind".to_owned(), json!(snake_case(class)))]);
    for (argument, value) in config {
        let setting = renamed(class, argument);
        if !PASSED_OVER.contains(&setting) && only(setting).as_ref() != Some(value) {
            table.insert(setting.to_owned(), value.clone());
        }
    }
    Value::Object(table)
}

/// `HeNormal` as `he_normal`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

//! The run file as it is typed, and the checks that turn it into a [`RunConfig`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::data_section::DataSection;
use super::deserialize;
use super::document::{Document, Override, Value};
use super::explain::{explain, locate};
use super::train_section::TrainSection;
use super::{ConfigError, ModelConfig, RunConfig};
use crate::layers::LayerSpec;
use crate::models::LossSpec;

/// Keys of `[data]` that hold paths.
const PATHS: [&str; 6] = [
    "train",
    "test",
    "train_images",
    "train_labels",
    "test_images",
    "test_labels",
];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    data: DataSection,
    model: ModelSection,
    train: TrainSection,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelSection {
    loss: LossSpec,
    layers: Vec<LayerSpec>,
}

/// What a check found: the key, as a path of names, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: &'static [&'static str],
    pub(super) text: String,
    pub(super) missing: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key.join("."), self.text)
    }
}

/// Reads the run file `text` that lies at `path`.
pub(super) fn read(
    path: &Path,
    text: &str,
    overrides: &[Override],
) -> Result<RunConfig, ConfigError> {
    let mut document = Document::parse(path, text, overrides)?;
    resolve_paths(&mut document, path)?;
    let mut file: RunFile =
        deserialize::read(&document.root).map_err(|error| explain(&document, error))?;
    file.name.get_or_insert_with(|| default_name(path));
    RunConfig::try_from(file).map_err(|problem| locate(&document, problem))
}

/// Makes the paths of `[data]` absolute: the file's from its folder, overrides' from here.
fn resolve_paths(document: &mut Document, path: &Path) -> Result<(), ConfigError> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let file = absolute(path)?;
    let folder = file.parent().unwrap_or(&file);
    for key in PATHS {
        let Some(node) = document.root.get("data").and_then(|data| data.get(key)) else {
            continue;
        };
        let Value::String(text) = &node.value else {
            continue;
        };
        let resolved = if document.is_override(node.at) {
            absolute(Path::new(text))?
        } else {
            folder.join(text)
        };
        let resolved = Value::String(resolved.to_string_lossy().into_owned());
        if let Some(node) = document
            .root
            .get_mut("data")
            .and_then(|data| data.get_mut(key))
        {
            node.value = resolved;
        }
    }
    Ok(())
}

/// `digits` for both `digits.toml` and `digits/run.toml`.
fn default_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stem = absolute.file_stem().unwrap_or_default();
    let folder = absolute.parent().and_then(Path::file_name);
    match folder {
        Some(folder) if stem == "run" => folder,
        _ => stem,
    }
    .to_string_lossy()
    .into_owned()
}

impl TryFrom<RunFile> for RunConfig {
    type Error = Problem;

    fn try_from(file: RunFile) -> Result<Self, Problem> {
        let name = file.name.unwrap_or_else(|| "run".to_owned());
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\']) {
            return Err(invalid(
                &["name"],
                "expected the name of a folder within runs/",
            ));
        }
        if file.model.layers.is_empty() {
            return Err(invalid(
                &["model", "layers"],
                "a model needs at least one layer",
            ));
        }
        Ok(Self {
            name,
            data: file.data.check()?,
            model: ModelConfig {
                loss: file.model.loss,
                layers: file.model.layers,
            },
            train: file.train.check()?,
        })
    }
}

pub(super) fn invalid(key: &'static [&'static str], text: impl Into<String>) -> Problem {
    Problem {
        key,
        text: text.into(),
        missing: false,
    }
}

pub(super) fn required<T>(
    value: Option<T>,
    key: &'static [&'static str],
    what: &str,
) -> Result<T, Problem> {
    value.ok_or_else(|| Problem {
        key: &key[..1],
        text: format!("missing key '{}' in [{}]: {what}", key[1], key[0]),
        missing: true,
    })
}

pub(super) fn at_least_one(value: u64, key: &'static [&'static str]) -> Result<u64, Problem> {
    match value {
        0 => Err(invalid(key, "must be at least 1")),
        value => Ok(value),
    }
}

impl From<RunConfig> for RunFile {
    fn from(config: RunConfig) -> Self {
        Self {
            name: Some(config.name),
            data: config.data.into(),
            model: ModelSection {
                loss: config.model.loss,
                layers: config.model.layers,
            },
            train: config.train.into(),
        }
    }
}

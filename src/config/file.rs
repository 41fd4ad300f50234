//! The run file as it is typed, and the checks that turn it into a [`RunConfig`].

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::columns_section;
use super::data_section::DataSection;
use super::deserialize::{self, Error};
use super::document::{Document, Node, Override};
use super::explain::{explain, locate};
use super::model_section::{Custom, CustomModels, ModelSection};
use super::train_section::TrainSection;
use super::{Architecture, ConfigError, ModelConfig, RunConfig, control, paths};
use crate::columns::Columns;
use crate::data::{Source, Task};
use crate::estimators::EstimatorSpec;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    data: DataSection,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Columns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimator: Option<EstimatorSpec>,
    train: TrainSection,
}

/// What a check found: the key, as a path of names, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: Vec<String>,
    pub(super) text: String,
    pub(super) missing: bool,
}

impl Problem {
    /// The error for it, where a program has put `config` together.
    pub(super) fn of(self, config: &RunConfig) -> ConfigError {
        self.at(format!("run '{}'", config.name))
    }

    /// The error for it, where it was found.
    pub(super) fn at(self, at: String) -> ConfigError {
        match self.missing {
            true => ConfigError::Missing {
                at,
                problem: self.text,
            },
            false => ConfigError::Value {
                at,
                key: self.key.join("."),
                problem: self.text,
            },
        }
    }
}

/// Reads the run file `text` that lies at `path`, which may name `models`.
pub(super) fn read(
    path: &Path,
    text: &str,
    overrides: &[Override],
    models: &CustomModels,
) -> Result<RunConfig, ConfigError> {
    let mut document = Document::parse(path, text, overrides)?;
    paths::resolve(&mut document, path)?;
    let mut file: RunFile =
        deserialize::read(&document.root).map_err(|error| explain(&document, error))?;
    let custom = custom(&document.root, models).map_err(|error| explain(&document, error))?;
    file.name.get_or_insert_with(|| default_name(path));
    file.check(custom, None)
        .map_err(|problem| locate(&document, problem))
}

/// Checks what a program has put together as though a run file had said it.
pub(super) fn check(config: &RunConfig, has_test: bool) -> Result<(), ConfigError> {
    let custom = match &config.model.architecture {
        Architecture::Custom(custom) => Some(custom.clone()),
        Architecture::Layers(_) | Architecture::Estimator(_) => None,
    };
    let file = RunFile::from(config.clone());
    let text = toml::to_string(&file).map_err(|error| {
        let text = format!("cannot stand in a run file: {error}");
        invalid(&["run"], text).of(config)
    })?;
    let document = Document::of_program(&format!("run '{}'", config.name), &text)?;
    // Numbers have their ranges where they are read.
    let file: RunFile =
        deserialize::read(&document.root).map_err(|error| explain(&document, error))?;
    paths::refuse_relative(&document).map_err(|problem| problem.of(config))?;
    file.check(custom, Some(has_test))
        .map_err(|problem| problem.of(config))?;
    Ok(())
}

/// What `model.custom` means, where it is there.
fn custom(root: &Node, models: &CustomModels) -> Result<Option<Custom>, Error> {
    let Some((path, node)) = root.find(&["model", "custom"]) else {
        return Ok(None);
    };
    let custom = models.read(node).map_err(|mut error| {
        error.path.splice(0..0, path);
        error
    })?;
    Ok(Some(custom))
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

impl RunFile {
    /// What it means. Whether there are test rows is as the data say, where that is not given.
    fn check(self, custom: Option<Custom>, has_test: Option<bool>) -> Result<RunConfig, Problem> {
        let name = self.name.unwrap_or_else(|| "run".to_owned());
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
            return Err(invalid(
                &["name"],
                "expected the name of a folder within runs/",
            ));
        }
        let is_estimator = self.estimator.is_some();
        let (model, input) = match (self.model, self.estimator) {
            (Some(model), None) => model.check(custom)?,
            (None, Some(estimator)) => (check_estimator(estimator, self.columns.as_ref())?, None),
            (Some(_), Some(_)) => {
                let text = "[model] is given, too; keep one of them";
                return Err(invalid(&["estimator"], text));
            }
            (None, None) => {
                let text = "missing section [model] or [estimator]: what learns, such as loss = \
                            \"softmax_cross_entropy\" and layers = [{ kind = \"dense\", units = 10 }] in \
                            [model]";
                return Err(missing(&[], text));
            }
        };
        let train = self.train.check(is_estimator)?;
        let mut config = RunConfig {
            columns: self.columns,
            ..RunConfig::new(name, self.data.check(input)?, model, train)
        };
        // What is read has every default, as what is written: they are equal.
        config.train.loss_reduction = Some(config.named_reduction());
        check_labels(&config)?;
        columns_section::check(&config)?;
        if let (Task::Regression, Some(_)) = (config.task(), config.data.classes()) {
            let predicts = match &config.model.architecture {
                Architecture::Estimator(estimator) => estimator.name(),
                Architecture::Layers(_) | Architecture::Custom(_) => config.model.loss.name(),
            };
            let text = format!(
                "{predicts} is for numbers, which have no classes; leave classes out, or take a classifier: a cross \
                 entropy as loss, or an estimator that is one"
            );
            return Err(invalid(&["data", "classes"], text));
        }
        let has_test = has_test.unwrap_or_else(|| config.data.has_test());
        control::check(&config, has_test)?;
        Ok(config)
    }
}

/// A class is in one column.
fn check_labels(config: &RunConfig) -> Result<(), Problem> {
    match (&config.data.source, config.task()) {
        (Source::Columns(source), Task::Classification { .. }) if source.labels.len() > 1 => {
            let count = source.labels.len();
            let text = format!(
                "{count} columns, but a class is in one; name that, or for numbers take a regressor or a \
                 loss such as squared_error"
            );
            Err(invalid(&["data", "label"], text))
        }
        _ => Ok(()),
    }
}

fn check_estimator(
    estimator: EstimatorSpec,
    columns: Option<&Columns>,
) -> Result<ModelConfig, Problem> {
    if let Err((argument, problem)) = estimator.check(columns) {
        return Err(invalid(&["estimator", argument], problem));
    }
    if let (None, Some(name)) = (
        columns,
        estimator
            .columns()
            .and_then(|names| names.into_iter().next()),
    ) {
        let text = format!(
            "no column '{name}': columns that are named are described in [columns]; without that \
             section, all features are numbers"
        );
        return Err(invalid(&["estimator"], text));
    }
    Ok(estimator.into())
}

pub(super) fn invalid(key: &[&str], text: impl Into<String>) -> Problem {
    Problem {
        key: key.iter().map(|&part| part.to_owned()).collect(),
        text: text.into(),
        missing: false,
    }
}

pub(super) fn required<T>(value: Option<T>, key: &[&str], what: &str) -> Result<T, Problem> {
    value.ok_or_else(|| {
        let text = format!("missing key '{}' in [{}]: {what}", key[1], key[0]);
        missing(&key[..1], text)
    })
}

/// Of a key that is not in the table at `key`.
pub(super) fn missing(key: &[&str], text: impl Into<String>) -> Problem {
    Problem {
        missing: true,
        ..invalid(key, text)
    }
}

pub(super) fn at_least_one(value: u64, key: &[&str]) -> Result<u64, Problem> {
    match value {
        0 => Err(invalid(key, "must be at least 1")),
        value => Ok(value),
    }
}

impl From<RunConfig> for RunFile {
    fn from(mut config: RunConfig) -> Self {
        config.train.loss_reduction = Some(config.named_reduction());
        Self {
            name: Some(config.name),
            data: config.data.into(),
            columns: config.columns,
            estimator: match &config.model.architecture {
                Architecture::Estimator(estimator) => Some(estimator.clone()),
                Architecture::Layers(_) | Architecture::Custom(_) => None,
            },
            model: match config.model.architecture {
                Architecture::Estimator(_) => None,
                Architecture::Layers(_) | Architecture::Custom(_) => Some(config.model.into()),
            },
            train: config.train.into(),
        }
    }
}

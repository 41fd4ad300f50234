//! What steers a run by what evaluations find, what it begins with, and what it leaves for others.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use glob::Pattern;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess};
use serde::{Deserialize, Serialize};

use super::file::{Problem, invalid};
use super::{Cadence, Keep, Patience, RunConfig};
use crate::data::Task;
use crate::named::choices;

/// Which end of a metric is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Losses, errors.
    Minimize,
    /// Accuracies.
    Maximize,
}

impl Goal {
    /// Whether `new` is strictly better.
    pub fn is_better(self, new: f64, old: f64) -> bool {
        self.is_better_by(0.0, new, old)
    }

    /// Whether `new` is better by more than `delta`.
    pub fn is_better_by(self, delta: f64, new: f64, old: f64) -> bool {
        match self {
            Self::Minimize => new < old - delta,
            Self::Maximize => new > old + delta,
        }
    }

    /// The good end of a metric whose name says it.
    fn of(metric: &str) -> Option<Self> {
        let ends_with = |endings: &[&str]| endings.iter().any(|ending| metric.ends_with(ending));
        if ends_with(&["loss", "error"]) {
            Some(Self::Minimize)
        } else if ends_with(&["accuracy", "auc", "precision", "recall"]) {
            Some(Self::Maximize)
        } else {
            None
        }
    }
}

/// A metric of the test rows, and which end of it is good: `"loss"`, or where its name does not say so
/// `{ name = "kappa", goal = "maximize" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct Measure {
    /// Its name as `evaluate` has it.
    pub name: String,
    /// Which end is good.
    pub goal: Goal,
}

impl Measure {
    /// The loss: the lower the better.
    pub fn loss() -> Self {
        Self {
            name: loss(),
            goal: Goal::Minimize,
        }
    }
}

impl Serialize for Measure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The inherent function that `remote = "Self"` makes: the plain table.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Measure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Measure;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a metric or a table with its name and goal")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Measure, E> {
                let goal = Goal::of(name).ok_or_else(|| {
                    E::custom(format!(
                        "say which end of '{name}' is good: {{ name = \"{name}\", goal = \
                         \"minimize\" }}, or \"maximize\""
                    ))
                })?;
                Ok(Measure {
                    name: name.to_owned(),
                    goal,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Measure, A::Error> {
                Measure::deserialize(MapAccessDeserializer::new(table))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// When training ends before its length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EarlyStopping {
    /// Where a metric has not fallen for a while.
    NoDecrease(Stagnation),
    /// Where a metric has not risen for a while.
    NoIncrease(Stagnation),
    /// As soon as a metric is above a threshold.
    Higher(Threshold),
    /// As soon as a metric is below a threshold.
    Lower(Threshold),
}

/// What counts as no improvement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stagnation {
    /// Which metric.
    #[serde(default = "loss")]
    pub metric: String,
    /// How long it may last.
    #[serde(default = "no_patience")]
    pub patience: Patience,
    /// Improvements by no more than this are none.
    #[serde(default, deserialize_with = "crate::range::not_negative")]
    pub min_delta: f64,
    /// Improvements that do not get beyond this are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<f64>,
    /// Evaluations before this step do not count.
    #[serde(default)]
    pub start_after: u64,
    /// Whether a run that is stopped ends with the weights of the best evaluation.
    #[serde(default)]
    pub restore_best: bool,
}

/// What is good enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Which metric.
    #[serde(default = "loss")]
    pub metric: String,
    /// What it has to get beyond.
    #[serde(deserialize_with = "crate::range::finite")]
    pub threshold: f64,
    /// Evaluations before this step do not count.
    #[serde(default)]
    pub start_after: u64,
}

impl EarlyStopping {
    /// What is watched.
    pub fn measure(&self) -> Measure {
        let (metric, goal) = match self {
            Self::NoDecrease(Stagnation { metric, .. }) | Self::Lower(Threshold { metric, .. }) => {
                (metric, Goal::Minimize)
            }
            Self::NoIncrease(Stagnation { metric, .. })
            | Self::Higher(Threshold { metric, .. }) => (metric, Goal::Maximize),
        };
        Measure {
            name: metric.clone(),
            goal,
        }
    }

    /// The step before which evaluations do not count.
    pub fn start_after(&self) -> u64 {
        match self {
            Self::NoDecrease(stagnation) | Self::NoIncrease(stagnation) => stagnation.start_after,
            Self::Higher(threshold) | Self::Lower(threshold) => threshold.start_after,
        }
    }

    /// Whether a run that is stopped ends with the weights of the best evaluation.
    pub fn restores_best(&self) -> bool {
        match self {
            Self::NoDecrease(stagnation) | Self::NoIncrease(stagnation) => stagnation.restore_best,
            Self::Higher(_) | Self::Lower(_) => false,
        }
    }
}

/// How the learning rate falls where a metric does not improve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plateau {
    /// Which metric, and its good end.
    pub metric: Measure,
    /// What the learning rate is multiplied by.
    #[serde(deserialize_with = "crate::range::below_one")]
    pub factor: f64,
    /// After how many evaluations in a row without improvement.
    pub patience: u64,
    /// Improvements by no more than this are none.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub min_delta: f64,
    /// For how many evaluations after that nothing is counted.
    pub cooldown: u64,
    /// Below this it does not fall.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub min_rate: f64,
}

impl Default for Plateau {
    fn default() -> Self {
        Self {
            metric: Measure::loss(),
            factor: 0.1,
            patience: 10,
            min_delta: 1e-4,
            cooldown: 0,
            min_rate: 0.0,
        }
    }
}

choices! {
    /// What a model is exported as.
    pub enum ExportFormat ("export format") {
        /// The model with its weights.
        Onnx = "onnx",
        /// The weights by name.
        Safetensors = "safetensors",
    }
}

choices! {
    /// When a run exports its model.
    pub enum ExportWhen ("time to export") {
        /// When an evaluation was the best so far, by `train.best`.
        Best = "best",
        /// After every evaluation.
        Latest = "latest",
        /// When training ends.
        Final = "final",
    }
}

/// What a run exports while it trains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    /// At which times.
    pub when: Vec<ExportWhen>,
    /// In which formats.
    pub formats: Vec<ExportFormat>,
    /// How many of each time and format are kept.
    pub keep: Keep,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            when: vec![ExportWhen::Final],
            formats: vec![ExportFormat::Onnx],
            keep: Keep::Newest(5),
        }
    }
}

/// Which weights a run begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// A run's folder, a checkpoint's, or a file of safetensors.
    pub from: PathBuf,
    /// Which of the model's own trainable tensors are taken, with `*`, `?` and `[a-z]`.
    #[serde(default = "all")]
    pub tensors: String,
    /// What a tensor is called there, where it is another name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
}

fn loss() -> String {
    "loss".to_owned()
}

fn no_patience() -> Patience {
    Patience::Evaluations(0)
}

fn all() -> String {
    "*".to_owned()
}

/// What must be there for what is asked for.
pub(super) fn check(config: &RunConfig, has_test: bool) -> Result<(), Problem> {
    let train = &config.train;
    let export = train.export.as_ref();
    let exports = |when| export.is_some_and(|export| export.when.contains(&when));
    let judged: [(&'static [&'static str], Option<String>); 4] = [
        (
            &["train", "best"],
            train.best.as_ref().map(|best| best.name.clone()),
        ),
        (
            &["train", "early_stopping"],
            train
                .early_stopping
                .as_ref()
                .map(|stop| stop.measure().name),
        ),
        (
            &["train", "plateau"],
            train
                .plateau
                .as_ref()
                .map(|plateau| plateau.metric.name.clone()),
        ),
        (
            &["train", "export"],
            (exports(ExportWhen::Best) || exports(ExportWhen::Latest)).then(loss),
        ),
    ];
    for (key, metric) in judged {
        let problem = match metric.as_deref() {
            Some(_) if !has_test => {
                "it goes by the test rows; give them by test in [data] or, in a program, to \
                 Session::with_data, or leave it out"
            }
            Some("accuracy") if config.task() == Task::Regression => {
                "numbers have no accuracy; use \"loss\""
            }
            _ => continue,
        };
        return Err(invalid(key, problem));
    }
    let acts: [(&'static [&'static str], bool); 2] = [
        (&["train", "early_stopping"], train.early_stopping.is_some()),
        (&["train", "plateau"], train.plateau.is_some()),
    ];
    if let (Cadence::End, Some((key, _))) =
        (train.evaluate_every, acts.iter().find(|(_, acts)| *acts))
    {
        let problem = "it goes by evaluations on the way, and evaluate_every = 0 has none; set \
                       evaluate_every in [train]";
        return Err(invalid(key, problem));
    }
    if exports(ExportWhen::Best) && train.best.is_none() {
        let problem = "\"best\" by what? set best in [train], such as best = \"loss\"";
        return Err(invalid(&["train", "export", "when"], problem));
    }
    if export.is_some_and(|export| export.when.is_empty() || export.formats.is_empty()) {
        let problem = "when and formats each need an entry; or leave the table out";
        return Err(invalid(&["train", "export"], problem));
    }
    if let Some(warm) = &train.warm_start
        && let Err(error) = Pattern::new(&warm.tensors)
    {
        let problem = format!("'{}' is no pattern: {}", warm.tensors, error.msg);
        return Err(invalid(&["train", "warm_start", "tensors"], problem));
    }
    Ok(())
}

//! Whether a run goes on, or is applied, as it was begun: what a checkpoint was trained with against what is
//! asked for now.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::checkpoint::{Checkpoint, Facts};
use crate::config::RunConfig;

/// Most differences that one error lists.
const LISTED: usize = 5;

/// What may be another from here on: how long, how fast, where and on how many ranks. Of anything
/// else the sample stream, the sums or the optimizer's state are made, so that a key is compared
/// unless it stands here. Paths are free because what lies there is compared or, of a warm start, because
/// it is over.
const FREE: &[&str] = &[
    "name",
    "data.test",
    "data.test_images",
    "data.test_labels",
    "data.train",
    "data.train_images",
    "data.train_labels",
    "estimator.dnn_optimizer.learning_rate",
    "estimator.dnn_optimizer.weight_decay",
    "estimator.linear_optimizer.learning_rate",
    "estimator.linear_optimizer.weight_decay",
    "estimator.optimizer.learning_rate",
    "estimator.optimizer.weight_decay",
    "train.best",
    "train.bucket_mib",
    "train.checkpoint_at_start",
    "train.checkpoint_every",
    "train.clip",
    "train.collective",
    "train.device",
    "train.early_stopping",
    "train.epochs",
    "train.evaluate_every",
    "train.evaluate_throttle",
    "train.export",
    "train.graphs",
    "train.keep",
    "train.log_every",
    "train.nccl_algo",
    "train.optimizer.learning_rate",
    "train.optimizer.weight_decay",
    "train.plateau",
    "train.ranks",
    "train.scale_rate_with_ranks",
    "train.schedule",
    "train.steps",
    "train.tensorboard",
    "train.warm_start.from",
    "train.zero",
];

/// The keys that change bits, and nothing else that a run is made of.
const ARITHMETIC: [&str; 3] = ["train.matmul", "train.precision", "train.reduce"];

/// Fields of the fingerprint on which the bits of exact sums depend.
const EXACT_FIELDS: [&str; 2] = ["arithmetic", "training data"];

/// Whether a resumed run has to end with the bits it would have had without the break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// It has to.
    Same,
    /// It goes on even where the arithmetic or the data are others, with a warning.
    MayDiffer,
}

/// A run that cannot go on from its checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It would be another run.
    #[error(
        "cannot resume from {}: {differences}; put back what the run was trained with, or start \
         anew in another folder with --run-dir",
        folder.display()
    )]
    Settings {
        /// The checkpoint.
        folder: PathBuf,
        /// Keys with both values.
        differences: String,
    },
    /// None of its checkpoints is whole.
    #[error(
        "cannot resume: all {count} checkpoints in {} are damaged; bring one back from a copy, or \
         start anew with --overwrite (they are lost), or in another folder with --run-dir",
        folder.display()
    )]
    AllDamaged {
        /// Where they lie.
        folder: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// What would be applied is not what was trained.
    #[error(
        "{} is not what {} was trained with: {differences}; put back what it said, or train anew",
        config.display(), folder.display()
    )]
    Applied {
        /// The run's configuration.
        config: PathBuf,
        /// The checkpoint.
        folder: PathBuf,
        /// Keys with both values.
        differences: String,
    },
    /// It would be the same run with other bits.
    #[error(
        "cannot resume from {} with the same bits: {differences}; put back what the run was \
         trained with, or go on with other bits by --allow-different-bits",
        folder.display()
    )]
    Bits {
        /// The checkpoint.
        folder: PathBuf,
        /// Keys with both values.
        differences: String,
    },
}

/// Compares what `checkpoint` was trained with to what the run is `now`. Returns what changes its
/// bits where that is allowed, to warn of.
///
/// # Errors
/// If it would be another run, or one with other bits where those have to stay.
pub(super) fn compare(
    checkpoint: &Checkpoint,
    now: &Facts,
    bits: Bits,
) -> Result<Option<String>, ResumeError> {
    let folder = checkpoint.folder().to_owned();
    let (other_run, other_bits) = differences(checkpoint.facts(), now);
    if !other_run.is_empty() {
        return Err(ResumeError::Settings {
            folder,
            differences: listed(other_run),
        });
    }
    match bits {
        _ if other_bits.is_empty() => Ok(None),
        Bits::MayDiffer => Ok(Some(listed(other_bits))),
        Bits::Same => Err(ResumeError::Bits {
            folder,
            differences: listed(other_bits),
        }),
    }
}

/// Compares what `checkpoint` was trained with to what a run's configuration, at `path`, makes of rows now:
/// how it is trained does not count.
///
/// # Errors
/// If it would make something else of them.
pub(super) fn compare_applied(
    checkpoint: &Checkpoint,
    (path, config): (&Path, &RunConfig),
) -> Result<(), ResumeError> {
    let applied = |text: &str| {
        let mut tree = parsed(text);
        tree.remove("train");
        tree
    };
    let mut found = Vec::new();
    let (was, now) = (&checkpoint.facts().config, &config.to_toml());
    tables("", &applied(was), &applied(now), &mut found);
    match found.is_empty() {
        true => Ok(()),
        false => Err(ResumeError::Applied {
            config: path.to_owned(),
            folder: checkpoint.folder().to_owned(),
            differences: listed(said(found)),
        }),
    }
}

/// What makes it another run, and what only changes its bits.
fn differences(was: &Facts, now: &Facts) -> (Vec<String>, Vec<String>) {
    let mut found = Vec::new();
    let (before, after) = (tree(was), tree(now));
    tables("", &before, &after, &mut found);
    let reduce = after.get("train").and_then(|train| train.get("reduce"));
    if reduce.and_then(Value::as_str) == Some("exact") {
        for field in EXACT_FIELDS {
            let text = |facts: &Facts| facts.fingerprint.get(field).cloned().map(Value::String);
            values(field, text(was).as_ref(), text(now).as_ref(), &mut found);
        }
    }
    let only_bits = |key: &str| ARITHMETIC.contains(&key) || EXACT_FIELDS.contains(&key);
    let (bits, run): (Vec<_>, Vec<_>) = found.into_iter().partition(|(key, _)| only_bits(key));
    (said(run), said(bits))
}

/// A key, and what it was and is.
type Difference = (String, String);

fn said(found: Vec<Difference>) -> Vec<String> {
    let said = found.into_iter().map(|(key, how)| format!("{key}: {how}"));
    said.collect()
}

/// A configuration's tree. A text that is no TOML has no keys, and so differs in all of them.
fn parsed(text: &str) -> Table {
    toml::from_str(text).unwrap_or_default()
}

/// The configuration and what is known of the training data, as one table.
fn tree(facts: &Facts) -> Table {
    let mut tree = parsed(&facts.config);
    for (name, value) in Table::try_from(&facts.data).unwrap_or_default() {
        tree.insert(format!("{name} of the training data"), value);
    }
    tree
}

/// Adds what differs between the tables at `key`. Of two kinds the settings are not comparable.
fn tables(key: &str, was: &Table, now: &Table, found: &mut Vec<Difference>) {
    let kind = "kind".to_owned();
    let names: BTreeSet<&String> = match was.get(&kind) == now.get(&kind) {
        true => was.keys().chain(now.keys()).collect(),
        false => BTreeSet::from([&kind]),
    };
    for name in names {
        let key = match key {
            "" => name.clone(),
            table => format!("{table}.{name}"),
        };
        values(&key, was.get(name), now.get(name), found);
    }
}

/// Adds what differs between the values of `key`, where it is not free.
fn values(key: &str, was: Option<&Value>, now: Option<&Value>, found: &mut Vec<Difference>) {
    // A vocabulary's file, too: its texts are compared.
    let is_file = key.starts_with("columns.") && key.ends_with(".file");
    if was == now || is_file || FREE.contains(&key) {
        return;
    }
    match (was, now) {
        (Some(Value::Table(was)), Some(Value::Table(now))) => tables(key, was, now, found),
        (Some(Value::Array(was)), Some(Value::Array(now))) if was.len() == now.len() => {
            for (index, (was, now)) in was.iter().zip(now).enumerate() {
                values(
                    &format!("{key} entry {}", index + 1),
                    Some(was),
                    Some(now),
                    found,
                );
            }
        }
        (Some(Value::Array(was)), Some(Value::Array(now))) => {
            let how = format!("had {} entries, has {}", was.len(), now.len());
            found.push((key.to_owned(), how));
        }
        _ => {
            let shown = |value: Option<&Value>| match value {
                None => "not set".to_owned(),
                Some(value) => value.to_string(),
            };
            let how = format!("was {}, is {}", shown(was), shown(now));
            found.push((key.to_owned(), how));
        }
    }
}

/// The first of them, and how many more there are.
fn listed(mut differences: Vec<String>) -> String {
    let more = differences.len().saturating_sub(LISTED);
    differences.truncate(LISTED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    differences.join("; ")
}

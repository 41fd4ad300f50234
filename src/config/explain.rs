//! From a fault and the way to it to a message in the words of the run file.

use serde::de::value::{self, StrDeserializer};
use serde::de::{Deserialize, IntoDeserializer};

use super::ConfigError;
use super::deserialize::{Error, Fault};
use super::document::{Document, KIND, Node, Value};
use super::file::Problem;
use crate::layers::ActivationSpec;
use crate::named::hint;

/// A node on the way from the root to a fault.
struct Stop<'a> {
    /// `model.layers entry 2.units`
    name: String,
    at: usize,
    node: &'a Node,
}

/// The message for a tree that does not have the right form.
pub(super) fn explain(document: &Document, error: Error) -> ConfigError {
    let stops = walk(&document.root, &error.path);
    let (last, above) = stops.split_last().expect("a walk starts at the root");
    let at = document.place(last.at);
    let key = last.name.clone();
    match error.fault {
        Fault::UnknownKey {
            key: unknown,
            known,
        } => ConfigError::UnknownKey {
            at,
            hint: hint(&unknown, &known),
            key: unknown,
            table: above.last().map_or_else(String::new, describe),
        },
        Fault::UnknownName { name, known } => ConfigError::UnknownName {
            at,
            subject: match above.last().and_then(|table| kind_of_what(&key, table)) {
                Some(what) => format!("unknown {what} kind"),
                None => format!("{key}: unknown name"),
            },
            hint: match key.starts_with("model.layers") && is_activation(&name) {
                true => format!(
                    "; a function is a layer as {{ kind = \"activation\", function = \"{name}\" }}"
                ),
                false => hint(&name, &known),
            },
            name,
        },
        Fault::WrongValue { found, expected } => ConfigError::Value {
            at,
            key,
            problem: format!("expected {expected}, found {found}"),
        },
        Fault::MissingKey { key, .. } if above.is_empty() => ConfigError::Missing {
            at: document.file().to_owned(),
            problem: format!("missing section [{key}]"),
        },
        Fault::MissingKey { key, names } => ConfigError::Missing {
            at,
            problem: match &names[..] {
                [] => format!("missing key '{key}' in {}", describe(last)),
                names => format!(
                    "missing key '{key}' in {}: one of {}",
                    describe(last),
                    names.join(", ")
                ),
            },
        },
        Fault::Other(problem) => ConfigError::Value { at, key, problem },
    }
}

/// The message for values that cannot be together, or at all.
pub(super) fn locate(document: &Document, problem: Problem) -> ConfigError {
    let mut node = &document.root;
    let mut at = None;
    for part in &problem.key {
        if let Some(entry) = node.entry(part) {
            at = Some(entry.at);
            node = &entry.node;
        }
    }
    let at = at.map_or_else(|| document.file().to_owned(), |at| document.place(at));
    problem.at(at)
}

fn walk<'a>(root: &'a Node, path: &[usize]) -> Vec<Stop<'a>> {
    let mut stops = vec![Stop {
        name: String::new(),
        at: root.at,
        node: root,
    }];
    for &index in path {
        let last = &stops[stops.len() - 1];
        let next = match &last.node.value {
            Value::Array(items) => Stop {
                name: format!("{} entry {}", last.name, index + 1),
                at: items[index].at,
                node: &items[index],
            },
            Value::Table(entries) => Stop {
                name: match last.name.as_str() {
                    "" => entries[index].key.clone(),
                    name => format!("{name}.{}", entries[index].key),
                },
                at: entries[index].at,
                node: &entries[index].node,
            },
            _ => break,
        };
        stops.push(next);
    }
    stops
}

/// `[train]`, or `model.layers entry 2 (dense)`.
fn describe(table: &Stop<'_>) -> String {
    let kind = match table.node.get(KIND).map(|node| &node.value) {
        Some(Value::String(kind)) => format!(" ({kind})"),
        _ => String::new(),
    };
    match table.name.as_str() {
        "" => {
            "the run file; its sections are [data], [columns], [model] or [estimator], and [train]"
                .to_owned()
        }
        name if name.contains(" entry ") => format!("{name}{kind}"),
        name => format!("[{name}]{kind}"),
    }
}

/// `layer` for an entry of `model.layers`, `column` for one of `[columns]`, `optimizer` for
/// `train.optimizer`, where `key` is a kind.
fn kind_of_what(key: &str, table: &Stop<'_>) -> Option<String> {
    let is_kind = key.rsplit('.').next() == Some(KIND);
    let name = table.name.rsplit('.').next().unwrap_or_default();
    is_kind.then(|| match table.name.as_str() {
        table if table.starts_with("model.layers") => "layer".to_owned(),
        table if table.starts_with("columns.") => "column".to_owned(),
        _ => name.to_owned(),
    })
}

fn is_activation(name: &str) -> bool {
    let name: StrDeserializer<'_, value::Error> = name.into_deserializer();
    ActivationSpec::deserialize(name).is_ok()
}

//! Paths in a run file, and from where they count.

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::document::{Document, Entry, Node, Value};
use super::file::{Problem, invalid};
use super::one_or_more::OneOrMore;

/// Keys that hold paths.
const KEYS: [&[&str]; 8] = [
    &["data", "train"],
    &["data", "test"],
    &["data", "train_images"],
    &["data", "train_labels"],
    &["data", "test_images"],
    &["data", "test_labels"],
    &["model", "keras"],
    &["train", "warm_start", "from"],
];

/// The key of an entry of `[columns]` that holds one.
const COLUMN: &str = "file";

/// Paths of files, or patterns that name them.
pub(super) type Paths = OneOrMore<PathBuf>;

impl Paths {
    /// The path, where there is one.
    pub(super) fn single(mut self, key: &[&str]) -> Result<PathBuf, Problem> {
        match self.0.len() {
            1 => Ok(self.0.swap_remove(0)),
            count => Err(invalid(key, format!("{count} paths; this format has one"))),
        }
    }
}

/// Makes the paths of the sections absolute: the file's from its folder, overrides' from here.
pub(super) fn resolve(document: &mut Document, path: &Path) -> Result<(), ConfigError> {
    let file = absolute(path)?;
    let folder = file.parent().unwrap_or(&file);
    for place in places(document) {
        let mut keys = place.iter();
        let Some(node) = keys.try_fold(&document.root, |node, key| node.get(key)) else {
            continue;
        };
        let resolved = resolved(node, document, folder)?;
        let mut keys = place.iter();
        if let Some(node) = keys.try_fold(&mut document.root, |node, key| node.get_mut(key)) {
            *node = resolved;
        }
    }
    Ok(())
}

/// Refuses relative paths, of which nobody could say from where they count.
pub(super) fn refuse_relative(document: &Document) -> Result<(), Problem> {
    for place in places(document) {
        let mut keys = place.iter();
        let Some(node) = keys.try_fold(&document.root, |node, key| node.get(key)) else {
            continue;
        };
        let paths = match &node.value {
            Value::Array(items) => &items[..],
            _ => std::slice::from_ref(node),
        };
        for path in paths {
            if let Value::String(path) = &path.value
                && Path::new(path).is_relative()
                && !path.is_empty()
            {
                let key: Vec<_> = place.iter().map(String::as_str).collect();
                let text = format!("'{path}' is relative; a program gives absolute paths");
                return Err(invalid(&key, text));
            }
        }
    }
    Ok(())
}

/// Where paths may stand in this file.
fn places(document: &Document) -> Vec<Vec<String>> {
    let owned = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
    let mut places: Vec<Vec<String>> = KEYS.iter().map(|keys| owned(keys)).collect();
    if let Some(Value::Table(entries)) = document.root.get("columns").map(|node| &node.value) {
        let file = |entry: &Entry| vec!["columns".to_owned(), entry.key.clone(), COLUMN.to_owned()];
        places.extend(entries.iter().map(file));
    }
    places
}

/// The node with every string in it, or in its array, as an absolute path.
fn resolved(node: &Node, document: &Document, folder: &Path) -> Result<Node, ConfigError> {
    let value = match &node.value {
        // No file at all, which is refused where the section is checked.
        Value::String(text) if text.is_empty() => node.value.clone(),
        Value::String(text) => {
            let path = match document.is_override(node.at) {
                true => absolute(Path::new(text))?,
                false => folder.join(text),
            };
            Value::String(path.to_string_lossy().into_owned())
        }
        Value::Array(items) => {
            let items = items.iter().map(|item| resolved(item, document, folder));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    };
    Ok(Node { at: node.at, value })
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

//! A run file with its overrides, as a tree that knows where everything was written.
//!
//! Positions are byte offsets into the file's text; an override's position is the text's length
//! plus the override's index, so that one number names either.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The key that says which variant a table is; moved to the front of its table, so that the other
/// keys are read knowing it.
pub(super) const KIND: &str = "kind";

/// The keys of `[train]` that say how long, of which a run file has one.
pub(super) const LENGTHS: [&str; 3] = ["steps", "max_steps", "epochs"];

/// A value set from the command line, in place of the run file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    shown: String,
    assignment: String,
}

impl Override {
    /// `--set` with `section.key=value`. The value is TOML; a word that is not counts as a string.
    /// A number in the key counts entries of an array, from 0: `model.layers.1.units=64`.
    pub fn set(assignment: &str) -> Self {
        Self {
            shown: format!("--set {assignment}"),
            assignment: assignment.to_owned(),
        }
    }

    /// A flag of its own, `--ranks 4`, that stands for an assignment, `train.ranks=4`.
    pub fn flag(shown: &str, assignment: &str) -> Self {
        Self {
            shown: shown.to_owned(),
            assignment: assignment.to_owned(),
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

impl Value {
    /// What it is, as errors say it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "number",
            Self::Boolean(_) => "boolean",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
        }
    }
}

/// A key of a table with its value, in the order of the file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: usize,
    pub(super) key: String,
    pub(super) node: Node,
}

/// The tree and what is needed to name places in it.
pub(super) struct Document {
    pub(super) root: Node,
    path: String,
    /// Where they end; `None` where a program stands behind it, whose text nobody has seen.
    lines: Option<Vec<usize>>,
    len: usize,
    overrides: Vec<Override>,
}

impl Document {
    /// Parses the text of the run file at `path` and applies the overrides in order.
    pub(super) fn parse(
        path: &Path,
        text: &str,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        let mut document = Self {
            root: Node {
                at: 0,
                value: Value::Table(Vec::new()),
            },
            path: path.display().to_string(),
            lines: Some(text.match_indices('\n').map(|(at, _)| at).collect()),
            len: text.len(),
            overrides: overrides.to_vec(),
        };
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            at: document.place(error.span().map_or(0, |span| span.start)),
            problem: error.message().trim_end().replace('\n', ", "),
        })?;
        document.root = document.convert(table.span().start, DeValue::Table(table.into_inner()))?;
        for index in 0..overrides.len() {
            document.apply(index)?;
        }
        Ok(document)
    }

    /// The same of a text that a program's configuration was turned into.
    pub(super) fn of_program(name: &str, text: &str) -> Result<Self, ConfigError> {
        let document = Self::parse(Path::new(name), text, &[])?;
        Ok(Self {
            lines: None,
            ..document
        })
    }

    /// `run.toml:12`, or the override.
    pub(super) fn place(&self, at: usize) -> String {
        match at.checked_sub(self.len) {
            Some(index) if index > 0 => self.overrides[index - 1].shown.clone(),
            _ => match &self.lines {
                Some(lines) => {
                    let line = lines.partition_point(|&newline| newline < at) + 1;
                    format!("{}:{line}", self.path)
                }
                None => self.path.clone(),
            },
        }
    }

    /// The run file, for what has no line.
    pub(super) fn file(&self) -> &str {
        &self.path
    }

    /// Whether a position is an override's.
    pub(super) fn is_override(&self, at: usize) -> bool {
        at > self.len
    }

    fn convert(&self, at: usize, value: DeValue<'_>) -> Result<Node, ConfigError> {
        let invalid = |problem: String| ConfigError::Syntax {
            at: self.place(at),
            problem,
        };
        let value = match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Integer(integer) => Value::Integer(
                i64::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| invalid(format!("integer {integer} is out of range")))?,
            ),
            DeValue::Float(float) => Value::Float(
                float
                    .as_str()
                    .parse()
                    .map_err(|_| invalid(format!("{float} is not a number")))?,
            ),
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Datetime(date) => Value::String(date.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.convert_spanned(item))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => {
                let mut entries = table
                    .into_iter()
                    .map(|(key, node)| {
                        Ok(Entry {
                            at: key.span().start,
                            key: key.into_inner().into_owned(),
                            node: self.convert_spanned(node)?,
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                entries.sort_by_key(|entry| (entry.key != KIND, entry.at));
                Value::Table(entries)
            }
        };
        Ok(Node { at, value })
    }

    fn convert_spanned(&self, value: Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        self.convert(value.span().start, value.into_inner())
    }

    fn apply(&mut self, index: usize) -> Result<(), ConfigError> {
        let Override { shown, assignment } = &self.overrides[index];
        let invalid = |problem: String| ConfigError::Syntax {
            at: shown.clone(),
            problem,
        };
        let at = self.len + 1 + index;
        let (key, text) = assignment
            .split_once('=')
            .ok_or_else(|| invalid("expected section.key=value".to_owned()))?;
        let path: Vec<_> = key.trim().split('.').collect();
        if path.iter().any(|part| part.is_empty()) {
            return Err(invalid("expected section.key=value".to_owned()));
        }
        let mut node = match DeValue::parse(text.trim()) {
            Ok(value) => self.convert(at, value.into_inner())?,
            Err(_) => Node {
                at,
                value: Value::String(text.trim().to_owned()),
            },
        };
        node.move_to(at);
        // The ways to say how long are one setting: a new one replaces the file's.
        let len = self.len;
        if let ["train", key] = path[..]
            && LENGTHS.contains(&key)
            && let Some(train) = self.root.get_mut("train")
            && let Value::Table(entries) = &mut train.value
        {
            let is_other = |name: &str| name != key && LENGTHS.contains(&name);
            entries.retain(|entry| !is_other(&entry.key) || entry.at > len);
        }
        let slot = self.root.slot(&path, at).map_err(invalid)?;
        *slot = node;
        Ok(())
    }
}

impl Node {
    /// The entry of a key, where this is a table that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value of a key, where this is a table that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The node at a path of keys, with the way to it: the indices of entries.
    pub(super) fn find(&self, keys: &[&str]) -> Option<(Vec<usize>, &Node)> {
        let mut node = self;
        let mut path = Vec::new();
        for key in keys {
            let Value::Table(entries) = &node.value else {
                return None;
            };
            let index = entries.iter().position(|entry| entry.key == *key)?;
            path.push(index);
            node = &entries[index].node;
        }
        Some((path, node))
    }

    /// As [`Node::get`].
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Table(entries) => entries
                .iter_mut()
                .find(|entry| entry.key == key)
                .map(|entry| &mut entry.node),
            _ => None,
        }
    }

    /// Gives the node and all below it one position.
    fn move_to(&mut self, at: usize) {
        self.at = at;
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(|item| item.move_to(at)),
            Value::Table(entries) => entries.iter_mut().for_each(|entry| {
                entry.at = at;
                entry.node.move_to(at);
            }),
            _ => {}
        }
    }

    /// The node at a path, made where tables lack it.
    fn slot(&mut self, path: &[&str], at: usize) -> Result<&mut Node, String> {
        let mut node = self;
        for (depth, &part) in path.iter().enumerate() {
            let place = || path[..depth].join(".");
            node = match &mut node.value {
                Value::Table(entries) => {
                    let found = entries.iter().position(|entry| entry.key == part);
                    let index = found.unwrap_or_else(|| {
                        let node = Node {
                            at,
                            value: Value::Table(Vec::new()),
                        };
                        let key = part.to_owned();
                        // The kind stays in front.
                        let index = if part == KIND { 0 } else { entries.len() };
                        entries.insert(index, Entry { at, key, node });
                        index
                    });
                    let entry = &mut entries[index];
                    if depth + 1 == path.len() {
                        entry.at = at;
                    }
                    &mut entry.node
                }
                Value::Array(items) => {
                    let len = items.len();
                    part.parse()
                        .ok()
                        .and_then(|index: usize| items.get_mut(index))
                        .ok_or_else(|| {
                            format!(
                                "{} has entries 0 to {}, not '{part}'",
                                place(),
                                len.saturating_sub(1)
                            )
                        })?
                }
                Value::String(name) => {
                    return Err(format!(
                        "{} is the value \"{name}\", not a table; write {{ {KIND} = \"{name}\", {part} = \
                         ... }} there",
                        place()
                    ));
                }
                _ => return Err(format!("{} is a value, not a table", place())),
            };
        }
        Ok(node)
    }
}

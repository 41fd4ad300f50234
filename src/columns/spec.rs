//! What a user writes of feature columns: a map from their names to how each is made of a column of
//! the data.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::Normalize;
use crate::named::{choices, registry};

registry! {
    /// How a feature column is made of what stands in the data.
    ///
    /// ```
    /// use ringstep::columns::{ColumnSpec, Hash};
    /// let spec = ColumnSpec::from(Hash { source: None, max_values: 1, buckets: 1000 });
    /// assert_eq!((spec.name(), spec.source("occupation")), ("hash", Some("occupation")));
    /// ```
    pub enum ColumnSpec ("a column") {
        Numeric(Numeric) = "numeric": "numbers, as they are or normalised",
        Bucketized(Bucketized) = "bucketized": "which of the intervals between boundaries a number is in",
        Identity(Identity) = "identity": "whole numbers from 0 as ids",
        Vocabulary(Vocabulary) = "vocabulary": "the place of a text in a list of them",
        Hash(Hash) = "hash": "a text's hash",
        Crossed(Crossed) = "crossed": "the hash of several columns' values together",
        Weighted(Weighted) = "weighted": "the ids of another column, each with a weight",
    }
}

/// Numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Numeric {
    /// The column of the data; the entry's own name where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How many a row has, at least 1.
    pub shape: usize,
    /// What stands for a value that is missing; without it, that is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<f64>,
    /// What is done to them.
    pub normalize: Normalize,
}

impl Default for Numeric {
    fn default() -> Self {
        Self {
            source: None,
            shape: 1,
            default: None,
            normalize: Normalize::None,
        }
    }
}

/// The interval a number is in: `boundaries.len() + 1` of them, closed on the left.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucketized {
    /// A numeric column, whose shape and default are taken but not what it is normalised by, or a column
    /// of the data; the entry's own name where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Rising.
    pub boundaries: Vec<f64>,
}

impl Bucketized {
    /// The boundaries in the precision in which numbers are compared with them.
    pub(super) fn boundaries(&self) -> Vec<f32> {
        let boundaries = self.boundaries.iter();
        boundaries.map(|&boundary| boundary as f32).collect()
    }
}

/// Whole numbers that are ids already.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The column of the data; the entry's own name where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Most values of a row, at least 1.
    #[serde(default = "single")]
    pub max_values: usize,
    /// How many ids there are, at least 1.
    pub buckets: usize,
    /// The id of numbers that are none; without it, those are an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<usize>,
}

/// Texts by their place in a list.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vocabulary {
    /// The column of the data; the entry's own name where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Most values of a row, at least 1.
    pub max_values: usize,
    /// The texts in the order of their ids; without them or a `file`, those of the training split, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
    /// A file with a text on each line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// What becomes of other texts.
    pub oov: OutOfVocabulary,
    /// The id of other texts; -1 is none.
    pub default: i64,
    /// How many ids behind the vocabulary's other texts are spread over by their hash.
    pub oov_buckets: usize,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self {
            source: None,
            max_values: 1,
            values: None,
            file: None,
            oov: OutOfVocabulary::Default,
            default: -1,
            oov_buckets: 0,
        }
    }
}

choices! {
    /// What becomes of texts that are not in a vocabulary.
    pub enum OutOfVocabulary("out of vocabulary") {
        /// An id of `oov_buckets` where there are any, else `default`.
        Default = "default",
        /// They are refused.
        Error = "error",
    }
}

/// A text's hash: FarmHash's Fingerprint64, modulo `buckets`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hash {
    /// The column of the data; the entry's own name where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Most values of a row, at least 1.
    #[serde(default = "single")]
    pub max_values: usize,
    /// How many ids there are, at least 1.
    pub buckets: usize,
}

/// The hash of every combination of the keys' values.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossed {
    /// At least two. A bucketized or an identity column counts by its id; any other, and a column of the
    /// data, by its text.
    pub keys: Vec<String>,
    /// How many ids there are, at least 1.
    pub buckets: usize,
}

/// Ids with weights.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// The column whose ids they are: identity, vocabulary or hash.
    pub source: String,
    /// The column of the data with a weight for each of its values.
    pub weights: String,
}

fn single() -> usize {
    1
}

impl ColumnSpec {
    /// The column of the data that an entry called `name` reads by itself; `None` where it is made of
    /// other entries.
    pub fn source<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let source = match self {
            Self::Numeric(spec) => &spec.source,
            Self::Bucketized(spec) => &spec.source,
            Self::Identity(spec) => &spec.source,
            Self::Vocabulary(spec) => &spec.source,
            Self::Hash(spec) => &spec.source,
            Self::Crossed(_) | Self::Weighted(_) => return None,
        };
        Some(source.as_deref().unwrap_or(name))
    }

    /// Whether its values are ids, which a model looks up, and not numbers, which it computes with.
    pub fn is_categorical(&self) -> bool {
        !matches!(self, Self::Numeric(_))
    }
}

/// Feature columns, and which of them a model reads.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// All that there are.
    pub columns: &'a Columns,
    /// Names of those that are read, in the order of a row.
    pub used: &'a [String],
}

impl Selection<'_> {
    /// Those that are read, and those that they are made of.
    pub(crate) fn needed(&self) -> Columns {
        let used = self.used.iter();
        let needed: BTreeSet<&str> = used.flat_map(|name| self.columns.entries(name)).collect();
        let columns = self.columns.0.iter();
        let columns = columns.filter(|(name, _)| needed.contains(name.as_str()));
        Columns(columns.cloned().collect())
    }
}

/// Feature columns by name, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Columns(pub Vec<(String, ColumnSpec)>);

impl Columns {
    /// The column called `name`.
    pub fn get(&self, name: &str) -> Option<&ColumnSpec> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, spec)| spec)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut ColumnSpec> {
        let found = self.0.iter_mut().find(|(other, _)| other == name);
        found.map(|(_, spec)| spec)
    }

    /// The columns of the data that the column called `name` reads, be it through others.
    pub(crate) fn sources(&self, name: &str) -> Vec<&str> {
        let Some((name, spec)) = self.0.iter().find(|(other, _)| other == name) else {
            return Vec::new();
        };
        match spec {
            ColumnSpec::Bucketized(_) => vec![self.numbers_of(name).0],
            ColumnSpec::Crossed(spec) => {
                let keys = spec.keys.iter();
                keys.flat_map(|key| match self.get(key) {
                    Some(_) => self.sources(key),
                    None => vec![key.as_str()],
                })
                .collect()
            }
            ColumnSpec::Weighted(spec) => {
                let mut sources = self.sources(&spec.source);
                sources.push(&spec.weights);
                sources
            }
            spec => spec.source(name).into_iter().collect(),
        }
    }

    /// The column of the data, the shape and the default of the numbers that the numeric or bucketized
    /// column called `name` is of.
    pub(super) fn numbers_of<'a>(&'a self, name: &'a str) -> (&'a str, usize, Option<f64>) {
        match self.get(name) {
            Some(ColumnSpec::Numeric(spec)) => {
                let source = spec.source.as_deref().unwrap_or(name);
                (source, spec.shape, spec.default)
            }
            Some(ColumnSpec::Bucketized(spec)) => match spec.source.as_deref() {
                Some(source) if source != name => self.numbers_of(source),
                _ => (name, 1, None),
            },
            _ => (name, 1, None),
        }
    }

    /// The column called `name` and those that it is made of.
    pub(super) fn entries<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let mut entries = vec![name];
        match self.get(name) {
            Some(ColumnSpec::Bucketized(spec)) => entries.extend(spec.source.as_deref()),
            Some(ColumnSpec::Crossed(spec)) => {
                entries.extend(spec.keys.iter().flat_map(|key| self.entries(key)));
            }
            Some(ColumnSpec::Weighted(spec)) => entries.push(&spec.source),
            _ => {}
        }
        entries
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl<N: Into<String>, S: Into<ColumnSpec>> FromIterator<(N, S)> for Columns {
    fn from_iter<I: IntoIterator<Item = (N, S)>>(columns: I) -> Self {
        let columns = columns.into_iter();
        Self(
            columns
                .map(|(name, spec)| (name.into(), spec.into()))
                .collect(),
        )
    }
}

impl Serialize for Columns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, spec)| (name, spec)))
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Columns;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Columns(entries))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

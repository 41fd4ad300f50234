//! How an Estimator reads columns: linear models by a weight for each category, networks as dense numbers.

use std::collections::BTreeSet;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::backend::Combiner;
use crate::columns::{ColumnSpec, Columns, Encoded, Encoding, Values};
use crate::models::{DenseColumn, EmbeddingTable, Ids};
use crate::named::hint;
use crate::params::{Initializer, TruncatedNormal};
use crate::range::size;

/// A categorical column as dense numbers, as it is written.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Wrapped {
    Indicator(Indicator),
    Embedding(Embedding),
    SharedEmbedding(SharedEmbedding),
}

/// How often each category is there: one of many for a single value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Indicator {
    /// A categorical column.
    pub column: String,
}

/// A learned vector for each category.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// A categorical column.
    pub column: String,
    /// Length of the vectors, at least 1.
    #[serde(deserialize_with = "size")]
    pub dimension: usize,
    /// How the vectors of several values become one.
    #[serde(default = "mean")]
    pub combiner: Combiner,
    /// How vectors start out: normal, truncated, with a deviation of one over the root of `dimension`,
    /// where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<Initializer>,
}

/// The same vectors for several columns with as many categories each.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedEmbedding {
    /// Categorical columns.
    pub columns: Vec<String>,
    /// Length of the vectors, at least 1.
    #[serde(deserialize_with = "size")]
    pub dimension: usize,
    /// As of [`Embedding`].
    #[serde(default = "mean")]
    pub combiner: Combiner,
    /// As of [`Embedding`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer: Option<Initializer>,
}

fn mean() -> Combiner {
    Combiner::Mean
}

/// A column of a network: the name of a numeric or a bucketized one, or a categorical one that is wrapped.
#[derive(Debug, Clone, PartialEq)]
pub enum DnnColumn {
    /// A numeric column, or a bucketized one, which is one of many.
    Plain(String),
    /// See [`Indicator`].
    Indicator(Indicator),
    /// See [`Embedding`].
    Embedding(Embedding),
    /// See [`SharedEmbedding`].
    SharedEmbedding(SharedEmbedding),
}

impl DnnColumn {
    /// Names of the columns that it reads.
    pub(super) fn columns(&self) -> Vec<&str> {
        match self {
            Self::Plain(name) => vec![name],
            Self::Indicator(spec) => vec![&spec.column],
            Self::Embedding(spec) => vec![&spec.column],
            Self::SharedEmbedding(spec) => spec.columns.iter().map(String::as_str).collect(),
        }
    }

    /// Names that its columns have in the network, which decide their order: TensorFlow's.
    fn names(&self) -> Vec<String> {
        let kind = match self {
            Self::Plain(_) => "",
            Self::Indicator(_) => "_indicator",
            Self::Embedding(_) => "_embedding",
            Self::SharedEmbedding(_) => "_shared_embedding",
        };
        let columns = self.columns().into_iter();
        columns.map(|column| format!("{column}{kind}")).collect()
    }

    /// Refuses what is not among `columns`, or of another kind.
    pub(super) fn check(&self, columns: &Columns) -> Result<(), String> {
        for name in self.columns() {
            let spec = find(columns, name)?;
            if let (ColumnSpec::Bucketized(_), Self::Plain(_)) = (spec, self) {
                continue;
            }
            let is_categorical = spec.is_categorical();
            let is_wrapped = !matches!(self, Self::Plain(_));
            match (is_categorical, is_wrapped) {
                (true, false) => {
                    return Err(format!(
                        "'{name}' is categorical, and a network computes with numbers; wrap it: \
                         {{ kind = \"indicator\", column = \"{name}\" }} or {{ kind = \"embedding\", \
                         column = \"{name}\", dimension = 8 }}"
                    ));
                }
                (false, true) => {
                    return Err(format!(
                        "'{name}' is numeric, and only categories can be wrapped; name it alone: \
                         \"{name}\", or make a bucketized column of it"
                    ));
                }
                _ => {}
            }
        }
        match self {
            Self::Embedding(Embedding { dimension: 0, .. })
            | Self::SharedEmbedding(SharedEmbedding { dimension: 0, .. }) => {
                Err("an embedding of dimension 0; it needs at least 1".to_owned())
            }
            Self::SharedEmbedding(spec) if spec.columns.is_empty() => {
                Err("a shared_embedding of no columns; name those that share it".to_owned())
            }
            Self::SharedEmbedding(spec) => {
                let known = spec.columns.iter();
                let mut known = known.filter_map(|name| Some((name, columns.categories(name)?)));
                let Some((first, shared)) = known.next() else {
                    return Ok(());
                };
                match known.find(|(_, count)| *count != shared) {
                    Some((column, count)) => Err(unequal([column, first], [count, shared])),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Serialize for DnnColumn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let wrapped = match self.clone() {
            Self::Plain(name) => return serializer.serialize_str(&name),
            Self::Indicator(spec) => Wrapped::Indicator(spec),
            Self::Embedding(spec) => Wrapped::Embedding(spec),
            Self::SharedEmbedding(spec) => Wrapped::SharedEmbedding(spec),
        };
        wrapped.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DnnColumn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Column;

        impl<'de> Visitor<'de> for Column {
            type Value = DnnColumn;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a numeric or bucketized column or a table with a kind")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<DnnColumn, E> {
                Ok(DnnColumn::Plain(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<DnnColumn, A::Error> {
                let table = serde::de::value::MapAccessDeserializer::new(table);
                Ok(match Wrapped::deserialize(table)? {
                    Wrapped::Indicator(spec) => DnnColumn::Indicator(spec),
                    Wrapped::Embedding(spec) => DnnColumn::Embedding(spec),
                    Wrapped::SharedEmbedding(spec) => DnnColumn::SharedEmbedding(spec),
                })
            }
        }

        deserializer.deserialize_any(Column)
    }
}

/// The specification of the column called `name`.
pub(super) fn find<'a>(columns: &'a Columns, name: &str) -> Result<&'a ColumnSpec, String> {
    columns.get(name).ok_or_else(|| {
        let known: Vec<_> = columns.names().map(str::to_owned).collect();
        format!("no column '{name}' in [columns]{}", hint(name, &known))
    })
}

/// Where the column called `name` stands in a row.
pub(super) fn encoded<'a>(encoding: &'a Encoding, name: &str) -> Result<&'a Encoded, String> {
    encoding
        .find(name)
        .ok_or_else(|| format!("the data have no column '{name}'"))
}

/// Where the ids of a categorical column stand.
pub(super) fn ids(column: &Encoded) -> Result<Ids, String> {
    let slots = column.slots.clone();
    Ok(match column.values {
        Values::Weighted { count } => {
            let middle = slots.start + slots.len() / 2;
            Ids {
                slots: slots.start..middle,
                count,
                weights: Some(middle),
            }
        }
        Values::Ids { count } => Ids {
            slots,
            count,
            weights: None,
        },
        Values::Numbers => {
            let name = &column.name;
            return Err(format!(
                "'{name}' is numeric, and only categories can be wrapped"
            ));
        }
    })
}

/// The columns of a network in the order of the names that TensorFlow gives them, and the tables of their
/// embeddings.
pub(super) fn dense(
    encoding: &Encoding,
    used: &[DnnColumn],
) -> Result<(Vec<DenseColumn>, Vec<EmbeddingTable>), String> {
    let (mut named, mut tables) = (Vec::new(), Vec::new());
    for column in used {
        let denses = match column {
            DnnColumn::Plain(name) => {
                let column = encoded(encoding, name)?;
                vec![match column.values {
                    Values::Numbers => DenseColumn::Numbers(column.slots.clone()),
                    Values::Ids { .. } | Values::Weighted { .. } => {
                        DenseColumn::Indicator(ids(column)?)
                    }
                }]
            }
            DnnColumn::Indicator(Indicator { column }) => {
                vec![DenseColumn::Indicator(ids(encoded(encoding, column)?)?)]
            }
            DnnColumn::Embedding(spec) => {
                let ids = ids(encoded(encoding, &spec.column)?)?;
                let table = tables.len();
                let name = column.names().swap_remove(0);
                tables.push(table_of(name, ids.count, spec.dimension, &spec.initializer));
                vec![DenseColumn::Embedding {
                    ids,
                    table,
                    combiner: spec.combiner,
                }]
            }
            DnnColumn::SharedEmbedding(spec) => {
                let (mut denses, mut count) = (Vec::new(), None);
                for column in &spec.columns {
                    let ids = ids(encoded(encoding, column)?)?;
                    let shared = *count.get_or_insert(ids.count);
                    if ids.count != shared {
                        return Err(unequal([column, &spec.columns[0]], [ids.count, shared]));
                    }
                    denses.push(DenseColumn::Embedding {
                        ids,
                        table: tables.len(),
                        combiner: spec.combiner,
                    });
                }
                let name = format!("{}_shared_embedding", spec.columns.join("_"));
                let count = count.unwrap_or_default();
                tables.push(table_of(name, count, spec.dimension, &spec.initializer));
                denses
            }
        };
        named.extend(column.names().into_iter().zip(denses));
    }
    let mut known = BTreeSet::new();
    if let Some(twice) = tables.iter().find(|table| !known.insert(&table.name)) {
        return Err(format!(
            "two embeddings are called '{}'; leave one of them out",
            twice.name
        ));
    }
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok((
        named.into_iter().map(|(_, column)| column).collect(),
        tables,
    ))
}

/// Refuses a network that has a column twice.
pub(super) fn check_names(used: &[DnnColumn]) -> Result<(), String> {
    let mut known = BTreeSet::new();
    let mut names = used.iter().flat_map(DnnColumn::names);
    names.try_for_each(|name| {
        if known.contains(&name) {
            return Err(format!(
                "the network has '{name}' twice; name each column once"
            ));
        }
        known.insert(name);
        Ok(())
    })
}

/// What is said of columns that share an embedding although one has more categories than the other.
fn unequal([column, first]: [&str; 2], [count, shared]: [usize; 2]) -> String {
    format!(
        "'{column}' has {count} categories, but '{first}', with which it shares an embedding, {shared}; give them \
         as many, or each an embedding of its own"
    )
}

fn table_of(
    name: String,
    count: usize,
    dimension: usize,
    initializer: &Option<Initializer>,
) -> EmbeddingTable {
    let initializer = initializer.clone().unwrap_or_else(|| {
        TruncatedNormal {
            stddev: (dimension as f64).sqrt().recip(),
            ..TruncatedNormal::default()
        }
        .into()
    });
    EmbeddingTable {
        name,
        count,
        dimension,
        initializer,
    }
}

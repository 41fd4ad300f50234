//! What the formats with named columns share: which columns are read, and when a table is whole.

use std::collections::BTreeMap;
use std::path::Path;

use super::{DataError, Table, Targets, Task};
use crate::columns::{Dictionary, Encoder, Fault, MISSING, Value, single};
use crate::layers::Shape;
use crate::named::{hint_at, listed};

/// Which columns are read, by name, and what their values are for.
#[derive(Debug, Clone)]
pub(super) struct Spec<'a> {
    /// What goes into the model; `None` takes all that are nothing else.
    pub(super) features: Option<&'a [String]>,
    /// What is predicted; empty where the rows need not say it.
    pub(super) labels: &'a [String],
    pub(super) weight: Option<&'a str>,
    pub(super) task: Task,
    /// Names of the classes in index order; `None` takes those found, sorted.
    pub(super) classes: Option<&'a [String]>,
    /// Every feature is multiplied by this.
    pub(super) scale: f64,
    /// What makes feature columns of the features; `None` takes their numbers.
    pub(super) encoder: Option<&'a Encoder>,
    /// CSV: a field that is missing, beside one that is empty.
    pub(super) na_value: Option<&'a str>,
}

impl Spec<'_> {
    /// Whether a column is neither label nor weight.
    pub(super) fn is_feature(&self, name: &str) -> bool {
        !self.labels.iter().any(|label| label == name) && self.weight != Some(name)
    }
}

/// Where the columns stand.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) features: Vec<usize>,
    pub(super) labels: Vec<usize>,
    pub(super) weight: Option<usize>,
}

impl Places {
    /// Finds the columns among the `names` of the file at `path`.
    pub(super) fn find(path: &Path, names: &[String], spec: &Spec<'_>) -> Result<Self, DataError> {
        let find = |role, column: &str| {
            let place = names.iter().position(|name| name == column);
            place.ok_or_else(|| missing(path, role, column, names, spec))
        };
        let weight = spec.weight.map(|name| find("weight", name)).transpose()?;
        let all = |role, columns: &[String]| -> Result<Vec<_>, _> {
            columns.iter().map(|name| find(role, name)).collect()
        };
        let labels = all("label", spec.labels)?;
        let features = match spec.features {
            Some(features) => all("feature", features)?,
            None => (0..names.len())
                .filter(|&index| spec.is_feature(&names[index]))
                .collect(),
        };
        if features.is_empty() && spec.encoder.is_none() {
            return Err(DataError::format(
                path,
                "no column is left to learn from; add one beside label and weight",
            ));
        }
        Ok(Self {
            features,
            labels,
            weight,
        })
    }
}

/// The error of a column that is not among the `names` of a file.
pub(super) fn missing(
    path: &Path,
    role: &'static str,
    column: &str,
    names: &[String],
    spec: &Spec<'_>,
) -> DataError {
    let named = spec.features.into_iter().flatten().chain(spec.labels);
    let named: Vec<_> = named.map(String::as_str).chain(spec.weight).collect();
    let is_free = |name: &&String| !named.contains(&name.as_str());
    let mut hint = hint_at(column, names.iter().filter(is_free), names);
    if names.iter().any(|name| name.parse::<f64>().is_ok()) {
        hint += "; if the first line holds values, put one with names above it";
    }
    DataError::Column {
        path: path.to_owned(),
        role,
        column: column.to_owned(),
        hint,
    }
}

/// Refuses two columns of one name.
pub(super) fn each_once(names: &[String]) -> Result<(), String> {
    let mut known = BTreeMap::new();
    for (name, place) in names.iter().zip(1..) {
        if let Some(first) = known.insert(name, place) {
            return Err(format!(
                "columns {first} and {place} are both called '{name}'; rename one, or leave it out"
            ));
        }
    }
    Ok(())
}

/// Refuses a file whose columns are not those of the first.
pub(super) fn same_columns(
    path: &Path,
    names: &[String],
    first: (&Path, &[String]),
) -> Result<(), DataError> {
    let (first, expected) = first;
    let differs = names
        .iter()
        .zip(expected)
        .position(|(name, other)| name != other);
    let difference = match differs {
        Some(index) => format!(
            "column {} is '{}', but '{}' in {}",
            index + 1,
            names[index],
            expected[index],
            first.display()
        ),
        None if names.len() != expected.len() => format!(
            "{} columns, but {} has {}",
            names.len(),
            first.display(),
            expected.len()
        ),
        None => return Ok(()),
    };
    let problem = format!("{difference}; files that are read together have the same columns");
    Err(DataError::format(path, problem))
}

/// A table that grows row by row: of each row the features, the labels and the weight, in any order.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    spec: &'a Spec<'a>,
    encoder: Option<Encoder>,
    labels: Labels,
    table: Table,
}

impl<'a> Builder<'a> {
    pub(super) fn new(spec: &'a Spec<'a>) -> Self {
        let mut table = Table::empty(Shape::default(), Targets::Numbers(0), 0);
        table.weights = spec.weight.map(|_| Vec::new());
        Self {
            spec,
            encoder: spec.encoder.cloned(),
            labels: Labels::new(spec.classes, spec.task),
            table,
        }
    }

    /// Adds the values of one of the columns that are learned from, by its place among them.
    pub(super) fn feature(&mut self, place: usize, values: &[impl Value]) -> Result<(), String> {
        let features = &mut self.table.features;
        if let Some(encoder) = &mut self.encoder {
            return encoder.read(place, values, features);
        }
        let remedy = "mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
                      features in [data]";
        for value in values {
            if value.is_missing() {
                return Err(MISSING.to_owned());
            }
            features.push(single(value, remedy, |number| {
                (number * self.spec.scale) as f32
            })?);
        }
        Ok(())
    }

    /// Adds a label, or a number of one.
    pub(super) fn label(&mut self, value: &impl Value) -> Result<(), String> {
        let target = match self.spec.task {
            Task::Classification { .. } => {
                let class = value.text();
                let class = class.ok_or_else(|| {
                    format!("expected a class, found {}; mend the row", value.shown())
                })?;
                self.labels.index(&class)? as f32
            }
            Task::Regression if value.is_missing() => return Err(NO_LABEL.to_owned()),
            Task::Regression => {
                let remedy =
                    "mend the row, or for classes take a classifier or a loss of cross entropy";
                single(value, remedy, |number| number as f32)?
            }
        };
        self.table.targets.push(target);
        Ok(())
    }

    pub(super) fn weight(&mut self, value: &impl Value) -> Result<(), String> {
        let weight = single(value, "mend the row", |number| number as f32)?;
        if weight < 0.0 {
            return Err(format!("a weight of {weight} is below 0; mend the row"));
        }
        self.table.weights.get_or_insert_default().push(weight);
        Ok(())
    }

    pub(super) fn end_row(&mut self) -> Result<(), Fault> {
        self.table.rows += 1;
        match &mut self.encoder {
            Some(encoder) => encoder.end_row(&mut self.table.features),
            None => Ok(()),
        }
    }

    /// How many rows have ended.
    pub(super) fn rows(&self) -> usize {
        self.table.rows
    }

    /// The table, of the columns `names`. `path` is the first file.
    pub(super) fn finish(self, path: &Path, names: Vec<String>) -> Result<Table, DataError> {
        let mut table = self.table;
        if table.rows == 0 {
            return Err(DataError::Empty {
                path: path.to_owned(),
            });
        }
        if let (Some(column), Some(weights)) = (self.spec.weight, &table.weights)
            && weights.iter().all(|&weight| weight == 0.0)
        {
            let problem = format!(
                "every weight in column '{column}' is 0, so that no row counts; mend them, or leave weight out of \
                 [data]"
            );
            return Err(DataError::format(path, problem));
        }
        table.target_kind = match self.spec.task {
            Task::Classification { .. } if !table.targets.is_empty() => {
                Targets::Classes(self.labels.finish(&mut table.targets))
            }
            _ => Targets::Numbers(table.targets.len() / table.rows),
        };
        table.shape = Shape(vec![table.features.len() / table.rows]);
        table.names = names;
        if let Some(encoder) = self.encoder {
            let encoding = encoder.finish(&mut table.features)?;
            let columns = encoding.columns.iter().map(|column| column.name.clone());
            table.names = columns.collect();
            table.encoding = Some(encoding);
        }
        Ok(table)
    }
}

/// What is done about a row without a label.
const NO_LABEL: &str = "the label is empty; leave the row out";

/// What is done about a model with too few classes.
pub(super) const MORE_CLASSES: &str =
    "raise n_classes in [estimator], or take a loss of softmax_cross_entropy";

/// Class names and their indices.
#[derive(Debug)]
pub(super) struct Labels {
    found: Dictionary,
    fixed: Option<Vec<String>>,
    most: Option<usize>,
}

impl Labels {
    /// Those of `classes`, any other being an error, or as many as are found, or as `task` says.
    pub(super) fn new(classes: Option<&[String]>, task: Task) -> Self {
        Self {
            found: Dictionary::new(classes.unwrap_or_default()),
            fixed: classes.map(<[String]>::to_vec),
            most: match task {
                Task::Classification { classes } => classes,
                Task::Regression => None,
            },
        }
    }

    /// The class of a field: one of the known, or numbered as found.
    pub(super) fn index(&mut self, field: &[u8]) -> Result<usize, String> {
        let field = field.trim_ascii();
        if let Some(index) = self.found.get(field) {
            return Ok(index);
        }
        if field.is_empty() {
            return Err(NO_LABEL.to_owned());
        }
        let label = std::str::from_utf8(field)
            .map_err(|_| "the label is not UTF-8; write it as UTF-8".to_owned())?;
        if let Some(known) = &self.fixed {
            return Err(format!(
                "unknown label '{label}'; known are {}; mend it, or add it to classes in [data]",
                listed(known)
            ));
        }
        if let Some(most) = self.most.filter(|&most| most == self.found.len()) {
            let (names, _) = self.found.clone().sorted();
            return Err(format!(
                "'{label}' is class {} of {most}; before it came {}; mend the label that is wrong, which \
                 classes in [data] finds, or {MORE_CLASSES}",
                most + 1,
                listed(&names)
            ));
        }
        Ok(self.found.get_or_add(label))
    }

    /// The names in index order; where found, sorts them, as numbers where all are integers, and
    /// renumbers the targets.
    pub(super) fn finish(self, targets: &mut [f32]) -> Vec<String> {
        if let Some(names) = self.fixed {
            return names;
        }
        let (names, places) = self.found.sorted();
        for target in targets {
            *target = places[*target as usize] as f32;
        }
        names
    }
}

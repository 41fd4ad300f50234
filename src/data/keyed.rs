//! What the formats share whose rows bring the names of their columns along: JSON lines and TFRecord.

use std::collections::BTreeMap;
use std::path::Path;

use super::rows::{Builder, Places, Spec, missing};
use super::scalar::Scalar;
use super::{DataError, Place, Table, Task};

/// One row: of each column a value, or a list of them.
pub(super) type Row = BTreeMap<String, Vec<Scalar>>;

/// A table of such rows. The first decides what columns there are and how many values each has, unless
/// feature columns are made of them, which know that themselves: any row may lack any of those.
#[derive(Debug)]
pub(super) struct Keyed<'a> {
    spec: &'a Spec<'a>,
    builder: Builder<'a>,
    columns: Vec<Column>,
    /// Values of each label in the first row.
    labels: Vec<usize>,
    /// Names of the first row's.
    first: Vec<String>,
}

/// A column that is learned from.
#[derive(Debug)]
struct Column {
    name: String,
    /// Values in each row; `None` where they need not be equally many.
    width: Option<usize>,
    /// Whether a row has had it.
    is_found: bool,
}

impl<'a> Keyed<'a> {
    pub(super) fn new(spec: &'a Spec<'a>) -> Self {
        Self {
            spec,
            builder: Builder::new(spec),
            columns: Vec::new(),
            labels: Vec::new(),
            first: Vec::new(),
        }
    }

    /// Adds the row that stands at `place` of the file at `path`.
    pub(super) fn push(&mut self, path: &Path, place: Place, row: &Row) -> Result<(), DataError> {
        if self.first.is_empty() {
            self.first = row.keys().cloned().collect();
            self.columns = self.columns(path, row)?;
            self.labels = self.labels(path, place, row)?;
        }
        let field = |column: &str, problem: String| DataError::Field {
            path: path.to_owned(),
            place,
            column: column.to_owned(),
            problem,
        };
        let values = |column: &str, width: usize| match row.get(column) {
            Some(values) if values.len() == width => Ok(values),
            Some(values) => {
                let problem = format!(
                    "{} values, but the first row has {width}; mend the row",
                    values.len()
                );
                Err(field(column, problem))
            }
            None => Err(field(
                column,
                "missing, but the first row has it; mend the row".to_owned(),
            )),
        };
        for (place, column) in self.columns.iter_mut().enumerate() {
            let Column {
                name,
                width,
                is_found,
            } = column;
            let values = match *width {
                Some(width) => values(name, width)?,
                None => row.get(name).map_or(&[][..], |values| {
                    *is_found = true;
                    values
                }),
            };
            self.builder
                .feature(place, values)
                .map_err(|problem| field(name, problem))?;
        }
        for (label, &width) in self.spec.labels.iter().zip(&self.labels) {
            for value in values(label, width)? {
                self.builder
                    .label(value)
                    .map_err(|problem| field(label, problem))?;
            }
        }
        if let Some(weight) = self.spec.weight {
            for value in values(weight, 1)? {
                self.builder
                    .weight(value)
                    .map_err(|problem| field(weight, problem))?;
            }
        }
        if self.spec.features.is_none() {
            self.refuse_new(path, place, row)?;
        }
        self.builder
            .end_row()
            .map_err(|fault| field(&fault.source, fault.problem))
    }

    /// The columns that are learned from, by the first row.
    fn columns(&self, path: &Path, row: &Row) -> Result<Vec<Column>, DataError> {
        if let (Some(encoder), Some(names)) = (self.spec.encoder, self.spec.features) {
            let column = |name: &String| Column {
                name: name.clone(),
                width: None,
                // What was there in training need not be in any of these rows.
                is_found: encoder.is_fitted(),
            };
            return Ok(names.iter().map(column).collect());
        }
        let places = Places::find(path, &self.first, self.spec)?;
        let column = |&index: &usize| Column {
            name: self.first[index].clone(),
            width: Some(row[&self.first[index]].len()),
            is_found: true,
        };
        Ok(places.features.iter().map(column).collect())
    }

    /// How many values each label has in the first row; a class and a weight have one.
    fn labels(&self, path: &Path, place: Place, row: &Row) -> Result<Vec<usize>, DataError> {
        let width = |role, column: &str, is_one: bool| {
            let values = row.get(column).map(Vec::len);
            let problem = match values {
                Some(0) => "no value; leave the row out".to_owned(),
                Some(count @ 2..) if is_one => {
                    format!("{count} values, where one belongs; mend the row")
                }
                Some(count) => return Ok(count),
                None => return Err(missing(path, role, column, &self.first, self.spec)),
            };
            Err(DataError::Field {
                path: path.to_owned(),
                place,
                column: column.to_owned(),
                problem,
            })
        };
        if let Some(weight) = self.spec.weight {
            width("weight", weight, true)?;
        }
        let is_class = matches!(self.spec.task, Task::Classification { .. });
        let labels = self.spec.labels.iter();
        labels
            .map(|label| width("label", label, is_class))
            .collect()
    }

    /// Where all columns are learned from, none may appear later.
    fn refuse_new(&self, path: &Path, place: Place, row: &Row) -> Result<(), DataError> {
        let is_known = |name: &String| {
            !self.spec.is_feature(name) || self.columns.iter().any(|column| column.name == *name)
        };
        match row.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(DataError::Field {
                path: path.to_owned(),
                place,
                column: name.clone(),
                problem:
                    "the first row has no such column; choose those to learn from by features \
                          in [data]"
                        .to_owned(),
            }),
        }
    }

    /// The table. `path` is the first file.
    pub(super) fn finish(self, path: &Path) -> Result<Table, DataError> {
        let lacking = self.columns.iter().find(|column| !column.is_found);
        if let (Some(lacking), true) = (lacking, self.builder.rows() > 0) {
            return Err(missing(
                path,
                "feature",
                &lacking.name,
                &self.first,
                self.spec,
            ));
        }
        let names = self.columns.into_iter().map(|column| column.name);
        self.builder.finish(path, names.collect())
    }
}

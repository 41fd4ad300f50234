//! What the formats share whose rows bring the names of their columns along: JSON lines and TFRecord.

use std::collections::BTreeMap;
use std::path::Path;

use super::rows::{Builder, Places, Spec};
use super::scalar::Scalar;
use super::{DataError, Place, Table};

/// One row: of each column a value, or a list of them.
pub(super) type Row = BTreeMap<String, Vec<Scalar>>;

/// A table of such rows. The first decides what columns there are and how many values each has.
#[derive(Debug)]
pub(super) struct Keyed<'a> {
    spec: &'a Spec<'a>,
    builder: Builder<'a>,
    columns: Vec<Column>,
}

/// A column that is learned from.
#[derive(Debug)]
struct Column {
    name: String,
    /// Values in each row.
    width: usize,
}

impl<'a> Keyed<'a> {
    pub(super) fn new(spec: &'a Spec<'a>) -> Self {
        Self {
            spec,
            builder: Builder::new(spec),
            columns: Vec::new(),
        }
    }

    /// Adds the row that stands at `place` of the file at `path`.
    pub(super) fn push(&mut self, path: &Path, place: Place, row: &Row) -> Result<(), DataError> {
        if self.columns.is_empty() {
            let names: Vec<_> = row.keys().cloned().collect();
            let places = Places::find(path, &names, self.spec)?;
            let column = |&index: &usize| Column {
                name: names[index].clone(),
                width: row[&names[index]].len(),
            };
            self.columns = places.features.iter().map(column).collect();
        }
        let field = |column: &str, problem: String| DataError::Field {
            path: path.to_owned(),
            place,
            column: column.to_owned(),
            problem,
        };
        let values = |column: &str| {
            let values = row.get(column);
            values.ok_or_else(|| field(column, "missing; the first row has it".to_owned()))
        };
        for Column { name, width } in &self.columns {
            let values = values(name)?;
            if values.len() != *width {
                let problem = format!("{} values, but the first row has {width}", values.len());
                return Err(field(name, problem));
            }
            for value in values {
                self.builder
                    .feature(value)
                    .map_err(|problem| field(name, problem))?;
            }
        }
        let single = |column: &'a str| match &values(column)?[..] {
            [value] => Ok(value),
            values => Err(field(column, format!("{} values, not one", values.len()))),
        };
        if let Some(label) = self.spec.label {
            self.builder
                .label(single(label)?)
                .map_err(|problem| field(label, problem))?;
        }
        if let Some(weight) = self.spec.weight {
            self.builder
                .weight(single(weight)?)
                .map_err(|problem| field(weight, problem))?;
        }
        if self.spec.features.is_none() {
            self.refuse_new(path, place, row)?;
        }
        self.builder.end_row();
        Ok(())
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
        let names = self.columns.into_iter().map(|column| column.name);
        self.builder.finish(path, names.collect())
    }
}

//! What the formats of arrays share: rows of features in one file, their labels in another.

use std::path::Path;

use super::rows::MORE_CLASSES;
use super::{ArrayFormat, ArrayPair, DataError, Table, Targets, Task, idx, numpy};
use crate::layers::Shape;

/// Classes are numbered from 0 to below this.
const MOST_CLASSES: f32 = 65536.0;

/// The content of one file, row-major.
#[derive(Debug, PartialEq)]
pub(super) struct Array {
    /// Rows first.
    pub(super) dimensions: Vec<usize>,
    pub(super) elements: Vec<f32>,
}

impl Array {
    /// The shape of one row, or none where there are no dimensions.
    fn row(&self) -> Option<(usize, Shape)> {
        let (&rows, row) = self.dimensions.split_first()?;
        let row = if row.is_empty() { &[1] } else { row };
        Some((rows, Shape(row.to_vec())))
    }
}

/// Reads features and labels. Labels of a classification are indices of classes, which have the names
/// given, or their numbers as names.
pub(super) fn read(
    format: ArrayFormat,
    pair: &ArrayPair,
    task: Task,
    classes: Option<&[String]>,
    scale: f64,
) -> Result<Table, DataError> {
    let mut table = features(format, &pair.features, scale)?;
    let path = &pair.labels;
    let labels = match format {
        ArrayFormat::Idx => idx::labels(path)?,
        ArrayFormat::Numpy => numpy::read(path, 1.0)?,
    };
    let (rows, shape) = labels.row().ok_or_else(|| {
        DataError::format(
            path,
            "a single number, but labels have 1 dimension (rows); name another file",
        )
    })?;
    if rows != table.rows {
        return Err(DataError::Pair {
            features: pair.features.clone(),
            labels: path.clone(),
            feature_rows: table.rows,
            label_rows: rows,
        });
    }
    table.target_kind = match task {
        Task::Regression => Targets::Numbers(shape.elements()),
        Task::Classification { .. } if shape.elements() != 1 => {
            let problem = format!(
                "{} numbers for each row, but a class is one number, its index; write that, or take a loss of \
                 numbers",
                shape.elements()
            );
            return Err(DataError::format(path, problem));
        }
        Task::Classification { classes: most } => {
            Targets::Classes(names(path, &labels.elements, classes, most)?)
        }
    };
    table.targets = labels.elements;
    Ok(table)
}

/// Reads features alone.
pub(super) fn features(format: ArrayFormat, path: &Path, scale: f64) -> Result<Table, DataError> {
    let array = match format {
        ArrayFormat::Idx => idx::images(path, scale)?,
        ArrayFormat::Numpy => numpy::read(path, scale)?,
    };
    let (rows, shape) = array.row().ok_or_else(|| {
        DataError::format(
            path,
            "a single number, but features have at least 1 dimension (rows); name another file",
        )
    })?;
    if array.elements.is_empty() {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(Table {
        features: array.elements,
        ..Table::empty(shape, Targets::Numbers(0), rows)
    })
}

/// The names of the classes that `labels` are indices of: of `classes`, or of `most` where that is said.
fn names(
    path: &Path,
    labels: &[f32],
    classes: Option<&[String]>,
    most: Option<usize>,
) -> Result<Vec<String>, DataError> {
    let is_index = |label: f32| (0.0..MOST_CLASSES).contains(&label) && label.fract() == 0.0;
    let count = classes.map(<[String]>::len).or(most);
    let count = count.map_or(MOST_CLASSES, |count| count as f32);
    if let Some(row) = (labels.iter()).position(|&label| !is_index(label) || label >= count) {
        let label = labels[row];
        let problem = match is_index(label) {
            true => format!(
                "row {}: unknown label {label}; known are 0 to {}; mend it, or {}",
                row + 1,
                count - 1.0,
                match classes {
                    Some(_) => "add it to classes in [data]",
                    None => MORE_CLASSES,
                }
            ),
            false => format!(
                "row {}: {label} is no class; mend it: classes are whole numbers from 0 to below {MOST_CLASSES}",
                row + 1
            ),
        };
        return Err(DataError::format(path, problem));
    }
    Ok(match classes {
        Some(names) => names.to_vec(),
        None => {
            let largest = labels.iter().copied().fold(0.0, f32::max) as usize;
            (0..=largest).map(|class| class.to_string()).collect()
        }
    })
}

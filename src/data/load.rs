//! From what the run file says to a table.

use std::path::Path;

use super::{DataConfig, DataError, Description, Source, Split, Table, Targets, Task, csv, idx};
use crate::layers::Shape;

/// Reads one split.
///
/// The test split is read with the columns and classes of `trained`, what was trained on: a label
/// that is not among those is an error.
///
/// # Errors
/// For the first thing that is wrong, with its file and line.
pub fn load(
    config: &DataConfig,
    task: Task,
    split: Split,
    trained: Option<&Description>,
) -> Result<Table, DataError> {
    let (table, path) = match &config.source {
        Source::Csv(source) => {
            let path = match split {
                Split::Train => &source.train,
                Split::Test => source
                    .test
                    .as_ref()
                    .ok_or(DataError::NoTest { keys: "test" })?,
            };
            let columns = csv::Columns {
                features: trained.map(|trained| &trained.columns),
                label: Some(&source.label),
                weight: source.weight.as_deref(),
            };
            let classes = known_classes(source.classes.as_deref(), trained);
            let table = csv::read(path, &columns, task, classes, config.scale)?;
            (table, path)
        }
        Source::Idx(source) => {
            let pair = match split {
                Split::Train => &source.train,
                Split::Test => source.test.as_ref().ok_or(DataError::NoTest {
                    keys: "test_images and test_labels",
                })?,
            };
            let classes = known_classes(source.classes.as_deref(), trained);
            (idx::read(pair, task, classes, config.scale)?, &pair.images)
        }
    };
    reshape(table, config.shape.as_ref(), path)
}

/// Reads the features of a CSV file that need not have a label, to predict from.
///
/// The columns are those of `trained`, by name and in its order; others are passed over. Where it
/// has no names (images), all columns are taken in their order.
///
/// # Errors
/// For a missing column, or the first thing that is wrong, with its file and line.
pub fn load_features(
    config: &DataConfig,
    path: &Path,
    trained: &Description,
) -> Result<Table, DataError> {
    let columns = csv::Columns {
        features: (!trained.columns.is_empty()).then_some(&trained.columns),
        label: None,
        weight: None,
    };
    let table = csv::read(path, &columns, Task::Regression, None, config.scale)?;
    reshape(table, Some(&trained.shape), path)
}

fn known_classes<'a>(
    configured: Option<&'a [String]>,
    trained: Option<&'a Description>,
) -> Option<&'a [String]> {
    configured.or_else(|| match &trained?.targets {
        Targets::Classes(names) => Some(names),
        Targets::Numbers(_) => None,
    })
}

fn reshape(mut table: Table, shape: Option<&Shape>, path: &Path) -> Result<Table, DataError> {
    if let Some(shape) = shape {
        let found = table.shape.elements();
        if shape.elements() != found {
            return Err(DataError::Shape {
                path: path.to_owned(),
                found,
                shape: shape.clone(),
            });
        }
        table.shape = shape.clone();
    }
    Ok(table)
}

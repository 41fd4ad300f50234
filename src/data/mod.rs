//! Data: sources read into tables, and the pipeline that turns a table into micro-batches.

mod config;
mod csv;
mod error;
mod idx;
mod pipeline;
mod table;

pub use config::{CsvSource, DataConfig, IdxPair, IdxSource, Source, Split, Task};
pub use error::DataError;
pub use pipeline::{Prefetch, Rows, Sampler, Share};
pub use table::{Table, Targets};

use std::path::Path;

/// Reads one split of a data set; `train` is the training split, whose classes a test split has.
///
/// # Errors
/// With the file, the line and the remedy.
pub fn load(
    config: &DataConfig,
    task: Task,
    split: Split,
    train: Option<&Table>,
) -> Result<Table, DataError> {
    let missing = || DataError::Read {
        path: "data.test".into(),
        problem: "the run file names no test data".to_owned(),
    };
    let classes = train.and_then(|train| match &train.target_kind {
        Targets::Classes(classes) => Some(classes.as_slice()),
        Targets::Numbers(_) => None,
    });
    let (mut table, path): (Table, &Path) = match &config.source {
        Source::Csv(source) => {
            let path = match split {
                Split::Train => &source.train,
                Split::Test => source.test.as_ref().ok_or_else(missing)?,
            };
            (csv::read(source, path, task, split, train)?, path)
        }
        Source::Idx(source) => {
            let pair = match split {
                Split::Train => &source.train,
                Split::Test => source.test.as_ref().ok_or_else(missing)?,
            };
            (
                idx::read(pair, classes.or(source.classes.as_deref()))?,
                &pair.images,
            )
        }
    };
    prepare(&mut table, config, path)?;
    Ok(table)
}

/// Reads the features of a CSV file to predict from: the columns that `train` has, by name and in
/// its order, whatever else is there.
///
/// # Errors
/// With the file, the line and the remedy.
pub fn load_features(config: &DataConfig, path: &Path, train: &Table) -> Result<Table, DataError> {
    let mut table = csv::read_features(path, &train.names)?;
    let config = DataConfig {
        shape: Some(train.shape.clone()),
        ..config.clone()
    };
    prepare(&mut table, &config, path)?;
    Ok(table)
}

/// Gives rows the shape and the scale of the configuration.
fn prepare(table: &mut Table, config: &DataConfig, path: &Path) -> Result<(), DataError> {
    if let Some(shape) = &config.shape {
        let (found, wanted) = (table.shape.elements(), shape.elements());
        if found != wanted {
            let (path, shape) = (path.to_owned(), shape.clone());
            return Err(DataError::Shape {
                path,
                found,
                shape,
                wanted,
            });
        }
        table.shape = shape.clone();
    }
    let scale = config.scale as f32;
    table
        .features
        .iter_mut()
        .for_each(|feature| *feature *= scale);
    Ok(())
}

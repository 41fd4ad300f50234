//! From what the run file says to a table.

use std::path::{Path, PathBuf};

use super::rows::Spec;
use super::{
    ArrayFormat, ColumnFormat, DataConfig, DataError, Description, Format, Source, Split, Table,
    Targets, Task, arrays, csv, files, images, jsonl, numpy, parquet, tfrecord, vocabulary,
};
use crate::columns::{Encoder, Selection};
use crate::layers::Shape;

/// Reads one split.
///
/// The test split is read with the columns and classes of `trained`, what was trained on: a label
/// that is not among those is an error. Where `columns` are given, a row is what they make of it: they
/// are fitted to this split, unless `trained` says what they were fitted to.
///
/// # Errors
/// For the first thing that is wrong, with its file and line.
pub fn load(
    config: &DataConfig,
    task: Task,
    columns: Option<Selection<'_>>,
    split: Split,
    trained: Option<&Description>,
) -> Result<Table, DataError> {
    let (table, path) = match &config.source {
        Source::Columns(source) => {
            let paths = match split {
                Split::Train => &source.train,
                Split::Test if source.test.is_empty() => {
                    return Err(DataError::NoTest { keys: "test" });
                }
                Split::Test => &source.test,
            };
            let encoder = match (trained, columns) {
                (Some(trained), _) => trained.encoding.as_ref().map(Encoder::new),
                (None, Some(selection)) => {
                    let columns = &vocabulary::resolve(&selection.needed())?;
                    let used = selection.used;
                    Some(Encoder::fit(Selection { columns, used })?)
                }
                (None, None) => None,
            };
            let sources = encoder.as_ref().map(Encoder::sources);
            let spec = Spec {
                features: sources
                    .as_ref()
                    .or(trained.map(|trained| &trained.columns))
                    .or(source.features.as_ref())
                    .map(Vec::as_slice),
                labels: &source.labels,
                weight: source.weight.as_deref(),
                task,
                classes: known_classes(source.classes.as_deref(), trained),
                scale: config.scale,
                encoder: encoder.as_ref(),
                na_value: source.na_value.as_deref(),
            };
            named(source.format, paths, &spec)?
        }
        Source::Arrays(source) => {
            let keys = match source.format {
                ArrayFormat::Idx => "test_images and test_labels",
                ArrayFormat::Numpy => "test and test_labels",
            };
            let pair = match split {
                Split::Train => &source.train,
                Split::Test => source.test.as_ref().ok_or(DataError::NoTest { keys })?,
            };
            let classes = known_classes(source.classes.as_deref(), trained);
            let table = arrays::read(source.format, pair, task, classes, config.scale)?;
            (table, pair.features.clone())
        }
        Source::Images(source) => {
            let folder = match (split, &source.test) {
                (Split::Train, _) => &source.train,
                (Split::Test, Some(test)) => test,
                (Split::Test, None) => return Err(DataError::NoTest { keys: "test" }),
            };
            let spec = images::Spec {
                shape: size(config.shape.as_ref(), folder)?,
                scale: config.scale,
                skip_damaged: source.skip_damaged,
            };
            let classes = known_classes(source.classes.as_deref(), trained);
            (images::read(folder, task, classes, spec)?, folder.clone())
        }
        Source::Program => return Err(DataError::Program),
    };
    let table = match split {
        Split::Train => config.part.of(table, &path)?,
        Split::Test => table,
    };
    finish(table, config.shape.as_ref(), config, &path)
}

/// Reads the features of files that need not have a label, to predict from: a path, or a pattern.
///
/// The format is told by the path's ending, and is the run's own where that is none that is known.
/// Columns are those of `trained`, by name and in its order; others are passed over. Where it
/// has no names (images), all columns are taken in their order.
///
/// # Errors
/// For a missing column, or the first thing that is wrong, with its file and line.
pub fn load_features(
    config: &DataConfig,
    path: &Path,
    trained: &Description,
) -> Result<Table, DataError> {
    let encoder = trained.encoding.as_ref().map(Encoder::new);
    let sources = encoder.as_ref().map(Encoder::sources);
    let spec = Spec {
        features: match (&sources, &trained.columns[..]) {
            (Some(sources), _) => Some(sources),
            (None, []) => None,
            (None, names) => Some(names),
        },
        labels: &[],
        weight: None,
        task: Task::Regression,
        classes: None,
        scale: config.scale,
        encoder: encoder.as_ref(),
        na_value: match &config.source {
            Source::Columns(source) => source.na_value.as_deref(),
            Source::Arrays(_) | Source::Images(_) | Source::Program => None,
        },
    };
    let columns = |format| named(format, &[path.to_owned()], &spec);
    let arrays = |format| {
        Ok::<_, DataError>((
            arrays::features(format, path, config.scale)?,
            path.to_owned(),
        ))
    };
    let format = format_of(path).unwrap_or_else(|| config.source.format());
    let (table, path) = match format {
        Format::Csv => columns(ColumnFormat::Csv)?,
        Format::JsonLines => columns(ColumnFormat::JsonLines)?,
        Format::Parquet => columns(ColumnFormat::Parquet)?,
        // A row that is left out would move the predictions of all behind it.
        Format::TfRecord => columns(ColumnFormat::TfRecord {
            skip_damaged: false,
        })?,
        Format::Program => {
            let problem = "its ending says no format; predict from csv, jsonl, parquet, tfrecord, npy or npz, \
                           or from a folder of images";
            return Err(DataError::format(path, problem));
        }
        Format::Idx | Format::Numpy | Format::Images if encoder.is_some() => {
            let problem = format!(
                "{format} has no named columns, as the run's [columns] need; give csv, jsonl, parquet \
                 or tfrecord"
            );
            return Err(DataError::format(path, problem));
        }
        Format::Idx => arrays(ArrayFormat::Idx)?,
        Format::Numpy => arrays(ArrayFormat::Numpy)?,
        Format::Images => {
            let spec = images::Spec {
                shape: size(Some(&trained.shape), path)?,
                scale: config.scale,
                skip_damaged: false,
            };
            (images::features(path, spec)?, path.to_owned())
        }
    };
    finish(table, Some(&trained.shape), config, &path)
}

/// The shape that images at `path` get.
fn size<'a>(shape: Option<&'a Shape>, path: &Path) -> Result<&'a Shape, DataError> {
    match shape {
        Some(shape) if matches!(shape.0[..], [_, _, 1 | 3 | 4]) => Ok(shape),
        _ => Err(DataError::NoSize {
            path: path.to_owned(),
        }),
    }
}

/// The format that a path's ending, that of gzip apart, is known for.
fn format_of(path: &Path) -> Option<Format> {
    if path.is_dir() || images::ends_as_image(path) {
        return Some(Format::Images);
    }
    let is_gzip = path.extension().is_some_and(|end| end == "gz");
    let plain = if is_gzip {
        Path::new(path.file_stem()?)
    } else {
        path
    };
    match plain.extension().and_then(|end| end.to_str()) {
        Some("csv") => Some(Format::Csv),
        Some("jsonl" | "ndjson") => Some(Format::JsonLines),
        Some("parquet") => Some(Format::Parquet),
        Some("tfrecord" | "tfrecords") => Some(Format::TfRecord),
        Some("npy" | "npz") => Some(Format::Numpy),
        _ if numpy::archive_of(path).is_some() => Some(Format::Numpy),
        _ => None,
    }
}

/// Reads files of named columns; with the first of them.
fn named(
    format: ColumnFormat,
    patterns: &[PathBuf],
    spec: &Spec<'_>,
) -> Result<(Table, PathBuf), DataError> {
    let mut paths = files::find(patterns)?;
    let cause = |error| files::cause(error, files::open);
    let table = match format {
        ColumnFormat::Csv => csv::read(&paths, spec).map_err(cause)?,
        ColumnFormat::JsonLines => jsonl::read(&paths, spec).map_err(cause)?,
        ColumnFormat::Parquet => parquet::read(&paths, spec)?,
        ColumnFormat::TfRecord { skip_damaged } => tfrecord::read(&paths, spec, skip_damaged)?,
    };
    Ok((table, paths.swap_remove(0)))
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

/// A table of rows of `shape`, normalised.
fn finish(
    mut table: Table,
    shape: Option<&Shape>,
    config: &DataConfig,
    path: &Path,
) -> Result<Table, DataError> {
    // A row without columns has nothing to shape or to normalise.
    if matches!(&table.encoding, Some(encoding) if encoding.columns.is_empty()) {
        return Ok(table);
    }
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
    if let Some(normalize) = &config.normalize {
        normalize.apply(&mut table, path)?;
    }
    Ok(table)
}

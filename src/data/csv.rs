//! Comma-separated files with a header row.

use std::path::Path;

use super::{CsvSource, DataError, Split, Table, Targets, Task};
use crate::layers::Shape;

/// Columns of a file by what they are for.
struct Columns {
    features: Vec<usize>,
    label: usize,
    weight: Option<usize>,
}

/// Reads one split. Classes are those of `train` if given, else of the configuration, else those
/// found in the file: sorted as numbers where all are whole numbers, else as text.
pub(super) fn read(
    source: &CsvSource,
    path: &Path,
    task: Task,
    split: Split,
    train: Option<&Table>,
) -> Result<Table, DataError> {
    let failed = |error: csv::Error| failed(path, &error);
    let mut reader = csv::ReaderBuilder::new().from_path(path).map_err(failed)?;
    let header = reader.byte_headers().map_err(failed)?.clone();
    let names: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_owned())
        .collect();
    let columns = columns(source, path, &names)?;
    let known = match (train.map(|train| &train.target_kind), &source.classes) {
        (Some(Targets::Classes(classes)), _) | (None, Some(classes)) => Some(classes.clone()),
        _ => None,
    };
    let (mut features, mut labels, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    let mut weights = columns.weight.map(|_| Vec::new());
    let mut record = csv::ByteRecord::new();
    let mut lines = Vec::new();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(0, csv::Position::line);
        let number = |column: usize| number(path, line, &names[column], &record[column]);
        for &column in &columns.features {
            features.push(number(column)?);
        }
        if let (Some(column), Some(weights)) = (columns.weight, &mut weights) {
            let weight = number(column)?;
            if weight < 0.0 {
                let problem = format!("weight {weight} is negative; weights are at least 0");
                return Err(DataError::row(path, line, problem));
            }
            weights.push(weight);
        }
        match task {
            Task::Regression => numbers.push(number(columns.label)?),
            Task::Classification => {
                labels.push(
                    String::from_utf8_lossy(&record[columns.label])
                        .trim()
                        .to_owned(),
                );
                lines.push(line);
            }
        }
    }
    let rows = labels.len().max(numbers.len());
    if rows == 0 {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    let (target_kind, targets) = match task {
        Task::Regression => (Targets::Numbers(1), numbers),
        Task::Classification => {
            let classes = known.unwrap_or_else(|| classes_in(&labels));
            let targets = indices(path, split, &labels, &lines, &classes)?;
            (Targets::Classes(classes), targets)
        }
    };
    Ok(Table {
        features,
        targets,
        weights,
        names: columns
            .features
            .iter()
            .map(|&column| names[column].clone())
            .collect(),
        ..Table::empty(Shape(vec![columns.features.len()]), target_kind, rows)
    })
}

/// Reads the columns called `wanted`, in that order; all columns if none are named.
pub(super) fn read_features(path: &Path, wanted: &[String]) -> Result<Table, DataError> {
    let failed = |error: csv::Error| failed(path, &error);
    let mut reader = csv::ReaderBuilder::new().from_path(path).map_err(failed)?;
    let header = reader.byte_headers().map_err(failed)?.clone();
    let names: Vec<String> = header
        .iter()
        .map(|name| String::from_utf8_lossy(name).trim().to_owned())
        .collect();
    let wanted = if wanted.is_empty() { &names } else { wanted };
    let column = |wanted: &String| find(path, &names, wanted);
    let columns = wanted.iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let (mut features, mut rows) = (Vec::new(), 0);
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(failed)? {
        let line = record.position().map_or(0, csv::Position::line);
        for &column in &columns {
            features.push(number(path, line, &names[column], &record[column])?);
        }
        rows += 1;
    }
    if rows == 0 {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    let shape = Shape(vec![columns.len()]);
    Ok(Table {
        features,
        names: wanted.to_vec(),
        ..Table::empty(shape, Targets::Numbers(0), rows)
    })
}

/// Place of a column.
fn find(path: &Path, names: &[String], wanted: &str) -> Result<usize, DataError> {
    names
        .iter()
        .position(|name| name == wanted)
        .ok_or_else(|| DataError::NoColumn {
            path: path.to_owned(),
            column: wanted.to_owned(),
            found: names.join(", "),
        })
}

fn columns(source: &CsvSource, path: &Path, names: &[String]) -> Result<Columns, DataError> {
    let find = |wanted: &str| find(path, names, wanted);
    let label = find(&source.label)?;
    let weight = source.weight.as_deref().map(find).transpose()?;
    let features = (0..names.len())
        .filter(|&column| column != label && Some(column) != weight)
        .collect();
    Ok(Columns {
        features,
        label,
        weight,
    })
}

fn number(path: &Path, line: u64, name: &str, field: &[u8]) -> Result<f32, DataError> {
    let text = field.trim_ascii();
    let parsed = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok());
    let problem = match parsed.map(|number| number as f32) {
        Some(number) if number.is_finite() => return Ok(number),
        Some(number) => format!("column '{name}' is {number}; numbers must be finite"),
        None => {
            let text = String::from_utf8_lossy(text);
            format!("column '{name}' is '{text}', which is not a number")
        }
    };
    Err(DataError::row(path, line, problem))
}

/// The different labels, in order.
fn classes_in(labels: &[String]) -> Vec<String> {
    let unique: std::collections::BTreeSet<&String> = labels.iter().collect();
    let mut classes: Vec<String> = unique.into_iter().cloned().collect();
    if classes.iter().all(|class| class.parse::<i64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<i64>().unwrap_or_default());
    }
    classes
}

fn indices(
    path: &Path,
    split: Split,
    labels: &[String],
    lines: &[u64],
    classes: &[String],
) -> Result<Vec<f32>, DataError> {
    let known: std::collections::BTreeMap<&str, usize> = classes
        .iter()
        .enumerate()
        .map(|(index, class)| (class.as_str(), index))
        .collect();
    let index = |(label, &line): (&String, &u64)| match known.get(label.as_str()) {
        Some(&index) => Ok(index as f32),
        None => {
            let origin = match split {
                Split::Train => "the run file lists",
                Split::Test => "the training data has",
            };
            let problem = format!("unknown label '{label}'; {origin} {}", classes.join(", "));
            Err(DataError::row(path, line, problem))
        }
    };
    labels.iter().zip(lines).map(index).collect()
}

fn failed(path: &Path, error: &csv::Error) -> DataError {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            DataError::row(
                path,
                line,
                format!("{len} fields, but the header has {expected_len}"),
            )
        }
        _ => DataError::Read {
            path: path.to_owned(),
            problem: error.to_string(),
        },
    }
}

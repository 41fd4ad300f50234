//! Comma-separated text with a header row.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::{DataError, Table, Targets, Task};
use crate::layers::Shape;
use crate::named::{hint_at, listed};

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

/// Which columns are read, by name.
pub(super) struct Columns<'a> {
    /// What goes into the model; `None` takes all that are nothing else.
    pub(super) features: Option<&'a Vec<String>>,
    pub(super) label: Option<&'a str>,
    pub(super) weight: Option<&'a str>,
}

/// Reads a file. Labels of a classification have the names given, or those found, sorted: as
/// numbers where all are integers.
pub(super) fn read(
    path: &Path,
    columns: &Columns<'_>,
    task: Task,
    classes: Option<&[String]>,
    scale: f64,
) -> Result<Table, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut reader = ReaderBuilder::new()
        .buffer_capacity(BUFFER)
        .from_reader(file);
    let header = header(path, &mut reader)?;
    let places = Places::find(path, &header, columns)?;
    let mut labels = match classes {
        Some(names) => Labels::known(names),
        None => Labels::default(),
    };
    let mut table = Table::empty(
        Shape(vec![places.features.len()]),
        Targets::Numbers(usize::from(places.label.is_some())),
        0,
    );
    table.weights = places.weight.map(|_| Vec::new());
    let mut record = ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| broken(path, error))?
    {
        let fail = |index: usize, problem: String| DataError::Field {
            path: path.to_owned(),
            line: line(path, record.position()),
            column: header[index].clone(),
            problem,
        };
        for &index in &places.features {
            let value = number(&record[index], scale).map_err(|problem| fail(index, problem))?;
            table.features.push(value);
        }
        if let Some(index) = places.label {
            let field = &record[index];
            let target = match task {
                Task::Classification => labels.index(field).map(|index| index as f32),
                Task::Regression => number(field, 1.0),
            };
            table
                .targets
                .push(target.map_err(|problem| fail(index, problem))?);
        }
        if let (Some(index), Some(weights)) = (places.weight, &mut table.weights) {
            let weight = number(&record[index], 1.0).map_err(|problem| fail(index, problem))?;
            if weight < 0.0 {
                return Err(fail(index, format!("a weight of {weight} is below 0")));
            }
            weights.push(weight);
        }
        table.rows += 1;
    }
    if table.rows == 0 {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    if let (Some(index), Some(weights)) = (places.weight, &table.weights)
        && weights.iter().all(|&weight| weight == 0.0)
    {
        return Err(DataError::Format {
            path: path.to_owned(),
            problem: format!(
                "every weight in column '{}' is 0: no row counts",
                header[index]
            ),
        });
    }
    if places.label.is_some() && task == Task::Classification {
        table.target_kind = Targets::Classes(labels.finish(&mut table.targets));
    }
    table.names = places
        .features
        .iter()
        .map(|&index| header[index].clone())
        .collect();
    Ok(table)
}

/// Names of the columns, each once.
fn header(path: &Path, reader: &mut csv::Reader<File>) -> Result<Vec<String>, DataError> {
    let record = reader.byte_headers().map_err(|error| broken(path, error))?;
    let names: Vec<_> = record
        .iter()
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned())
        .collect();
    if names.is_empty() {
        return Err(DataError::Format {
            path: path.to_owned(),
            problem: "the file is empty; its first line names the columns".to_owned(),
        });
    }
    let mut known = BTreeSet::new();
    let twice = (0..names.len()).find(|&index| !known.insert(&names[index]));
    match twice {
        Some(index) => Err(DataError::Row {
            path: path.to_owned(),
            line: 1,
            problem: format!("two columns are called '{}'", names[index]),
        }),
        None => Ok(names),
    }
}

/// Where the columns stand.
struct Places {
    features: Vec<usize>,
    label: Option<usize>,
    weight: Option<usize>,
}

impl Places {
    fn find(path: &Path, header: &[String], columns: &Columns<'_>) -> Result<Self, DataError> {
        let named = columns.features.into_iter().flatten().map(String::as_str);
        let named: Vec<_> = named.chain(columns.label).chain(columns.weight).collect();
        let is_free = |name: &&String| !named.contains(&name.as_str());
        let find = |role: &'static str, column: &str| {
            let place = header.iter().position(|name| name == column);
            place.ok_or_else(|| {
                let mut hint = hint_at(column, header.iter().filter(is_free), header);
                if header.iter().any(|name| name.parse::<f64>().is_ok()) {
                    hint += "; if the first line holds values, put one with names above it";
                }
                DataError::Column {
                    path: path.to_owned(),
                    role,
                    column: column.to_owned(),
                    hint,
                }
            })
        };
        let label = columns.label.map(|name| find("label", name)).transpose()?;
        let weight = columns
            .weight
            .map(|name| find("weight", name))
            .transpose()?;
        let features: Vec<_> = match columns.features {
            Some(names) => names
                .iter()
                .map(|name| find("feature", name))
                .collect::<Result<_, _>>()?,
            None => (0..header.len())
                .filter(|&index| Some(index) != label && Some(index) != weight)
                .collect(),
        };
        if features.is_empty() {
            return Err(DataError::Format {
                path: path.to_owned(),
                problem: "no column is left to learn from".to_owned(),
            });
        }
        Ok(Self {
            features,
            label,
            weight,
        })
    }
}

/// Class names and their indices.
#[derive(Default)]
struct Labels {
    indices: BTreeMap<Vec<u8>, usize>,
    fixed: Option<Vec<String>>,
}

impl Labels {
    fn known(names: &[String]) -> Self {
        let index = |(index, name): (usize, &String)| (name.clone().into_bytes(), index);
        Self {
            indices: names.iter().enumerate().map(index).collect(),
            fixed: Some(names.to_vec()),
        }
    }

    /// The class of a field: one of the known, or numbered as found.
    fn index(&mut self, field: &[u8]) -> Result<usize, String> {
        let field = field.trim_ascii();
        if let Some(&index) = self.indices.get(field) {
            return Ok(index);
        }
        if field.is_empty() {
            return Err("the label is empty".to_owned());
        }
        let label = std::str::from_utf8(field).map_err(|_| "the label is not UTF-8".to_owned())?;
        match &self.fixed {
            None => {
                let index = self.indices.len();
                self.indices.insert(field.to_vec(), index);
                Ok(index)
            }
            Some(known) => Err(format!(
                "unknown label '{label}'; known are {}",
                listed(known)
            )),
        }
    }

    /// The names in index order; where found, sorts them and renumbers the targets.
    fn finish(self, targets: &mut [f32]) -> Vec<String> {
        if let Some(names) = self.fixed {
            return names;
        }
        let mut found: Vec<(String, usize)> = self
            .indices
            .into_iter()
            .map(|(name, index)| (String::from_utf8_lossy(&name).into_owned(), index))
            .collect();
        let integers: Option<Vec<i64>> = found.iter().map(|(name, _)| name.parse().ok()).collect();
        if integers.is_some() {
            found.sort_by_key(|(name, _)| name.parse::<i64>().unwrap_or_default());
        }
        let mut sorted = vec![0.0; found.len()];
        for (place, &(_, index)) in found.iter().enumerate() {
            sorted[index] = place as f32;
        }
        for target in targets {
            *target = sorted[*target as usize];
        }
        found.into_iter().map(|(name, _)| name).collect()
    }
}

/// A field as a number, multiplied by `scale` in `f64` and rounded once more to `f32`.
fn number(field: &[u8], scale: f64) -> Result<f32, String> {
    let field = field.trim_ascii();
    let shown = || String::from_utf8_lossy(field).into_owned();
    let value = match small_integer(field) {
        Some(integer) => integer,
        None => std::str::from_utf8(field)
            .ok()
            .and_then(|text| text.parse::<f64>().ok())
            .ok_or_else(|| format!("expected a number, found '{}'", shown()))?,
    };
    let scaled = (value * scale) as f32;
    if scaled.is_finite() {
        return Ok(scaled);
    }
    Err(match value {
        _ if value.is_nan() => format!("'{}' is not a number", shown()),
        _ if value.is_infinite() => format!("'{}' is infinite", shown()),
        _ => format!("{} is too large for a 32-bit number", shown()),
    })
}

/// The value of up to 15 digits, which an `f64` holds exactly: most fields of images.
fn small_integer(field: &[u8]) -> Option<f64> {
    if field.is_empty() || field.len() > 15 {
        return None;
    }
    let digits = field.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value * 10 + u64::from(digit))
    });
    digits.map(|digits| digits as f64)
}

/// The line a record starts on. The reader's own count is behind where blank lines or `\r\n` come
/// before the record, so the file is read again: only errors need it.
fn line(path: &Path, position: Option<&csv::Position>) -> u64 {
    let text = std::fs::read(path).unwrap_or_default();
    let start = position.map_or(0, csv::Position::byte) as usize;
    let (before, rest) = text.split_at(start.min(text.len()));
    let blank = rest
        .iter()
        .take_while(|&&byte| byte == b'\n' || byte == b'\r')
        .count();
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    (newlines(before) + newlines(&rest[..blank]) + 1) as u64
}

fn broken(path: &Path, error: csv::Error) -> DataError {
    let path = path.to_owned();
    match error.into_kind() {
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => DataError::Row {
            line: line(&path, pos.as_ref()),
            path,
            problem: format!("{len} fields, but the header has {expected_len}"),
        },
        ErrorKind::Io(source) => DataError::Read { path, source },
        other => DataError::Format {
            path,
            problem: format!("{other:?}"),
        },
    }
}

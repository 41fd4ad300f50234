//! Comma-separated text with a header row.

use std::borrow::Cow;
use std::io::Read;
use std::mem::swap;
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::quotes::{self, Quotes};
use super::rows::{Builder, Places, Spec, each_once, same_columns};
use super::{DataError, Place, Table, files, scalar};
use crate::columns::Value;

/// Reads files with one header, plain or gzip.
pub(super) fn read(paths: &[PathBuf], spec: &Spec<'_>) -> Result<Table, DataError> {
    let mut builder = Builder::new(spec);
    let mut columns: Vec<String> = Vec::new();
    for path in paths {
        let first = (path != &paths[0]).then_some((&*paths[0], &columns[..]));
        // Whatever else is wrong, it may be that a field has swallowed what follows.
        columns = read_file(path, spec, first, &mut builder)
            .map_err(|error| unclosed(path).unwrap_or(error))?;
    }
    let places = Places::find(&paths[0], &columns, spec)?;
    let names = places.features.iter().map(|&index| columns[index].clone());
    builder.finish(&paths[0], names.collect())
}

/// Adds the rows of a file, whose columns are those of the first. Returns their names.
fn read_file(
    path: &Path,
    spec: &Spec<'_>,
    first: Option<(&Path, &[String])>,
    builder: &mut Builder<'_>,
) -> Result<Vec<String>, DataError> {
    let mut reader = ReaderBuilder::new()
        .buffer_capacity(files::BUFFER)
        .from_reader(Quotes::new(files::open(path)?));
    let header = header(path, &mut reader)?;
    if let Some(first) = first {
        same_columns(path, &header, first)?;
    }
    let places = Places::find(path, &header, spec)?;
    let before = builder.rows();
    let na_value = spec.na_value.map(str::as_bytes);
    let ends_in_lines = rows(path, &mut reader, (&header, &places, na_value), builder)?;
    if builder.rows() == before {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    let is_open = ends_in_lines || reader.get_ref().is_odd();
    match is_open.then(|| unclosed(path)).flatten() {
        Some(error) => Err(error),
        None => Ok(header),
    }
}

/// Adds the rows that a file has. Returns whether its last field is of several lines, as one is whose quote nothing
/// closes.
fn rows(
    path: &Path,
    reader: &mut csv::Reader<impl Read>,
    (header, places, na_value): (&[String], &Places, Option<&[u8]>),
    builder: &mut Builder<'_>,
) -> Result<bool, DataError> {
    let (mut record, mut before) = (ByteRecord::new(), ByteRecord::new());
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| broken(path, error))?
    {
        let wrong = |column: String, problem: String| DataError::Field {
            path: path.to_owned(),
            place: Place::Line(line(path, record.position())),
            column,
            problem,
        };
        let fail = |index: usize, problem| wrong(header[index].clone(), problem);
        let field = |index: usize, may_be_missing| Field {
            text: match record[index].trim_ascii() {
                text if Some(text) == na_value => b"",
                text => text,
            },
            may_be_missing,
        };
        for (place, &index) in places.features.iter().enumerate() {
            builder
                .feature(place, &[field(index, true)])
                .map_err(|problem| fail(index, problem))?;
        }
        for &index in &places.labels {
            builder
                .label(&field(index, false))
                .map_err(|problem| fail(index, problem))?;
        }
        if let Some(index) = places.weight {
            builder
                .weight(&field(index, false))
                .map_err(|problem| fail(index, problem))?;
        }
        builder
            .end_row()
            .map_err(|fault| wrong(fault.source, fault.problem))?;
        swap(&mut record, &mut before);
    }
    let last = before.iter().next_back();
    Ok(last.is_some_and(|field| field.contains(&b'\n')))
}

/// Names of the columns, each once.
fn header(path: &Path, reader: &mut csv::Reader<impl Read>) -> Result<Vec<String>, DataError> {
    let record = reader.byte_headers().map_err(|error| broken(path, error))?;
    let names: Vec<_> = record
        .iter()
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned())
        .collect();
    if names.is_empty() {
        let problem = "the file is empty; its first line names the columns";
        return Err(DataError::format(path, problem));
    }
    each_once(&names).map_err(|problem| DataError::Row {
        path: path.to_owned(),
        place: Place::Line(1),
        problem,
    })?;
    Ok(names)
}

/// What stands between two commas, without the space around it.
struct Field<'a> {
    text: &'a [u8],
    /// As no label and no weight may.
    may_be_missing: bool,
}

impl Value for Field<'_> {
    fn is_missing(&self) -> bool {
        self.text.is_empty()
    }

    fn number(&self) -> Result<f64, String> {
        let number =
            decimal(self.text).or_else(|| std::str::from_utf8(self.text).ok()?.parse().ok());
        if let Some(number) = number.filter(|number: &f64| number.is_finite()) {
            return Ok(number);
        }
        let shown = self.shown();
        let is_missing = number.is_some_and(f64::is_nan)
            || ["NA", "N/A", "NULL", "null", "None", "?"].contains(&&*shown);
        let remedy = match (is_missing, self.may_be_missing) {
            (true, true) => format!(
                "; where that is a missing value, leave the row out, or set na_value = \"{shown}\" in \
                 [data] and give the column a default in [columns]"
            ),
            (true, false) => "; where that is a missing value, leave the row out".to_owned(),
            (false, _) => String::new(),
        };
        let what = match number {
            Some(number) if number.is_infinite() => "a finite number",
            _ => "a number",
        };
        Err(format!("expected {what}, found '{shown}'{remedy}"))
    }

    fn text(&self) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(self.text))
    }

    fn shown(&self) -> String {
        scalar::shortened(self.text)
    }
}

/// Most digits that an `f64` holds, whatever they are.
const DIGITS: usize = 15;

/// Powers of ten, all of which an `f64` holds.
const POWERS: [f64; DIGITS + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// The value of up to 15 digits with or without a point: most fields there are.
///
/// Digits and power are both held exactly, so that their quotient is rounded once, as it has to be
/// (Clinger 1990, "How to read floating point numbers accurately").
fn decimal(field: &[u8]) -> Option<f64> {
    let (is_negative, text) = match field {
        [b'-', text @ ..] => (true, text),
        text => (false, text),
    };
    if text.len() > DIGITS + 1 {
        return None;
    }
    let (mut digits, mut count, mut point) = (0_u64, 0, None);
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            digits = digits * 10 + u64::from(digit);
            count += 1;
        } else if byte == b'.' && point.is_none() {
            point = Some(count);
        } else {
            return None;
        }
    }
    if count == 0 || count > DIGITS {
        return None;
    }
    let value = digits as f64 / POWERS[point.map_or(0, |point| count - point)];
    Some(if is_negative { -value } else { value })
}

/// The line a record starts on. The reader's own count is behind where blank lines or `\r\n` come
/// before the record, so the file is read again: only errors need it.
fn line(path: &Path, position: Option<&csv::Position>) -> u64 {
    let text = text(path);
    let start = position.map_or(0, csv::Position::byte) as usize;
    let (before, rest) = text.split_at(start.min(text.len()));
    let blank = rest
        .iter()
        .take_while(|&&byte| byte == b'\n' || byte == b'\r')
        .count();
    let newlines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    (newlines(before) + newlines(&rest[..blank]) + 1) as u64
}

/// The error of a quote that nothing closes, where the file has one.
fn unclosed(path: &Path) -> Option<DataError> {
    let line = quotes::unclosed(again(path)?)?;
    Some(DataError::Row {
        path: path.to_owned(),
        place: Place::Line(line as u64),
        problem:
            "a quote opens a field here that nothing closes; close it, or write a quote within \
                  quotes twice"
                .to_owned(),
    })
}

/// A file that was read before, from its start; what is none, such as a pipe, is read once.
fn again(path: &Path) -> Option<files::Contents> {
    path.is_file().then(|| files::open(path).ok()).flatten()
}

/// What could be read of a file before.
fn text(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(mut file) = again(path) {
        // Damage is told of where it is read first.
        let _ = file.read_to_end(&mut text);
    }
    text
}

fn broken(path: &Path, error: csv::Error) -> DataError {
    match error.into_kind() {
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => DataError::Row {
            place: Place::Line(line(path, pos.as_ref())),
            path: path.to_owned(),
            problem: format!(
                "{len} fields, but the header has {expected_len}; mend the row, or put a field that has a \
                 comma of its own in quotes"
            ),
        },
        ErrorKind::Io(source) => files::unreadable(path, source),
        other => DataError::format(path, format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_decimals_are_the_nearest_numbers() {
        for text in [
            "0",
            "-0",
            "5.",
            ".5",
            "0.1",
            "-114.004001",
            "999999999999999",
            "0.00000000000001",
        ] {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(
                decimal(text.as_bytes()).map(f64::to_bits),
                Some(expected.to_bits()),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            ".",
            "1.2.3",
            "1e5",
            "+1",
            "--1",
            "1234567890123456",
            "x",
        ] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_what_the_standard_library_reads(text in "-?[0-9]{1,8}\\.[0-9]{0,7}") {
            let expected: f64 = text.parse().unwrap();
            prop_assert_eq!(decimal(text.as_bytes()).map(f64::to_bits), Some(expected.to_bits()));
        }
    }
}

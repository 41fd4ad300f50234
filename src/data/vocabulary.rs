//! Vocabularies that lie in files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{DataError, Place, files};
use crate::columns::{ColumnSpec, Columns};

/// The columns with the texts of all vocabularies that lie in files.
pub(super) fn resolve(columns: &Columns) -> Result<Columns, DataError> {
    let mut resolved = columns.clone();
    for (name, spec) in &columns.0 {
        if let ColumnSpec::Vocabulary(spec) = spec
            && let Some(path) = &spec.file
        {
            let texts = read(path).map_err(|error| files::cause(error, files::open))?;
            resolved.set_texts(name, texts)?;
        }
    }
    Ok(resolved)
}

/// The lines of a file, plain or gzip.
fn read(path: &Path) -> Result<Vec<String>, DataError> {
    let reader = BufReader::with_capacity(files::BUFFER, files::open(path)?);
    let mut texts = Vec::new();
    let mut lines = BTreeMap::new();
    for (number, line) in (1..).zip(reader.split(b'\n')) {
        let mut line = line.map_err(|error| files::unreadable(path, error))?;
        if line.ends_with(b"\r") {
            line.pop();
        }
        let wrong = |problem: String| DataError::Row {
            path: path.to_owned(),
            place: Place::Line(number),
            problem,
        };
        let text = String::from_utf8(line)
            .map_err(|_| wrong("not UTF-8; write the file as UTF-8".to_owned()))?;
        if text.is_empty() {
            return Err(wrong(
                "an empty line; remove it: a vocabulary has a text on each".to_owned(),
            ));
        }
        if let Some(first) = lines.insert(text.clone(), number) {
            return Err(wrong(format!(
                "'{text}' is on line {first} already; remove one of them"
            )));
        }
        texts.push(text);
    }
    match texts.is_empty() {
        true => Err(DataError::format(
            path,
            "no text in it; write one on each line",
        )),
        false => Ok(texts),
    }
}

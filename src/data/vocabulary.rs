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
            resolved.set_texts(name, read(path)?)?;
        }
    }
    Ok(resolved)
}

/// The lines of a file, plain or gzip.
fn read(path: &Path) -> Result<Vec<String>, DataError> {
    let reader = BufReader::with_capacity(files::BUFFER, files::open(path)?);
    let mut texts = Vec::new();
    let mut lines = BTreeMap::new();
    for (number, line) in (1..).zip(reader.lines()) {
        let text = line.map_err(|error| files::unreadable(path, error))?;
        let wrong = |problem: String| DataError::Row {
            path: path.to_owned(),
            place: Place::Line(number),
            problem,
        };
        if text.is_empty() {
            return Err(wrong(
                "an empty line; a vocabulary has a text on each".to_owned(),
            ));
        }
        if let Some(first) = lines.insert(text.clone(), number) {
            return Err(wrong(format!("'{text}' is on line {first} already")));
        }
        texts.push(text);
    }
    match texts.is_empty() {
        true => Err(DataError::format(path, "no text in it")),
        false => Ok(texts),
    }
}

//! JSON lines: an object on each line, columns by key.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::keyed::{Keyed, Row};
use super::rows::Spec;
use super::scalar::Scalar;
use super::{DataError, Place, Table, files};

/// Reads files, plain or gzip. A value is a number, a text, a truth value, or an array of numbers,
/// be it of arrays.
pub(super) fn read(paths: &[PathBuf], spec: &Spec<'_>) -> Result<Table, DataError> {
    let mut table = Keyed::new(spec);
    for path in paths {
        let mut reader = BufReader::with_capacity(files::BUFFER, files::open(path)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            if read.map_err(|error| files::unreadable(path, error))? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let place = Place::Line(number);
            let Object(row) = serde_json::from_slice(&line).map_err(|error| DataError::Row {
                path: path.clone(),
                place,
                problem: not_an_object(&error),
            })?;
            table.push(path, place, &row)?;
        }
    }
    table.finish(&paths[0])
}

/// What serde says, without its line: each line is read alone.
fn not_an_object(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    format!(
        "not a JSON object: {text} at column {}; mend the line",
        error.column()
    )
}

/// One line.
struct Object(Row);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut row = Row::new();
                while let Some(key) = map.next_key::<String>()? {
                    let mut values = Vec::with_capacity(1);
                    map.next_value_seed(Append(&mut values))?;
                    if row.contains_key(&key) {
                        return Err(A::Error::custom(format!("two columns are called '{key}'")));
                    }
                    row.insert(key, values);
                }
                Ok(Object(row))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

/// Adds a value to others, those of an array, or of arrays within it, in their order.
struct Append<'a>(&'a mut Vec<Scalar>);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Append<'_> {
    fn one<E>(self, value: Scalar) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.one(Scalar::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.one(Scalar::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.one(Scalar::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.one(Scalar::Double(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.one(Scalar::Text(text.as_bytes().to_vec()))
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.one(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Append(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.one(Scalar::Other("an object"))
    }
}

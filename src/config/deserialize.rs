//! From the tree to typed values, with errors that know where they come from.
//!
//! Serde reads a tagged enum by buffering its table, and forgets where a buffered value stood. The
//! place is found again by asking: of the tables on the way down, the entry to blame is the first
//! whose presence brings the error about ([`blame`]).

use std::fmt::Display;

use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::document::{Entry, Node, Value};

/// Why a tree is not the typed value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    UnknownKey {
        key: String,
        known: Vec<String>,
    },
    UnknownName {
        name: String,
        known: Vec<String>,
    },
    WrongValue {
        found: String,
        expected: String,
    },
    MissingKey {
        key: &'static str,
        /// Which names it may have, where it is one of some.
        names: Vec<String>,
    },
    Other(String),
}

/// A fault and the way to it: the indices of entries from the root down.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Error {
    pub(super) fault: Fault,
    pub(super) path: Vec<usize>,
}

/// Reads a typed value. The error's path leads to the entry to blame.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<T, Error> {
    T::deserialize(root).map_err(|error| blame::<T>(root, error))
}

/// Follows the error from where serde lost it down to the entry that causes it.
fn blame<T: DeserializeOwned>(root: &Node, mut error: Error) -> Error {
    let mut tree = root.clone();
    loop {
        let remains = |change: &dyn Fn(&mut Node)| {
            let mut changed = root.clone();
            change(follow(&mut changed, &error.path));
            T::deserialize(&changed).is_err_and(|other| other.fault == error.fault)
        };
        let node = follow(&mut tree, &error.path);
        // What lacks a key is a table that is no longer to blame once it has the key.
        let first = match error.fault {
            Fault::MissingKey { key, .. } if node.get(key).is_none() => {
                let mut added = root.clone();
                follow(&mut added, &error.path).add(key);
                let other = T::deserialize(&added).err().map(|other| other.fault);
                if other.as_ref() != Some(&error.fault) {
                    // The empty name that was added is none of those that it could have been.
                    if let Some(Fault::UnknownName { name, known: names }) = other
                        && name.is_empty()
                    {
                        error.fault = Fault::MissingKey { key, names };
                    }
                    return error;
                }
                0
            }
            Fault::MissingKey { .. } => 1,
            _ => 0,
        };
        let count = (first..=node.entries()).find(|&count| remains(&|node| node.truncate(count)));
        match count {
            None | Some(0) => return error,
            Some(count) => error.path.push(count - 1),
        }
    }
}

fn follow<'a>(node: &'a mut Node, path: &[usize]) -> &'a mut Node {
    path.iter()
        .fold(node, |node, &index| match &mut node.value {
            Value::Array(items) => &mut items[index],
            Value::Table(entries) => &mut entries[index].node,
            _ => unreachable!("paths lead through arrays and tables"),
        })
}

impl Node {
    fn entries(&self) -> usize {
        match &self.value {
            Value::Array(items) => items.len(),
            Value::Table(entries) => entries.len(),
            _ => 0,
        }
    }

    /// Adds a key with some value to a table.
    fn add(&mut self, key: &str) {
        if let Value::Table(entries) = &mut self.value {
            entries.push(Entry {
                at: self.at,
                key: key.to_owned(),
                node: Node {
                    at: self.at,
                    value: Value::String(String::new()),
                },
            });
        }
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.value {
            Value::Array(items) => items.truncate(len),
            Value::Table(entries) => entries.truncate(len),
            _ => {}
        }
    }
}

impl Error {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            path: Vec::new(),
        }
    }

    pub(super) fn under(mut self, index: usize) -> Self {
        self.path.insert(0, index);
        self
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(Fault::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Bool(_) => "boolean".to_owned(),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "integer".to_owned(),
            Unexpected::Float(_) => "number".to_owned(),
            Unexpected::Str(_) => "string".to_owned(),
            Unexpected::Seq => "array".to_owned(),
            Unexpected::Map => "table".to_owned(),
            other => other.to_string(),
        };
        Self::new(Fault::WrongValue {
            found,
            expected: type_name(&expected.to_string()),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            Unexpected::Unsigned(value) => value.to_string(),
            Unexpected::Signed(value) => value.to_string(),
            Unexpected::Float(value) => value.to_string(),
            Unexpected::Str(value) => format!("'{value}'"),
            other => other.to_string(),
        };
        let expected = expected.to_string();
        Self::new(Fault::WrongValue {
            found,
            expected: match expected.as_str() {
                "u8" | "u16" | "u32" | "u64" | "usize" => "integer of at least 0".to_owned(),
                other => type_name(other),
            },
        })
    }

    fn invalid_length(len: usize, expected: &dyn de::Expected) -> Self {
        Self::new(Fault::WrongValue {
            found: format!("{len} entries"),
            expected: type_name(&expected.to_string()),
        })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownName {
            name: variant.to_owned(),
            known: owned(expected),
        })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownKey {
            key: field.to_owned(),
            known: owned(expected),
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Fault::MissingKey {
            key: field,
            names: Vec::new(),
        })
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// What Rust or serde calls a type, in the words of a run file.
fn type_name(expected: &str) -> String {
    let name = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "integer"
        }
        "f32" | "f64" => "number",
        "a string" | "path string" => "string",
        "a boolean" => "boolean",
        "a sequence" => "array",
        other if other.starts_with("struct") || other.starts_with("internally tagged enum") => {
            "table"
        }
        other => other,
    };
    name.to_owned()
}

impl<'de> Deserializer<'de> for &Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries { entries, next: 0 }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(entries) => {
                if entries.len() != 1 {
                    return Err(Error::new(Fault::WrongValue {
                        found: format!("a table with {} keys", entries.len()),
                        expected: format!("a table with one key of {}", variants.join(", ")),
                    }));
                }
                let entries = Entries { entries, next: 0 };
                de::value::MapAccessDeserializer::new(entries)
                    .deserialize_enum(name, variants, visitor)
            }
            other => Err(Error::new(Fault::WrongValue {
                found: other.kind().to_owned(),
                expected: format!("one of {}", variants.join(", ")),
            })),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let index = self.next;
        self.next += 1;
        self.items
            .get(index)
            .map(|item| seed.deserialize(item).map_err(|error| error.under(index)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next.min(self.items.len()))
    }
}

struct Entries<'a> {
    entries: &'a [Entry],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let index = self.next;
        self.entries
            .get(index)
            .map(|entry| {
                seed.deserialize(entry.key.as_str().into_deserializer())
                    .map_err(|error: Error| error.under(index))
            })
            .transpose()
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let index = self.next;
        self.next += 1;
        seed.deserialize(&self.entries[index].node)
            .map_err(|error| error.under(index))
    }
}

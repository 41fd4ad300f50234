//! Which feature columns can be.

use std::collections::BTreeSet;

use super::{ColumnSpec, Columns, MOST_IDS, MOST_SLOTS, Normalize, OutOfVocabulary, Vocabulary};
use crate::named::hint;

/// Why columns cannot be what is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[columns] {column}{}: {problem}", key.map(|key| format!(".{key}")).unwrap_or_default())]
pub struct ColumnError {
    /// Name of the column.
    pub column: String,
    /// Its setting, where one alone is to blame.
    pub key: Option<&'static str>,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A setting and what is wrong with it.
type Problem = (Option<&'static str>, String);

impl Columns {
    /// Refuses columns that cannot be, alone or with one another. What one is made of is always of a
    /// simpler kind, so that no column is made of itself.
    ///
    /// # Errors
    /// For the first that cannot be.
    pub fn check(&self) -> Result<(), ColumnError> {
        for (name, spec) in &self.0 {
            self.check_column(name, spec)
                .map_err(|(key, problem)| ColumnError {
                    column: name.clone(),
                    key,
                    problem,
                })?;
        }
        Ok(())
    }

    fn check_column(&self, name: &str, spec: &ColumnSpec) -> Result<(), Problem> {
        self.check_kind(name, spec)?;
        let slots = self.slots(name);
        if slots > MOST_SLOTS {
            let text = format!("{slots} numbers in a row; {MOST_SLOTS} are the most");
            return Err((None, text));
        }
        if let ColumnSpec::Bucketized(spec) = spec {
            let count = slots.saturating_mul(spec.boundaries.len() + 1);
            if count > MOST_IDS {
                return Err(wrong("boundaries", too_many(count)));
            }
        }
        Ok(())
    }

    fn check_kind(&self, name: &str, spec: &ColumnSpec) -> Result<(), Problem> {
        match spec {
            ColumnSpec::Numeric(spec) => {
                at_least_one("shape", spec.shape)?;
                if spec
                    .default
                    .is_some_and(|default| !spec.normalize.apply(default).is_finite())
                {
                    return Err(wrong(
                        "default",
                        "expected a finite number, also when normalised",
                    ));
                }
                match spec.normalize {
                    Normalize::Linear { scale, offset }
                        if !scale.is_finite() || !offset.is_finite() =>
                    {
                        Err(wrong("normalize", "expected finite numbers"))
                    }
                    _ => Ok(()),
                }
            }
            ColumnSpec::Bucketized(spec) => {
                let boundaries = spec.boundaries();
                if boundaries.is_empty() || boundaries.iter().any(|boundary| !boundary.is_finite())
                {
                    return Err(wrong("boundaries", "expected finite numbers, one at least"));
                }
                if let Some(pair) = boundaries.windows(2).find(|pair| pair[0] >= pair[1]) {
                    let text = format!("{} comes before {}; they must rise", pair[0], pair[1]);
                    return Err(wrong("boundaries", text));
                }
                match spec.source.as_deref().filter(|source| *source != name) {
                    Some(source) => self.check_part("source", source, &["numeric"]),
                    None => Ok(()),
                }
            }
            ColumnSpec::Identity(spec) => {
                at_least_one("max_values", spec.max_values)?;
                check_buckets(spec.buckets)?;
                match spec.default {
                    Some(default) if default >= spec.buckets => {
                        let text = format!("{default} is no id below buckets = {}", spec.buckets);
                        Err(wrong("default", text))
                    }
                    _ => Ok(()),
                }
            }
            ColumnSpec::Vocabulary(spec) => spec.check(),
            ColumnSpec::Hash(spec) => {
                at_least_one("max_values", spec.max_values)?;
                check_buckets(spec.buckets)
            }
            ColumnSpec::Crossed(spec) => {
                check_buckets(spec.buckets)?;
                if spec.keys.len() < 2 {
                    return Err(wrong("keys", "a cross is of two columns at least"));
                }
                let kinds = ["bucketized", "identity", "vocabulary", "hash"];
                let mut keys = spec.keys.iter();
                keys.try_for_each(|key| self.check_part("keys", key, &kinds))
            }
            ColumnSpec::Weighted(spec) => {
                if self.get(&spec.source).is_none() {
                    let known: Vec<_> = self.names().map(str::to_owned).collect();
                    let hint = hint(&spec.source, &known);
                    let text = format!("[columns] has no '{}'{hint}", spec.source);
                    return Err(wrong("source", text));
                }
                let kinds = ["identity", "vocabulary", "hash"];
                self.check_part("source", &spec.source, &kinds)
            }
        }
    }

    /// Refuses an entry that is of none of `kinds`. What is no entry is a column of the data.
    fn check_part(&self, key: &'static str, name: &str, kinds: &[&str]) -> Result<(), Problem> {
        let Some(spec) = self.get(name) else {
            return Ok(());
        };
        if kinds.contains(&spec.name()) {
            return Ok(());
        }
        let remedy = match spec {
            ColumnSpec::Numeric(_) if kinds.contains(&"bucketized") => {
                "; make a bucketized column of it and take that"
            }
            ColumnSpec::Crossed(_) if kinds.contains(&"bucketized") => "; take its keys",
            _ => "",
        };
        let text = format!(
            "'{name}' is {}, not {}{remedy}",
            spec.name(),
            kinds.join(" or ")
        );
        Err(wrong(key, text))
    }
}

impl Columns {
    /// Gives the vocabulary called `name` its texts, as found in a file or in the training split.
    pub(crate) fn set_texts(&mut self, name: &str, texts: Vec<String>) -> Result<(), ColumnError> {
        let Some(ColumnSpec::Vocabulary(spec)) = self.get_mut(name) else {
            return Ok(());
        };
        let checked = match texts.len() {
            0 => Err((None, "no row has a text; leave the column out".to_owned())),
            len => spec.check_size(Some(len)),
        };
        (spec.values, spec.file) = (Some(texts), None);
        checked.map_err(|(key, problem)| ColumnError {
            column: name.to_owned(),
            key,
            problem,
        })
    }
}

impl Vocabulary {
    fn check(&self) -> Result<(), Problem> {
        at_least_one("max_values", self.max_values)?;
        if self.values.is_some() && self.file.is_some() {
            return Err(wrong("file", "values are given, too; keep one of them"));
        }
        if self
            .file
            .as_ref()
            .is_some_and(|file| file.as_os_str().is_empty())
        {
            return Err(wrong("file", "expected the path of a file, found ''"));
        }
        if let Some(values) = &self.values {
            if values.is_empty() {
                return Err(wrong("values", "names no texts"));
            }
            let mut known = BTreeSet::new();
            if let Some(twice) = values.iter().find(|value| !known.insert(*value)) {
                return Err(wrong("values", format!("'{twice}' is there twice")));
            }
            if known.contains(&String::new()) {
                return Err(wrong(
                    "values",
                    "an empty text is a missing value, and has no id",
                ));
            }
        }
        if self.default < -1 {
            return Err(wrong("default", "expected an id, or -1 for none"));
        }
        let is_error = self.oov == OutOfVocabulary::Error;
        if self.default != -1 && (is_error || self.oov_buckets > 0) {
            let other = if is_error {
                "oov = \"error\""
            } else {
                "oov_buckets"
            };
            let text = format!("{other} is given, too; keep one of them");
            return Err(wrong("default", text));
        }
        if is_error && self.oov_buckets > 0 {
            let text = "oov = \"error\" is given, too; keep one of them";
            return Err(wrong("oov_buckets", text));
        }
        self.check_size(self.values.as_ref().map(Vec::len))
    }

    /// Refuses more ids than there can be, and a default that is none; `texts` is how many are known.
    pub(super) fn check_size(&self, texts: Option<usize>) -> Result<(), Problem> {
        let count = texts.unwrap_or(0).saturating_add(self.oov_buckets);
        if count > MOST_IDS {
            return Err((None, too_many(count)));
        }
        match texts {
            Some(texts) if self.default >= texts as i64 => {
                let text = format!("{} is no id of {texts} texts", self.default);
                Err(wrong("default", text))
            }
            _ => Ok(()),
        }
    }
}

fn wrong(key: &'static str, text: impl Into<String>) -> Problem {
    (Some(key), text.into())
}

fn at_least_one(key: &'static str, value: usize) -> Result<(), Problem> {
    match value {
        0 => Err(wrong(key, "must be at least 1")),
        _ => Ok(()),
    }
}

fn check_buckets(buckets: usize) -> Result<(), Problem> {
    at_least_one("buckets", buckets)?;
    if buckets > MOST_IDS {
        return Err(wrong("buckets", too_many(buckets)));
    }
    Ok(())
}

fn too_many(count: usize) -> String {
    format!("{count} ids; single precision tells {MOST_IDS} apart: hash into fewer buckets")
}

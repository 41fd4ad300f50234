//! What is made of the values of one column of the data.

use super::dictionary::Dictionary;
use super::value::{MISSING, Value, number, single};
use super::{MOST_IDS, Normalize, OutOfVocabulary, Vocabulary, hash};
use crate::named::listed;

/// What is done about a text in a column of numbers.
const NO_NUMBER: &str = "mend the row, or make it a vocabulary or hash column";

/// No id.
pub(super) const NONE: f32 = -1.0;

/// One of the things that are made of a column of the data.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Name of the feature column it is for.
    pub(super) column: String,
    /// Most values of a row.
    pub(super) most: usize,
    /// Where in the row its numbers go.
    pub(super) slot: Option<usize>,
    /// Which key of the crosses its values are.
    pub(super) key: Option<usize>,
    pub(super) rule: Rule,
}

/// How a value becomes a number.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Number {
        default: Option<f64>,
        normalize: Normalize,
    },
    /// Not a number where it is missing, until it is known whether there is an id.
    Weight,
    Bucket {
        default: Option<f64>,
        boundaries: Vec<f32>,
    },
    Identity {
        buckets: usize,
        default: Option<usize>,
    },
    /// By the dictionary of that place.
    Vocabulary {
        dictionary: usize,
    },
    Hash {
        buckets: usize,
    },
    /// Only the key of a cross.
    Text,
}

/// The texts of a vocabulary, and what becomes of others.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// Name of the feature column.
    pub(super) column: String,
    pub(super) dictionary: Dictionary,
    /// Whether others are added.
    pub(super) grows: bool,
    oov: OutOfVocabulary,
    default: i64,
    oov_buckets: usize,
}

impl Part {
    /// Whether its values are numbers of which a row has `most`, or as many of the default.
    pub(super) fn is_dense(&self) -> bool {
        matches!(self.rule, Rule::Number { .. } | Rule::Bucket { .. })
    }

    /// Writes what its values are to the row, and as keys.
    pub(super) fn read<V: Value>(
        &self,
        values: &[V],
        words: &mut [Words],
        row: &mut [f32],
        keys: &mut [Vec<u64>],
    ) -> Result<(), String> {
        // Most of what there is.
        if let ([value], 1) = (values, self.most) {
            self.write(0, self.rule.read(value, words)?, row, keys);
            return Ok(());
        }
        let is_missing = values.iter().all(Value::is_missing) && values.len() <= 1;
        let count = values.len();
        if self.is_dense() {
            if is_missing {
                for place in 0..self.most {
                    self.write(place, self.rule.missing()?, row, keys);
                }
                return Ok(());
            }
            if count != self.most {
                return Err(format!(
                    "{count} values, not {}; mend the row, or shape in [columns]",
                    self.most
                ));
            }
        } else if count > self.most {
            let remedy = match (&self.rule, self.slot) {
                (Rule::Text, None) if self.most == 1 => {
                    "raise max_values of its entry in [columns], or make one of it"
                }
                _ => "raise max_values",
            };
            return Err(format!(
                "{count} values, but {} at most; {remedy}",
                self.most
            ));
        }
        for (place, value) in values.iter().enumerate() {
            self.write(place, self.rule.read(value, words)?, row, keys);
        }
        Ok(())
    }

    /// Writes the value at `place` among those of its column.
    fn write(&self, place: usize, read: Read, row: &mut [f32], keys: &mut [Vec<u64>]) {
        // The buckets of each of several numbers have ids of their own.
        let number = match &self.rule {
            Rule::Bucket { boundaries, .. } => {
                read.number + (place * (boundaries.len() + 1)) as f32
            }
            _ => read.number,
        };
        if let Some(slot) = self.slot {
            row[slot + place] = number;
        }
        if let Some(key) = self.key {
            match read.fingerprint {
                Some(fingerprint) => keys[key].push(fingerprint),
                None if number >= 0.0 => keys[key].push(number as u64),
                None => {}
            }
        }
    }
}

/// What a value is.
pub(super) struct Read {
    number: f32,
    /// What it counts for in a cross, where that is not its number.
    fingerprint: Option<u64>,
}

impl From<f32> for Read {
    fn from(number: f32) -> Self {
        Self {
            number,
            fingerprint: None,
        }
    }
}

impl Rule {
    /// What a value is.
    fn read(&self, value: &impl Value, words: &mut [Words]) -> Result<Read, String> {
        match value.is_missing() {
            true => self.missing(),
            false => self.number(value, words),
        }
    }

    /// What a value is that is there.
    fn number(&self, value: &impl Value, words: &mut [Words]) -> Result<Read, String> {
        let number = match self {
            Self::Number { normalize, .. } => {
                single(value, NO_NUMBER, |number| normalize.apply(number))?
            }
            Self::Weight => single(value, "mend the row", |number| number as f32)?,
            Self::Bucket { boundaries, .. } => {
                let number = single(value, NO_NUMBER, |number| number as f32)?;
                bucket(boundaries, number)
            }
            Self::Identity { buckets, default } => identity(value, *buckets, *default)?,
            Self::Vocabulary { dictionary } => words[*dictionary].id(&text(value)?, value)?,
            Self::Hash { buckets } => hash::bucket(&text(value)?, *buckets) as f32,
            Self::Text => {
                return Ok(Read {
                    number: NONE,
                    fingerprint: Some(hash::fingerprint(&text(value)?)),
                });
            }
        };
        Ok(number.into())
    }

    /// What a value is that is missing.
    fn missing(&self) -> Result<Read, String> {
        let number = match self {
            Self::Number { default, .. } | Self::Bucket { default, .. } => {
                default.ok_or(MISSING)?
            }
            Self::Weight => return Ok(f32::NAN.into()),
            _ => return Ok(NONE.into()),
        };
        Ok(match self {
            Self::Number { normalize, .. } => normalize.apply(number),
            Self::Bucket { boundaries, .. } => bucket(boundaries, number as f32),
            _ => NONE,
        }
        .into())
    }
}

/// The interval that a number is in.
fn bucket(boundaries: &[f32], number: f32) -> f32 {
    boundaries.partition_point(|&boundary| boundary <= number) as f32
}

/// A number that is an id, -1 for none.
fn identity(value: &impl Value, buckets: usize, default: Option<usize>) -> Result<f32, String> {
    let number = number(value, NO_NUMBER)?;
    let is_id = number >= 0.0 && number < buckets as f64 && number.fract() == 0.0;
    match default {
        _ if is_id || number == -1.0 => Ok(number as f32),
        Some(default) => Ok(default as f32),
        None => Err(format!(
            "{} is no id below buckets = {buckets}; raise buckets, or give a default",
            value.shown()
        )),
    }
}

fn text(value: &impl Value) -> Result<std::borrow::Cow<'_, [u8]>, String> {
    let text = value.text();
    text.ok_or_else(|| format!("expected a text, found {}; mend the row", value.shown()))
}

impl Words {
    /// Those of `spec`, whose column is called `column`; without a list, all that come.
    pub(super) fn new(column: &str, spec: &Vocabulary) -> Self {
        Self {
            column: column.to_owned(),
            dictionary: Dictionary::new(spec.values.as_deref().unwrap_or_default()),
            grows: spec.values.is_none(),
            oov: spec.oov,
            default: spec.default,
            oov_buckets: spec.oov_buckets,
        }
    }

    fn id(&mut self, text: &[u8], value: &impl Value) -> Result<f32, String> {
        if let Some(id) = self.dictionary.get(text) {
            return Ok(id as f32);
        }
        if self.grows {
            let text = std::str::from_utf8(text)
                .map_err(|_| "the text is not UTF-8; write the file as UTF-8".to_owned())?;
            if self.dictionary.len() + self.oov_buckets == MOST_IDS {
                return Err(format!(
                    "more than {MOST_IDS} texts; make it a hash column with fewer buckets"
                ));
            }
            return Ok(self.dictionary.get_or_add(text) as f32);
        }
        match self.oov {
            OutOfVocabulary::Error => {
                let (texts, _) = self.dictionary.clone().sorted();
                Err(format!(
                    "'{}' is not in the vocabulary; it has {}; add it, or let oov_buckets or default \
                     take it, without oov = \"error\"",
                    value.shown(),
                    listed(&texts)
                ))
            }
            OutOfVocabulary::Default if self.oov_buckets > 0 => {
                Ok((self.dictionary.len() + hash::bucket(text, self.oov_buckets)) as f32)
            }
            OutOfVocabulary::Default => Ok(self.default as f32),
        }
    }
}

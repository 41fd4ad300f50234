//! How long and how often: what the run file says in steps, passes over the data and seconds.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Unexpected};
use serde::{Serialize, Serializer};

/// When training is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// After this many steps, at least 1, counted from the beginning of the run.
    Steps(u64),
    /// After this many passes over the training rows, at least 1.
    Epochs(u64),
}

impl Length {
    /// Number of steps when an epoch has `steps_per_epoch` of them.
    pub fn steps(self, steps_per_epoch: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps,
            Self::Epochs(epochs) => epochs.saturating_mul(steps_per_epoch),
        }
    }
}

/// How often something happens during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// At the end of every epoch: `"epoch"`.
    Epoch,
    /// After every so many steps, at least 1.
    Steps(u64),
    /// After the first step that is done so long after the last time: `"600s"`.
    Seconds(Seconds),
    /// Only when training ends: `0`.
    End,
}

impl Cadence {
    /// Whether it is due once `done` steps of the run are done, so long `since` it last happened, the
    /// end of the run apart.
    pub fn is_due(self, done: u64, steps_per_epoch: u64, since: Duration) -> bool {
        match self {
            Self::Epoch => done.is_multiple_of(steps_per_epoch),
            Self::Steps(steps) => done.is_multiple_of(steps),
            Self::Seconds(seconds) => since >= seconds.duration(),
            Self::End => false,
        }
    }
}

/// A time of at least a second, written `"600s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    /// So many, at least 1.
    pub fn new(seconds: u64) -> Self {
        Self(seconds.max(1))
    }

    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        counted(text, "s").filter(|&seconds| seconds > 0).map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// How many of something are kept, the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many, at least 1.
    Newest(u64),
    /// All of them: `"all"`, or 0.
    All,
}

impl Keep {
    /// How many that are at most.
    pub fn at_most(self) -> usize {
        match self {
            Self::Newest(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::All => usize::MAX,
        }
    }
}

/// How long a metric may stay without improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So many evaluations in a row.
    Evaluations(u64),
    /// So many steps: `"100 steps"`.
    Steps(u64),
}

/// `600` of `600s`, where `unit` is `s`.
fn counted(text: &str, unit: &str) -> Option<u64> {
    text.strip_suffix(unit)?.trim_end().parse().ok()
}

/// What stands in the run file for a count.
enum Count<'a> {
    Number(u64),
    Word(&'a str),
}

/// Reads a number or a word of which `read` knows what it means.
fn count<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    read: fn(Count<'_>) -> Option<T>,
) -> Result<T, D::Error> {
    struct Visitor<T> {
        expected: &'static str,
        read: fn(Count<'_>) -> Option<T>,
    }

    impl<T> de::Visitor<'_> for Visitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            let wrong = || E::invalid_value(Unexpected::Unsigned(number), &self);
            (self.read)(Count::Number(number)).ok_or_else(wrong)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
            let wrong = || E::invalid_value(Unexpected::Str(word), &self);
            (self.read)(Count::Word(word)).ok_or_else(wrong)
        }
    }

    deserializer.deserialize_any(Visitor { expected, read })
}

impl Serialize for Cadence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Epoch => serializer.serialize_str("epoch"),
            Self::Steps(steps) => serializer.serialize_u64(*steps),
            Self::Seconds(seconds) => seconds.serialize(serializer),
            Self::End => serializer.serialize_u64(0),
        }
    }
}

impl<'de> Deserialize<'de> for Cadence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of steps (0: only at the end), \"epoch\", or seconds as \"600s\"";
        count(deserializer, expected, |count| match count {
            Count::Number(0) => Some(Self::End),
            Count::Number(steps) => Some(Self::Steps(steps)),
            Count::Word("epoch") => Some(Self::Epoch),
            Count::Word(word) => Seconds::parse(word).map(Self::Seconds),
        })
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count(deserializer, "seconds as \"600s\"", |count| match count {
            Count::Word(word) => Self::parse(word),
            Count::Number(_) => None,
        })
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Newest(count) => serializer.serialize_u64(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count(deserializer, "how many, or \"all\"", |count| match count {
            Count::Number(0) | Count::Word("all") => Some(Self::All),
            Count::Number(count) => Some(Self::Newest(count)),
            Count::Word(_) => None,
        })
    }
}

impl Serialize for Patience {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Evaluations(count) => serializer.serialize_u64(*count),
            Self::Steps(steps) => serializer.collect_str(&format_args!("{steps} steps")),
        }
    }
}

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of evaluations, or of steps as \"100 steps\"";
        count(deserializer, expected, |count| match count {
            Count::Number(evaluations) => Some(Self::Evaluations(evaluations)),
            Count::Word(word) => counted(word, "steps").map(Self::Steps),
        })
    }
}

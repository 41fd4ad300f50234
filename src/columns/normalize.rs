//! What is done to the numbers of a column.

use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// What is done to the numbers of a column.
///
/// A run file names `"none"` or `"standardize"`, or gives a table with the numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalize {
    /// Nothing.
    None,
    /// To mean 0 and deviation 1 over the training split, by [`Normalize::Standardized`].
    Standardize,
    /// `(x - mean) / deviation`, in single precision.
    Standardized {
        /// What becomes 0.
        mean: f32,
        /// Not 0.
        deviation: f32,
    },
    /// `x * scale + offset`.
    Linear {
        /// The factor, not 0.
        scale: f64,
        /// What is added behind it.
        offset: f64,
    },
}

impl Normalize {
    /// What brings each of `columns`, slots of `rows` of `width` numbers, to mean 0 and deviation 1: mean
    /// and deviation of the population, in double precision, rounded once. Values that are all the same
    /// become 0.
    pub(super) fn standardizing(rows: &[f32], width: usize, columns: &[Range<usize>]) -> Vec<Self> {
        let means = mean(rows, width, columns, |_, x| x);
        let variances = mean(rows, width, columns, |index, x| (x - means[index]).powi(2));
        let normalize = |(mean, variance): (&f64, f64)| Self::Standardized {
            mean: *mean as f32,
            deviation: match variance.sqrt() as f32 {
                // Neither 0 nor too small to divide by.
                deviation if deviation.is_normal() => deviation,
                _ => 1.0,
            },
        };
        means.iter().zip(variances).map(normalize).collect()
    }

    /// What is subtracted, and what the difference is divided by.
    pub(super) fn offset_and_divisor(self) -> (f32, f32) {
        match self {
            Self::None | Self::Standardize => (0.0, 1.0),
            Self::Standardized { mean, deviation } => (mean, deviation),
            Self::Linear { scale, offset } => ((-offset / scale) as f32, (1.0 / scale) as f32),
        }
    }

    /// The number that a model reads in place of `x`.
    pub(super) fn apply(self, x: f64) -> f32 {
        match self {
            Self::None | Self::Standardize => x as f32,
            Self::Standardized { mean, deviation } => (x as f32 - mean) / deviation,
            Self::Linear { scale, offset } => (x * scale + offset) as f32,
        }
    }
}

/// The mean over each of `columns` of what `value` makes of its place and a number; row by row, so that the
/// table is passed over once.
fn mean(
    rows: &[f32],
    width: usize,
    columns: &[Range<usize>],
    value: impl Fn(usize, f64) -> f64,
) -> Vec<f64> {
    let mut sums = vec![0.0; columns.len()];
    for row in rows.chunks_exact(width) {
        for (index, slots) in columns.iter().enumerate() {
            for &x in &row[slots.clone()] {
                sums[index] += value(index, f64::from(x));
            }
        }
    }
    let count = |slots: &Range<usize>| (rows.len() / width * slots.len()) as f64;
    let counted = sums.iter().zip(columns);
    counted.map(|(sum, slots)| sum / count(slots)).collect()
}

/// The table, with what it has.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Numbers {
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deviation: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<f64>,
}

impl Serialize for Normalize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::None => serializer.serialize_str("none"),
            Self::Standardize => serializer.serialize_str("standardize"),
            Self::Standardized { mean, deviation } => Numbers {
                mean: Some(mean),
                deviation: Some(deviation),
                ..Numbers::default()
            }
            .serialize(serializer),
            Self::Linear { scale, offset } => Numbers {
                scale: Some(scale),
                offset: Some(offset),
                ..Numbers::default()
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Normalize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrNumbers;

        impl<'de> Visitor<'de> for NameOrNumbers {
            type Value = Normalize;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "\"none\", \"standardize\", a table with mean and deviation, or one with scale and \
                     offset (deviation and scale other than 0)",
                )
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Normalize, E> {
                match name {
                    "none" => Ok(Normalize::None),
                    "standardize" => Ok(Normalize::Standardize),
                    _ => Err(E::invalid_value(Unexpected::Str(name), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Normalize, A::Error> {
                match Numbers::deserialize(MapAccessDeserializer::new(table))? {
                    Numbers {
                        mean: Some(mean),
                        deviation: Some(deviation),
                        scale: None,
                        offset: None,
                    } if mean.is_finite() && deviation.is_normal() => {
                        Ok(Normalize::Standardized { mean, deviation })
                    }
                    Numbers {
                        mean: None,
                        deviation: None,
                        scale,
                        offset,
                    } if scale.or(offset).is_some() && scale != Some(0.0) => {
                        Ok(Normalize::Linear {
                            scale: scale.unwrap_or(1.0),
                            offset: offset.unwrap_or(0.0),
                        })
                    }
                    _ => Err(A::Error::invalid_value(
                        Unexpected::Other("another table"),
                        &self,
                    )),
                }
            }
        }

        deserializer.deserialize_any(NameOrNumbers)
    }
}

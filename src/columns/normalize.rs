//! What is done to the numbers of a column.

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
        /// The factor.
        scale: f64,
        /// What is added behind it.
        offset: f64,
    },
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
                    "\"none\", \"standardize\", a table with mean and deviation (not 0), or one with \
                     scale and offset",
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
                    } if scale.or(offset).is_some() => Ok(Normalize::Linear {
                        scale: scale.unwrap_or(1.0),
                        offset: offset.unwrap_or(0.0),
                    }),
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

//! Ranges of settings, for serde's `deserialize_with`: a number outside its range is a mistake in the
//! run file like any other, named with its place.

use std::fmt::Display;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

/// From 0 to below 1.
pub(crate) fn below_one<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a number from 0 to below 1", |value| {
        (0.0..1.0).contains(&value)
    })
}

/// From 0 to 1, both included.
pub(crate) fn up_to_one<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a number from 0 to 1", |value| {
        (0.0..=1.0).contains(&value)
    })
}

/// Above 0.
pub(crate) fn positive<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number above 0", |value| {
        value.is_finite() && value > 0.0
    })
}

/// At least 0.
pub(crate) fn not_negative<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number of at least 0", |value| {
        value.is_finite() && value >= 0.0
    })
}

/// At most 0.
pub(crate) fn not_positive<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number of at most 0", |value| {
        value.is_finite() && value <= 0.0
    })
}

/// The value as it will be used is checked: what an `f32` rounds to 1 is not below 1.
fn number<'de, D, F>(
    deserializer: D,
    range: &str,
    is_within: impl Fn(f64) -> bool,
) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    let value = F::deserialize(deserializer)?;
    match is_within(value.into()) {
        true => Ok(value),
        false => Err(D::Error::invalid_value(
            Unexpected::Other(&value.to_string()),
            &range,
        )),
    }
}

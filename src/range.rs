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
        (0.0..1.0).contains(&value) && (value as f32) < 1.0
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
        is_single(value) && value as f32 > 0.0
    })
}

/// At least 0.
pub(crate) fn not_negative<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number of at least 0", |value| {
        is_single(value) && value >= 0.0
    })
}

/// At most 0.
pub(crate) fn not_positive<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number of at most 0", |value| {
        is_single(value) && value <= 0.0
    })
}

/// Any that single precision holds.
pub(crate) fn finite<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + Copy + Display + Into<f64>,
{
    number(deserializer, "a finite number", is_single)
}

/// Whether single precision, in which devices compute, holds it.
pub(crate) fn is_single(value: f64) -> bool {
    (value as f32).is_finite()
}

/// Largest size: up to it a 32-bit float holds every whole number. What products of sizes need, `Build::check_room`
/// compares with the memory there is.
pub(crate) const MOST: usize = 1 << 24;

/// A size, such as a number of units; whether it may be 0 is up to who uses it.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::deserialize(deserializer).and_then(|size| check_size(size).map_err(D::Error::custom))
}

/// Several sizes.
pub(crate) fn sizes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    /// One of them, so that an error has its place.
    #[derive(serde::Deserialize)]
    struct Size(#[serde(deserialize_with = "size")] usize);
    let sizes = Vec::<Size>::deserialize(deserializer)?;
    Ok(sizes.into_iter().map(|Size(size)| size).collect())
}

/// Refuses what is larger than [`MOST`].
pub(crate) fn check_size(size: usize) -> Result<usize, String> {
    match size {
        ..=MOST => Ok(size),
        _ => Err(format!("expected at most {MOST}, found {size}")),
    }
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

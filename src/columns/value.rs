//! A value as it stands in the data.

use std::borrow::Cow;

/// One value, as its format has it.
pub(crate) trait Value {
    /// Whether there is none: an empty text is none, either.
    fn is_missing(&self) -> bool;

    /// As a number.
    fn number(&self) -> Result<f64, String>;

    /// As a text; `None` where it is nothing that has one.
    fn text(&self) -> Option<Cow<'_, [u8]>>;

    /// As errors show it.
    fn shown(&self) -> String;
}

/// What is done about a number that is missing.
pub(crate) const MISSING: &str =
    "missing; leave the row out, or give the numeric column a default in [columns]";

/// What a value means as a number, in single precision. `remedy` says what is done about one that is none, or
/// that single precision does not hold.
pub(crate) fn single(
    value: &impl Value,
    remedy: &str,
    meaning: impl Fn(f64) -> f32,
) -> Result<f32, String> {
    let number = number(value, remedy)?;
    let meant = meaning(number);
    if meant.is_finite() {
        return Ok(meant);
    }
    Err(match number {
        _ if number.is_nan() => format!("'{}' is not a number; {remedy}", value.shown()),
        _ if number.is_infinite() => format!("'{}' is infinite; {remedy}", value.shown()),
        _ if (number as f32).is_finite() => format!(
            "{} is too large for a 32-bit number once it is scaled; make the scale smaller",
            value.shown()
        ),
        _ => format!(
            "{} is too large for a 32-bit number; {remedy}",
            value.shown()
        ),
    })
}

/// A value as a number. `remedy` says what is done about one that is none.
pub(super) fn number(value: &impl Value, remedy: &str) -> Result<f64, String> {
    value
        .number()
        .map_err(|problem| format!("{problem}; {remedy}"))
}

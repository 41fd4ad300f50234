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

/// What a value means as a number, in single precision.
pub(crate) fn single(value: &impl Value, meaning: impl Fn(f64) -> f32) -> Result<f32, String> {
    let number = value.number()?;
    let meant = meaning(number);
    if meant.is_finite() {
        return Ok(meant);
    }
    Err(match number {
        _ if number.is_nan() => format!("'{}' is not a number", value.shown()),
        _ if number.is_infinite() => format!("'{}' is infinite", value.shown()),
        _ => format!("{} is too large for a 32-bit number", value.shown()),
    })
}

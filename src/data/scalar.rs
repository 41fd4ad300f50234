//! A value of a format that has types.

use std::borrow::Cow;

use crate::columns::Value;

/// One value. A text is never a number, whatever it says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Integer(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    Boolean(bool),
    Text(Vec<u8>),
    Null,
    /// Something that is no value: what it is.
    Other(&'static str),
}

/// A text as errors show it: not all of a long one.
pub(super) fn shortened(text: &[u8]) -> String {
    const SHOWN: usize = 40;
    match text.get(..SHOWN) {
        Some(start) if text.len() > SHOWN => format!("{}...", String::from_utf8_lossy(start)),
        _ => String::from_utf8_lossy(text).into_owned(),
    }
}

impl Value for Scalar {
    fn is_missing(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            value => *value == Self::Null,
        }
    }

    fn number(&self) -> Result<f64, String> {
        match self {
            Self::Integer(value) => Ok(*value as f64),
            Self::Unsigned(value) => Ok(*value as f64),
            Self::Single(value) => Ok(f64::from(*value)),
            Self::Double(value) => Ok(*value),
            Self::Boolean(value) => Ok(f64::from(u8::from(*value))),
            Self::Text(_) => Err(format!(
                "expected a number, found the text '{}'",
                self.shown()
            )),
            Self::Null | Self::Other(_) => {
                Err(format!("expected a number, found {}", self.shown()))
            }
        }
    }

    fn text(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Null | Self::Other(_) => None,
            _ => Some(Cow::Owned(self.shown().into_bytes())),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Unsigned(value) => value.to_string(),
            Self::Single(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::Text(text) => shortened(text),
            Self::Null => "null".to_owned(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

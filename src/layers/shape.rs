//! The shape of one sample.

use std::fmt;

use crate::params::elements;
use crate::range::sizes;

/// Dimensions of one row, without the batch: `[8, 8, 1]` is an 8 x 8 image of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Shape(#[serde(deserialize_with = "sizes")] pub Vec<usize>);

impl Shape {
    /// Number of elements of one row, as [`elements`] counts them.
    pub fn elements(&self) -> usize {
        elements(&self.0)
    }

    /// The last dimension: channels, or features. One for a scalar.
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dimensions: [usize; N]) -> Self {
        Self(dimensions.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dimensions: Vec<_> = self.0.iter().map(usize::to_string).collect();
        write!(f, "[{}]", dimensions.join(", "))
    }
}

//! Features with a mean and a spread of their own for each channel.

use std::path::Path;

use super::{DataError, Table};
use crate::layers::Shape;

/// `(feature - mean) / std`, channel by channel, behind the scale: of every row that is trained on, evaluated or
/// predicted from.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalize {
    /// For each channel, or one for all.
    pub mean: Vec<f64>,
    /// For each channel, or one for all; not 0.
    pub std: Vec<f64>,
}

impl Normalize {
    /// Normalises the features of a table. `path` is where they come from.
    pub(super) fn apply(&self, table: &mut Table, path: &Path) -> Result<(), DataError> {
        let Shape(dimensions) = &table.shape;
        let channels = dimensions.last().copied().unwrap_or(1);
        for (key, given) in [("mean", &self.mean), ("std", &self.std)] {
            if ![1, channels].contains(&given.len()) {
                let problem = format!(
                    "[data] {key} has {} numbers, but rows of {} have {channels} channels; give one for each, or \
                     one for all",
                    given.len(),
                    table.shape
                );
                return Err(DataError::format(path, problem));
            }
        }
        let (mean, std) = (self.mean(channels), self.std(channels));
        for row in table.features.chunks_exact_mut(channels.max(1)) {
            for ((feature, mean), std) in row.iter_mut().zip(&mean).zip(&std) {
                *feature = ((f64::from(*feature) - mean) / std) as f32;
            }
        }
        Ok(())
    }

    /// The mean of each of `channels`.
    pub fn mean(&self, channels: usize) -> Vec<f64> {
        each(&self.mean, channels)
    }

    /// The spread of each of `channels`.
    pub fn std(&self, channels: usize) -> Vec<f64> {
        each(&self.std, channels)
    }
}

fn each(given: &[f64], channels: usize) -> Vec<f64> {
    match given {
        [all] => vec![*all; channels],
        each => each.to_vec(),
    }
}

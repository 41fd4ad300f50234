//! Losses that are multiplied by a factor, and their reports as if they were not.
//!
//! A model hands out the gradient of the WEIGHTED sum of its rows' losses, so the factor goes in by the
//! rows' weights: models, their layers and a program's own know nothing of it. It is a power of two and
//! changes no bit of what it multiplies; reports are divided by it before anybody reads them.

use crate::models::REPORT;
use crate::optim::LossScale;

/// The factor, if there is one, and the steps that were lost to it.
pub(super) struct LossScaling {
    scale: Option<LossScale>,
    /// Of the rows of a micro-batch, times the factor.
    weights: Vec<f32>,
    skipped: u64,
}

impl LossScaling {
    /// Of micro-batches of at most `rows` rows.
    pub(super) fn new(scale: Option<LossScale>, rows: usize) -> Self {
        Self {
            scale,
            weights: scale.map_or_else(Vec::new, |_| vec![0.0; rows]),
            skipped: 0,
        }
    }

    /// Goes on with what a checkpoint has. A run that had no factor begins with the first.
    pub(super) fn restore(&mut self, scale: Option<LossScale>, skipped: u64) {
        self.scale = self.scale.map(|first| scale.unwrap_or(first));
        self.skipped = skipped;
    }

    /// The factor's state.
    pub(super) fn scale(&self) -> Option<LossScale> {
        self.scale
    }

    /// Steps that were not applied.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether a gradient that is not finite may be the factor's doing.
    pub(super) fn can_overflow(&self) -> bool {
        self.scale.is_some_and(|scale| !scale.is_one())
    }

    /// A step was not applied, because it overflowed.
    pub(super) fn skip(&mut self) {
        self.skipped += 1;
        if let Some(scale) = &mut self.scale {
            scale.overflowed();
        }
    }

    /// A step was applied.
    pub(super) fn applied(&mut self) {
        if let Some(scale) = &mut self.scale {
            scale.applied();
        }
    }

    /// What losses are multiplied by.
    pub(super) fn factor(&self) -> f64 {
        self.scale.map_or(1.0, |scale| scale.factor())
    }

    /// What the rows of a micro-batch weigh, times the factor.
    pub(super) fn weights<'a>(
        &'a mut self,
        rows: usize,
        weights: Option<&'a [f32]>,
    ) -> Option<&'a [f32]> {
        let Some(scale) = self.scale else {
            return weights;
        };
        let factor = scale.factor() as f32;
        let scaled = &mut self.weights[..rows];
        match weights {
            None => scaled.fill(factor),
            Some(weights) => {
                let pairs = scaled.iter_mut().zip(weights);
                pairs.for_each(|(scaled, weight)| *scaled = weight * factor);
            }
        }
        Some(scaled)
    }

    /// The report of rows that weighed as much, as if they had not.
    pub(super) fn unscaled(&self, [loss, weight, metric, rows]: [f64; REPORT]) -> [f64; REPORT] {
        [loss / self.factor(), weight / self.factor(), metric, rows]
    }
}

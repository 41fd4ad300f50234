//! What a run has seen of the metrics that steer it: part of a checkpoint, so that a resumed run decides
//! as the undisturbed one would.

use crate::config::Measure;

/// All that evaluations have left behind.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Steering {
    /// Of early stopping's metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<Watch>,
    /// Of the metric that lowers the learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plateau: Option<PlateauState>,
    /// Of what the best model is exported by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Watch>,
}

/// How long a metric has not improved.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Watch {
    /// Which metric.
    pub measure: Measure,
    /// Its best value; `None` before the first that is a number.
    pub best: Option<f64>,
    /// The step of that.
    pub best_step: u64,
    /// The step of the last evaluation.
    pub step: u64,
    /// The step since which it has been waited for an improvement.
    pub since: u64,
    /// Evaluations since then.
    pub waited: u64,
}

/// How far the learning rate has fallen, and when it may fall again.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PlateauState {
    /// Of its metric.
    pub watch: Watch,
    /// Evaluations for which nothing is counted yet.
    pub cooldown: u64,
    /// What the learning rate of the schedule is multiplied by.
    pub scale: f64,
}

impl Watch {
    /// Before the first evaluation.
    pub fn new(measure: Measure) -> Self {
        Self {
            measure,
            best: None,
            best_step: 0,
            step: 0,
            since: 0,
            waited: 0,
        }
    }

    /// Notes the value after `step`. Returns whether it is the best by more than `min_delta`. Whether
    /// that ends the waiting is the caller's to say, by [`Self::restart`].
    pub fn see(&mut self, step: u64, value: f64, min_delta: f64) -> bool {
        if self.best.is_none() && self.waited == 0 {
            self.since = step;
        }
        self.step = step;
        self.waited += 1;
        let goal = self.measure.goal;
        // A checkpoint could not keep an infinite one.
        let is_best = value.is_finite()
            && (self.best).is_none_or(|best| goal.is_better_by(min_delta, value, best));
        if is_best {
            self.best = Some(value);
            self.best_step = step;
        }
        is_best
    }

    /// Waits anew from the last evaluation on.
    pub fn restart(&mut self) {
        self.since = self.step;
        self.waited = 0;
    }
}

impl PlateauState {
    /// Before the first evaluation.
    pub fn new(measure: Measure) -> Self {
        Self {
            watch: Watch::new(measure),
            cooldown: 0,
            scale: 1.0,
        }
    }
}

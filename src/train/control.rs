//! What is due when, and what evaluations decide: when training ends early, when the learning rate
//! falls, and which model is the best.
//!
//! Every rank decides for itself, and all alike: metrics are the same on all of them, and what time it
//! is, rank 0 tells the others with each step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Evaluated, Totals, TrainError};
use crate::checkpoint::{PlateauState, Steering, Watch};
use crate::config::{
    Cadence, EarlyStopping, Measure, Patience, Plateau, RunConfig, Stagnation, Threshold,
    TrainConfig,
};
use crate::data::{Description, Table};

/// The metric of the test rows as checkpoints call it.
pub(super) fn name_of_test(metric: &str) -> String {
    format!("test_{metric}")
}

/// What decides beside the steps, and what it has seen.
pub(super) struct Control<'a> {
    train: &'a TrainConfig,
    per_epoch: u64,
    seen: Steering,
    /// When the last evaluation was, if there was one, by rank 0's clock.
    evaluated: Option<Duration>,
    /// When the last checkpoint was, or training began.
    saved: Duration,
}

/// What an evaluation has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Change {
    /// It was the best so far by `train.best`.
    pub(super) is_best: bool,
    /// It was the one that early stopping will go back to, unless a better one comes.
    pub(super) is_needed: bool,
    /// The learning rate has fallen.
    pub(super) lowered: bool,
}

impl<'a> Control<'a> {
    /// Of a run at its beginning, with so many steps per epoch.
    pub(super) fn new(train: &'a TrainConfig, per_epoch: u64) -> Self {
        let mut control = Self {
            train,
            per_epoch,
            seen: Steering::default(),
            evaluated: None,
            saved: Duration::ZERO,
        };
        control.restore(&Steering::default());
        control
    }

    /// Goes on from what a checkpoint says; what is judged by something else now begins anew.
    pub(super) fn restore(&mut self, was: &Steering) {
        let watch = |was: &Option<Watch>, now: Measure| match was {
            Some(watch) if watch.measure == now => watch.clone(),
            _ => Watch::new(now),
        };
        let train = self.train;
        let stopping = train.early_stopping.as_ref();
        self.seen = Steering {
            early_stopping: stopping.map(|stop| watch(&was.early_stopping, stop.measure())),
            plateau: (train.plateau.as_ref()).map(|plateau| match &was.plateau {
                Some(state) if state.watch.measure == plateau.metric => state.clone(),
                _ => PlateauState::new(plateau.metric.clone()),
            }),
            best: (train.best.as_ref()).map(|best| watch(&was.best, best.clone())),
        };
    }

    /// What evaluations have left behind, for a checkpoint.
    pub(super) fn seen(&self) -> &Steering {
        &self.seen
    }

    /// Whether the test rows are to be evaluated after `done` steps, `now` by rank 0's clock.
    pub(super) fn is_evaluation_due(&self, done: u64, now: Duration) -> bool {
        let last = self.evaluated;
        let throttle = self.train.evaluate_throttle;
        let is_too_soon = last
            .zip(throttle)
            .is_some_and(|(last, throttle)| now.saturating_sub(last) < throttle.duration());
        !is_too_soon
            && self.is_due(
                self.train.evaluate_every,
                done,
                now,
                last.unwrap_or_default(),
            )
    }

    /// Whether a checkpoint is to be written after `done` steps, `now` by rank 0's clock.
    pub(super) fn is_save_due(&self, done: u64, now: Duration) -> bool {
        self.is_due(self.train.checkpoint_every, done, now, self.saved)
    }

    fn is_due(&self, cadence: Cadence, done: u64, now: Duration, last: Duration) -> bool {
        cadence.is_due(done, self.per_epoch, now.saturating_sub(last))
    }

    /// Notes when a checkpoint was written.
    pub(super) fn saved(&mut self, now: Duration) {
        self.saved = now;
    }

    /// The learning rate where the schedule has `scheduled`.
    pub(super) fn rate(&self, scheduled: f64) -> f64 {
        match (&self.train.plateau, &self.seen.plateau) {
            (Some(plateau), Some(state)) => {
                // A schedule may be below the bound by itself, as while it warms up.
                (scheduled * state.scale).max(plateau.min_rate.min(scheduled))
            }
            _ => scheduled,
        }
    }

    /// Notes what an evaluation after `step` found, a step with learning rate `rate`.
    ///
    /// One that was not `due`, because training ended, decides nothing: a run that goes on from there
    /// would not be the one that never stopped.
    pub(super) fn observe(
        &mut self,
        (step, now): (u64, Duration),
        rate: f64,
        metrics: &BTreeMap<String, f64>,
        is_due: bool,
    ) -> Change {
        self.evaluated = Some(now);
        let value = |watch: &Watch| {
            let name = name_of_test(&watch.measure.name);
            metrics.get(&name).copied().unwrap_or(f64::NAN)
        };
        let mut change = Change::default();
        if let Some(watch) = &mut self.seen.best {
            change.is_best = watch.see(step, value(watch), 0.0);
        }
        if !is_due {
            return change;
        }
        if let (Some(stop), Some(watch)) =
            (&self.train.early_stopping, &mut self.seen.early_stopping)
            && step >= stop.start_after()
        {
            let is_best = look(stop, watch, step, value(watch));
            change.is_needed = is_best && stop.restores_best();
        }
        if let (Some(plateau), Some(state)) = (&self.train.plateau, &mut self.seen.plateau) {
            let value = value(&state.watch);
            change.lowered = lower(plateau, state, step, value, rate);
        }
        change
    }

    /// Why training ends early, where it does.
    pub(super) fn reason_to_stop(&self) -> Option<String> {
        let stop = self.train.early_stopping.as_ref()?;
        let watch = self.seen.early_stopping.as_ref()?;
        let (metric, best) = (name_of_test(&watch.measure.name), watch.best?);
        let (change, stagnation) = match stop {
            EarlyStopping::NoDecrease(stagnation) => ("decrease", stagnation),
            EarlyStopping::NoIncrease(stagnation) => ("increase", stagnation),
            EarlyStopping::Higher(Threshold { threshold, .. }) if best > *threshold => {
                return Some(format!("{metric} {best} is higher than {threshold}"));
            }
            EarlyStopping::Lower(Threshold { threshold, .. }) if best < *threshold => {
                return Some(format!("{metric} {best} is lower than {threshold}"));
            }
            EarlyStopping::Higher(_) | EarlyStopping::Lower(_) => return None,
        };
        let (waited, most) = match stagnation.patience {
            Patience::Evaluations(most) => (watch.waited, most),
            Patience::Steps(most) => (watch.step - watch.since, most),
        };
        let is_over = watch.step > watch.best_step && waited >= most;
        is_over.then(|| {
            let steps = watch.step - watch.since;
            format!(
                "no {change} of {metric} for {steps} steps; the best was {best} after step {}",
                watch.best_step
            )
        })
    }

    /// The step whose weights early stopping may go back to.
    pub(super) fn needed(&self) -> Option<u64> {
        let stop = self.train.early_stopping.as_ref()?;
        let watch = self.seen.early_stopping.as_ref()?;
        (stop.restores_best() && watch.best.is_some()).then_some(watch.best_step)
    }
}

/// Early stopping sees a value. Returns whether it is the best.
fn look(stop: &EarlyStopping, watch: &mut Watch, step: u64, value: f64) -> bool {
    let (EarlyStopping::NoDecrease(Stagnation {
        min_delta,
        baseline,
        ..
    })
    | EarlyStopping::NoIncrease(Stagnation {
        min_delta,
        baseline,
        ..
    })) = stop
    else {
        return watch.see(step, value, 0.0);
    };
    let is_best = watch.see(step, value, *min_delta);
    let goal = watch.measure.goal;
    if is_best && baseline.is_none_or(|base| goal.is_better_by(*min_delta, value, base)) {
        watch.restart();
    }
    is_best
}

/// The plateau sees a value. Returns whether the learning rate, `rate` until now, falls.
fn lower(plateau: &Plateau, state: &mut PlateauState, step: u64, value: f64, rate: f64) -> bool {
    state.cooldown = state.cooldown.saturating_sub(1);
    let is_cooling = state.cooldown > 0;
    if state.watch.see(step, value, plateau.min_delta) || is_cooling {
        state.watch.restart();
    }
    let falls = state.watch.waited >= plateau.patience.max(1) && rate > plateau.min_rate;
    if falls {
        state.scale *= plateau.factor;
        state.cooldown = plateau.cooldown;
        state.watch.restart();
    }
    falls
}

/// Refuses what is judged by a metric that evaluations do not give.
pub(super) fn check_metrics(config: &RunConfig, data: &Description) -> Result<(), TrainError> {
    let train = &config.train;
    let nothing = Evaluated {
        totals: Totals::default(),
        rows: Vec::new(),
    };
    let table = Table::empty(data.shape.clone(), data.targets.clone(), 0);
    let known = nothing.metrics(&table, config.judging());
    let asked = [
        ("best", train.best.clone()),
        (
            "early_stopping.metric",
            train.early_stopping.as_ref().map(EarlyStopping::measure),
        ),
        (
            "plateau.metric",
            train.plateau.as_ref().map(|plateau| plateau.metric.clone()),
        ),
    ];
    for (key, measure) in asked {
        if let Some(Measure { name, .. }) = measure
            && !known.contains_key(&name)
        {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            return Err(TrainError::UnknownMetric {
                key,
                name,
                known: known.join(", "),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Override;
    use crate::data::Targets;

    /// A run file with these settings.
    fn config(settings: &[&str]) -> RunConfig {
        const RUN: &str = "data = { format = 'csv', train = 'a', test = 'b', label = 'c' }\n\
                           model = { loss = 'softmax_cross_entropy', layers = ['flatten'] }\n\
                           train = { global_batch = 1, steps = 1, optimizer = 'sgd' }";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, RUN).unwrap();
        let settings: Vec<_> = settings.iter().map(|set| Override::set(set)).collect();
        RunConfig::load(&file, &settings).unwrap()
    }

    fn train(settings: &[&str]) -> TrainConfig {
        config(settings).train
    }

    /// Shows a run one value after another, as evaluations every so many steps would find them, and
    /// interrupts it after each. Returns the steps with the learning rates behind them, and whether
    /// training ends with the last.
    fn drive(train: &TrainConfig, every: u64, values: &[f64]) -> (Vec<(u64, f64)>, bool) {
        let mut control = Control::new(train, 1);
        let mut rates = Vec::new();
        for (step, &value) in (1..).map(|count| count * every).zip(values) {
            let metrics = ["loss", "accuracy"].map(|name| (name_of_test(name), value));
            let rate = control.rate(0.1);
            control.observe((step, Duration::ZERO), rate, &metrics.into(), true);
            let saved = serde_json::to_string(control.seen()).unwrap();
            control = Control::new(train, 1);
            control.restore(&serde_json::from_str(&saved).unwrap());
            rates.push((step, control.rate(0.1)));
            if control.reason_to_stop().is_some() {
                return (rates, true);
            }
        }
        (rates, false)
    }

    #[test]
    fn what_keras_does_with_a_sequence_is_done() {
        let text = include_str!("../../tests/golden/vectors.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        for (name, settings) in [
            ("early_p2", &["patience=2"][..]),
            ("early_p0", &[]),
            ("early_p3_delta", &["patience=3", "min_delta=0.02"]),
            ("early_baseline", &["patience=4", "baseline=0.5"]),
            ("early_acc", &["kind=no_increase", "metric=accuracy"]),
            ("plateau_p2", &["factor=0.5", "patience=2"]),
            (
                "plateau_p2_cool2_min",
                &["patience=2", "cooldown=2", "min_rate=0.005"],
            ),
        ] {
            let is_early = name.starts_with("early");
            let table = if is_early {
                "early_stopping"
            } else {
                "plateau"
            };
            let mut all: Vec<String> = settings
                .iter()
                .map(|set| format!("train.{table}.{set}"))
                .collect();
            if is_early && !settings.contains(&"kind=no_increase") {
                all.push("train.early_stopping.kind=no_decrease".to_owned());
            }
            let train = train(&all.iter().map(String::as_str).collect::<Vec<_>>());
            let golden = &golden["callbacks"][name];
            let numbers = |key: &str| -> Vec<f64> {
                let list = golden[key].as_array().unwrap().iter();
                list.map(|number| number.as_f64().unwrap()).collect()
            };
            let (rates, is_over) = drive(&train, 1, &numbers("seq"));
            let last = golden["stopped_epoch"].as_u64();
            assert_eq!(last.is_some(), is_over, "{name}");
            if let Some(epoch) = last {
                assert_eq!(rates.last().unwrap().0, epoch + 1, "{name}");
            }
            assert_eq!(rates.len(), numbers("lr").len(), "{name}");
            for ((step, rate), lr) in rates.iter().zip(numbers("lr")) {
                // Keras keeps the learning rate as an f32.
                assert!((rate - lr).abs() < 1e-7 * lr, "{name}: {rate} after {step}");
            }
        }
    }

    /// The losses of an Estimator's evaluations every 20 steps, which `stop_if_no_decrease_hook` with
    /// 100 steps ended at step 560.
    const LOSSES: [f64; 30] = [
        0.28555176,
        0.12772885,
        0.13767694,
        0.081523225,
        0.072823755,
        0.059123397,
        0.051532876,
        0.05083244,
        0.060537834,
        0.05418907,
        0.04744703,
        0.0642171,
        0.054600663,
        0.045508754,
        0.06845253,
        0.05340945,
        0.04382591,
        0.07028493,
        0.052912112,
        0.04284142,
        0.07177033,
        0.052043673,
        0.042271614,
        0.073178746,
        0.0502938,
        0.04248662,
        0.07330345,
        0.050705437,
        0.01,
        0.01,
    ];

    #[test]
    fn patience_in_steps_is_that_of_estimators() {
        let no_decrease = "train.early_stopping.kind=no_decrease";
        let stops = |settings: &[&str]| {
            let settings = [&[no_decrease][..], settings].concat();
            let (rates, is_over) = drive(&train(&settings), 20, &LOSSES);
            is_over.then_some(rates.last().unwrap().0)
        };
        let patience = "train.early_stopping.patience=\"100 steps\"";
        assert_eq!(stops(&[patience]), Some(560));
        // The best before is not seen.
        let late = "train.early_stopping.start_after=480";
        assert_eq!(stops(&[patience, late]), None);
        let short = "train.early_stopping.patience=\"40 steps\"";
        assert_eq!(stops(&[short]), Some(200));
        assert_eq!(stops(&[short, late]), Some(560));
    }

    #[test]
    fn thresholds_stop_at_once() {
        let stops = |kind: &str, threshold: &str, later: &str| {
            let settings = [
                format!("train.early_stopping.kind={kind}"),
                format!("train.early_stopping.threshold={threshold}"),
                format!("train.early_stopping.start_after={later}"),
            ];
            let train = train(&settings.each_ref().map(String::as_str));
            let (rates, is_over) = drive(&train, 1, &[0.5, 0.7, 0.6, 0.3, 0.2]);
            is_over.then_some(rates.last().unwrap().0)
        };
        assert_eq!(stops("higher", "0.6", "0"), Some(2));
        assert_eq!(stops("higher", "0.7", "0"), None);
        assert_eq!(stops("lower", "0.5", "0"), Some(4));
        assert_eq!(stops("lower", "0.5", "5"), Some(5));
    }

    #[test]
    fn a_rate_does_not_rise_to_the_bound_of_a_plateau() {
        let train = train(&["train.plateau.min_rate=0.05", "train.plateau.patience=1"]);
        let mut control = Control::new(&train, 1);
        let metrics = [(name_of_test("loss"), 1.0)].into();
        for step in 1..4 {
            control.observe((step, Duration::ZERO), 0.1, &metrics, true);
        }
        // A schedule that warms up is below the bound by itself.
        assert_eq!([control.rate(0.1), control.rate(0.01)], [0.05, 0.01]);
        // What was not due counts for nothing.
        let before = control.seen().clone();
        let change = control.observe((4, Duration::ZERO), 0.1, &metrics, false);
        assert_eq!((change, control.seen()), (Change::default(), &before));
    }

    #[test]
    fn seconds_and_throttles_go_by_the_clock_that_all_ranks_share() {
        let train = train(&[
            "train.checkpoint_every=60s",
            "train.evaluate_every=2",
            "train.evaluate_throttle=30s",
        ]);
        let mut control = Control::new(&train, 100);
        let seconds = Duration::from_secs;
        assert!(!control.is_save_due(1, seconds(59)) && control.is_save_due(1, seconds(60)));
        control.saved(seconds(70));
        assert!(!control.is_save_due(2, seconds(129)) && control.is_save_due(2, seconds(130)));
        // The first evaluation is not throttled.
        assert!(!control.is_evaluation_due(1, seconds(0)));
        assert!(control.is_evaluation_due(2, seconds(0)));
        control.observe((2, seconds(1)), 0.1, &BTreeMap::new(), true);
        assert!(!control.is_evaluation_due(4, seconds(30)));
        assert!(control.is_evaluation_due(4, seconds(31)));
        assert!(!control.is_evaluation_due(5, seconds(31)));
    }

    #[test]
    fn a_metric_that_is_not_measured_is_named_with_those_that_are() {
        let config = config(&["train.plateau.metric=auc"]);
        let numbers = Description {
            targets: Targets::Numbers(1),
            ..Description::default()
        };
        let error = check_metrics(&config, &numbers).unwrap_err();
        assert_eq!(
            error.to_string(),
            "train.plateau.metric: evaluations give no 'auc'; they give loss, mean_absolute_error"
        );
    }
}

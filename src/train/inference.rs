//! A trained model that is only applied: no gradients, no other ranks.

use std::ops::Range;

use super::judged::{Judges, Reported};
use crate::backend::{Backend, BackendError};
use crate::checkpoint::{Checkpoint, CheckpointError, Wanted};
use crate::data::Table;
use crate::layers::{Context, Mode, StateTensor};
use crate::models::{Judge, MicroBatch, Model, REPORT};
use crate::params::Layout;

/// A replica without anything it would take to train it.
pub struct Inference<B: Backend, M: Model<B>> {
    backend: B,
    model: M,
    max_rows: usize,
    parameters: B::Buffer<f32>,
    state: B::Buffer<f32>,
    statistics: B::Buffer<f32>,
    features: B::Buffer<f32>,
    targets: B::Buffer<f32>,
    weights: B::Buffer<f32>,
    outputs: B::Buffer<f32>,
    report: B::Buffer<f64>,
}

impl<B: Backend, M: Model<B>> Inference<B, M> {
    /// A model that was built on `backend` for micro-batches of at most `max_rows` rows, all its
    /// parameters zero.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(mut backend: B, model: M, max_rows: usize) -> Result<Self, BackendError> {
        let state = state_len(model.states());
        Ok(Self {
            parameters: backend.allocate("parameters", model.layout().end())?,
            state: backend.allocate("state", state)?,
            statistics: backend.allocate("statistics", state)?,
            features: backend.allocate("features", max_rows * model.input().elements())?,
            targets: backend.allocate("targets", max_rows * model.target_width())?,
            weights: backend.allocate("weights", max_rows)?,
            outputs: backend.allocate("outputs", max_rows * model.output().elements())?,
            report: backend.allocate("report", REPORT)?,
            backend,
            model,
            max_rows,
        })
    }

    /// Takes the weights of a checkpoint.
    ///
    /// # Errors
    /// If it is damaged or of another model.
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (layout, states) = (self.model.layout(), self.model.states());
        let mut parameters = vec![0.0; layout.end()];
        let mut state = vec![0.0; state_len(states)];
        checkpoint.load(&mut wanted(layout, states, &mut parameters, &mut state))?;
        self.backend
            .upload(&parameters, B::view_mut(&mut self.parameters));
        self.backend.upload(&state, B::view_mut(&mut self.state));
        Ok(())
    }

    /// What is applied.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// What the model says of rows of features: `[rows, output shape]`.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If `features` are not whole rows.
    pub fn predict(&mut self, features: &[f32]) -> Result<Vec<f32>, BackendError> {
        self.run(features, |_, _, _| ())
    }

    /// As [`Self::predict`], and the logits where the model keeps them.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn predict_with_logits(
        &mut self,
        features: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>), BackendError> {
        let mut logits = Vec::new();
        let predictions = self.run(features, |backend, model, rows| {
            if let Some(view) = model.logits(rows) {
                let start = logits.len();
                logits.resize(start + B::len(view), 0.0);
                backend.download(view, &mut logits[start..]);
            }
        })?;
        Ok((predictions, logits))
    }

    /// Predicts, and calls `behind` after each micro-batch with the number of its rows.
    fn run(
        &mut self,
        features: &[f32],
        mut behind: impl FnMut(&mut B, &M, usize),
    ) -> Result<Vec<f32>, BackendError> {
        let inputs = self.model.input().elements();
        let outputs = self.model.output().elements();
        assert!(
            features.len().is_multiple_of(inputs),
            "features end in mid-row"
        );
        let mut predictions = vec![0.0; features.len() / inputs * outputs];
        let chunks = features.chunks(self.max_rows * inputs);
        for (features, predictions) in chunks.zip(predictions.chunks_mut(self.max_rows * outputs)) {
            let rows = features.len() / inputs;
            upload(&mut self.backend, features, &mut self.features);
            let mut cx = context(&mut self.backend, rows, &self.state, &mut self.statistics);
            self.model.predict(
                &mut cx,
                B::view(&self.parameters),
                B::slice(B::view(&self.features), 0..features.len()),
                B::slice_mut(B::view_mut(&mut self.outputs), 0..predictions.len()),
            );
            drop(cx);
            let from = B::slice(B::view(&self.outputs), 0..predictions.len());
            self.backend.download(from, predictions);
            behind(&mut self.backend, &self.model, rows);
        }
        self.backend.synchronize()?;
        Ok(predictions)
    }

    /// The reports of some micro-batches of a table with targets, in order, and what is kept of each row
    /// where it is said how. A table has `rows.div_ceil(max_rows)` micro-batches.
    ///
    /// # Errors
    /// If the device fails.
    pub fn evaluate(
        &mut self,
        table: &Table,
        micro_batches: Range<usize>,
        judge: Option<Judge>,
    ) -> Result<Reported, BackendError> {
        let inputs = self.model.input().elements();
        let targets = self.model.target_width();
        let mut reported = Reported::default();
        let mut judges = judge.map(Judges::new);
        for index in micro_batches {
            let rows = index * self.max_rows..((index + 1) * self.max_rows).min(table.rows);
            let part = |width: usize| rows.start * width..rows.end * width;
            let backend = &mut self.backend;
            upload(backend, &table.features[part(inputs)], &mut self.features);
            upload(backend, &table.targets[part(targets)], &mut self.targets);
            if let Some(weights) = &table.weights {
                upload(backend, &weights[part(1)], &mut self.weights);
            }
            let first = |buffer, width: usize| B::slice(B::view(buffer), 0..rows.len() * width);
            let batch = MicroBatch {
                features: first(&self.features, inputs),
                targets: first(&self.targets, targets),
                weights: table.weights.as_ref().map(|_| first(&self.weights, 1)),
            };
            let mut cx = context(backend, rows.len(), &self.state, &mut self.statistics);
            let parameters = B::view(&self.parameters);
            self.model
                .forward(&mut cx, parameters, &batch, B::view_mut(&mut self.report));
            drop(cx);
            let mut report = [0.0; REPORT];
            self.backend.download(B::view(&self.report), &mut report);
            reported.reports.push(report);
            if let (Some(judges), Some(logits)) = (&mut judges, self.model.logits(rows.len())) {
                let targets = table.targets(rows);
                let judged = judges.rows(&mut self.backend, logits, targets);
                reported.judged.extend(judged);
            }
        }
        self.backend.synchronize()?;
        Ok(reported)
    }
}

/// The tensors of a model as a checkpoint is asked for them, in arenas on the host; padding is left
/// alone.
pub(super) fn wanted<'a>(
    layout: &'a Layout,
    states: &'a [StateTensor],
    parameters: &'a mut [f32],
    state: &'a mut [f32],
) -> Vec<Wanted<'a>> {
    let mut wanted = Vec::with_capacity(layout.tensors().len() + states.len());
    let (mut rest, mut end) = (parameters, 0);
    for tensor in layout.tensors() {
        let values;
        (values, rest) = rest[tensor.offset - end..].split_at_mut(tensor.len());
        end = tensor.range().end;
        wanted.push(Wanted {
            name: &tensor.name,
            shape: &tensor.shape,
            values,
        });
    }
    let mut rest = state;
    for tensor in states {
        let values;
        (values, rest) = rest.split_at_mut(tensor.range.len());
        wanted.push(Wanted {
            name: &tensor.name,
            shape: &tensor.shape,
            values,
        });
    }
    wanted
}

/// Length of the state arena.
pub(super) fn state_len(states: &[StateTensor]) -> usize {
    states.last().map_or(0, |state| state.range.end)
}

/// Copies `values` to the start of `buffer`.
fn upload<B: Backend>(backend: &mut B, values: &[f32], buffer: &mut B::Buffer<f32>) {
    backend.upload(values, B::slice_mut(B::view_mut(buffer), 0..values.len()));
}

/// Of `rows` rows in inference, where nothing is random.
fn context<'a, B: Backend>(
    backend: &'a mut B,
    rows: usize,
    state: &'a B::Buffer<f32>,
    statistics: &'a mut B::Buffer<f32>,
) -> Context<'a, B> {
    Context {
        backend,
        mode: Mode::Infer,
        rows,
        seed: 0,
        step: 0,
        first_sample: 0,
        state: B::view(state),
        statistics: B::view_mut(statistics),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::checkpoint::{Facts, Named, Retention, Writer};
    use crate::data::Targets;
    use crate::layers::Build;
    use crate::models::Sequential;

    /// `y = normalised(x) * kernel + bias`, with moving statistics mean 1 and variance 3.
    const TENSORS: [(&str, &[usize], &[f32]); 6] = [
        ("batch_normalization/gamma", &[2], &[1.0, 2.0]),
        ("batch_normalization/beta", &[2], &[0.5, 0.0]),
        ("dense/kernel", &[2, 1], &[3.0, -1.0]),
        ("dense/bias", &[1], &[0.25]),
        ("batch_normalization/moving_mean", &[2], &[1.0, 1.0]),
        ("batch_normalization/moving_variance", &[2], &[3.0, 3.0]),
    ];

    fn inference(
        max_rows: usize,
        tensors: &[(&str, &[usize], &[f32])],
    ) -> Inference<Cpu, Sequential<Cpu>> {
        let folder = tempfile::tempdir().unwrap();
        let named = |&(name, shape, values)| Named {
            name,
            shape,
            values,
        };
        let named: Vec<_> = tensors.iter().map(named).collect();
        let retention = Retention {
            last: 1,
            best: None,
            needed: None,
        };
        let facts = Facts {
            fingerprint: BTreeMap::new(),
            ..Facts::default()
        };
        let writer = Writer::begin(folder.path(), 0).unwrap();
        let saved = writer.finish(&facts, &named, 0, &retention).unwrap();
        let layers = r#"[
            {"kind": "batch_normalization", "epsilon": 1.0},
            {"kind": "dense", "units": 1},
            {"kind": "dropout", "rate": 0.5}
        ]"#;
        let mut backend = Cpu::new();
        let model = Sequential::new(
            Build::new(&mut backend, max_rows),
            &serde_json::from_str::<Vec<_>>(layers).unwrap(),
            &Table::empty([2].into(), Targets::Numbers(1), 0).description(),
            &serde_json::from_str("\"squared_error\"").unwrap(),
        );
        let mut inference = Inference::new(backend, model.unwrap(), max_rows).unwrap();
        inference.load(&Checkpoint::open(&saved).unwrap()).unwrap();
        inference
    }

    #[test]
    fn a_loaded_model_predicts_with_its_moving_statistics_whatever_the_micro_batch() {
        let x = [[1.0, 1.0], [3.0, 5.0], [-1.0, 0.0]];
        // (x - 1) / 2, then 3 (a + 0.5) - 2 b + 0.25.
        let y: Vec<f32> = x
            .iter()
            .map(|[a, b]| 3.0 * ((a - 1.0) / 2.0 + 0.5) - (b - 1.0) + 0.25)
            .collect();
        for max_rows in [1, 2, 3, 8] {
            let predicted = inference(max_rows, &TENSORS)
                .predict(x.as_flattened())
                .unwrap();
            for (predicted, y) in predicted.iter().zip(&y) {
                // Four roundings of numbers below 8.
                assert!((predicted - y).abs() < 4e-6, "{predicted} {y}");
            }
            assert_eq!(predicted.len(), 3);
        }
        assert!(inference(2, &TENSORS).predict(&[]).unwrap().is_empty());
    }

    #[test]
    fn reports_cover_each_row_once_with_its_weight() {
        let table = Table {
            features: vec![1.0; 10],
            // Every prediction is 1.75.
            targets: vec![1.75, 0.75, 1.75, 1.75, 3.75],
            weights: Some(vec![1.0, 2.0, 1.0, 1.0, 0.5]),
            ..Table::empty([2].into(), Targets::Numbers(1), 5)
        };
        let mut inference = inference(2, &TENSORS);
        let reports = inference.evaluate(&table, 0..3, None).unwrap().reports;
        assert_eq!(
            inference.evaluate(&table, 2..3, None).unwrap().reports,
            reports[2..]
        );
        let column = |index: usize| reports.iter().map(|report| report[index]).sum::<f64>();
        assert!((column(0) - (2.0 + 0.5 * 4.0)).abs() < 1e-4, "{reports:?}");
        assert_eq!((column(1), column(3)), (5.5, 5.0));
    }

    #[test]
    fn tensors_are_loaded_by_name_in_any_order() {
        let mut tensors = TENSORS;
        tensors.reverse();
        let features = [4.0, -2.0];
        let expected = inference(1, &TENSORS).predict(&features).unwrap();
        assert_eq!(inference(1, &tensors).predict(&features).unwrap(), expected);
    }
}

//! Exported models, run by a runtime that knows nothing of this project.

mod commands;
mod custom;
mod estimators;
mod layers;
mod rows;

use std::path::Path;

use ringstep::backend::cpu::Cpu;
use ringstep::checkpoint::{Checkpoint, Facts, Named, Retention, Writer};
use ringstep::config::{CustomModels, RunConfig};
use ringstep::data::{Description, Targets};
use ringstep::layers::{Build, Shape};
use ringstep::models::Model as _;
use ringstep::params::Layout;
use ringstep::random::Stream;
use ringstep::train::{ExportError, Inference, export_onnx};

/// What an exported model may differ by from the run's own predictions: other software adds in another
/// order.
const NEAR: f32 = 1e-5;

/// Largest micro-batch; models are tried on more rows than that.
const MICRO_BATCH: usize = 4;

/// A run as it was saved, with weights drawn at random.
pub(crate) struct Saved {
    config: RunConfig,
    folder: tempfile::TempDir,
    data: Description,
}

impl Saved {
    /// Of a model as `[model]` of a run file describes it, on rows of `shape`.
    fn new(model: &str, shape: &[usize], targets: Targets, models: &CustomModels) -> Self {
        let text = format!("[model]\n{model}\n[train]\noptimizer = 'sgd'\n");
        let data = Description {
            shape: Shape(shape.to_vec()),
            targets,
            ..Description::default()
        };
        Self::of(&text, data, models)
    }

    /// Of the model that these sections of a run file describe, of which `[train]` is the last, on rows as
    /// `data` says.
    fn of(sections: &str, data: Description, models: &CustomModels) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        let text = format!(
            "[data]\nformat = 'csv'\ntrain = 'train.csv'\nlabel = 'y'\n{sections}\
             global_batch = 1\nsteps = 1\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = RunConfig::load_with(&file, &[], models).unwrap();
        let saved = Self {
            config,
            folder,
            data,
        };
        saved.save();
        saved
    }

    fn save(&self) {
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, 1);
        let model = self.config.model.build(build, &self.data).unwrap();
        let layout: &Layout = model.layout();
        let parameters = layout.tensors().iter().map(|t| (&t.name, &t.shape));
        let states = model.states().iter().map(|s| (&s.name, &s.shape));
        let tensors: Vec<_> = parameters.chain(states).collect();
        let mut stream = Stream::new(11, "weights");
        let mut values = |name: &str, shape: &[usize]| -> Vec<f32> {
            let len = shape.iter().product();
            // So that outputs are about as large as inputs.
            let scale = (shape[shape.len() - 1] as f64 / len as f64).sqrt();
            let mut value = || match name.ends_with("variance") {
                true => 0.5 + stream.normal().abs(),
                false => scale * stream.normal(),
            };
            (0..len).map(|_| value() as f32).collect()
        };
        let values: Vec<Vec<f32>> = tensors
            .iter()
            .map(|(name, shape)| values(name, shape))
            .collect();
        let named = tensors
            .iter()
            .zip(&values)
            .map(|((name, shape), values)| Named {
                name,
                shape,
                values,
            });
        let facts = Facts {
            data: self.data.clone(),
            ..Facts::default()
        };
        let retention = Retention {
            last: 1,
            best: None,
            needed: None,
        };
        Writer::begin(self.folder.path(), 0)
            .unwrap()
            .finish(&facts, &named.collect::<Vec<_>>(), 0, &retention)
            .unwrap();
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::named(self.folder.path(), "step-0").unwrap()
    }

    fn export(&self) -> Result<Vec<u8>, ExportError> {
        export_onnx(&self.config, &self.checkpoint())
    }

    /// What the run itself predicts.
    fn predict(&self, features: &[f32]) -> Vec<f32> {
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, MICRO_BATCH);
        let model = self.config.model.build(build, &self.data).unwrap();
        let mut inference = Inference::new(backend, model, MICRO_BATCH).unwrap();
        inference.load(&self.checkpoint()).unwrap();
        inference.predict(features).unwrap()
    }

    /// Runs the exported model on several numbers of rows, and compares it with the run's own
    /// predictions.
    fn check(&self, what: &str, features: impl Fn(usize) -> Vec<f32>) {
        let model = load(self.export().unwrap());
        let width = self.data.shape.elements();
        for rows in [1, MICRO_BATCH + 3] {
            let features = features(rows * width);
            let found = run(&model, rows, &self.data.shape, &features);
            assert_near(what, &found, &self.predict(&features));
        }
        assert_eq!(self.export().unwrap(), self.export().unwrap(), "{what}");
    }
}

/// Reads an ONNX file.
fn load(bytes: Vec<u8>) -> rten::Model {
    rten::Model::load(bytes).unwrap()
}

/// What a model gives for rows of `shape`.
fn run(model: &rten::Model, rows: usize, shape: &Shape, features: &[f32]) -> Vec<f32> {
    let shape = [&[rows], &shape.0[..]].concat();
    let features = rten::ValueView::from_shape(shape, features).unwrap();
    let outputs = model.run_one(features.into(), None).unwrap();
    outputs.into_tensor::<f32>().unwrap().into_data()
}

fn assert_near(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference <= NEAR * expected.abs().max(1.0),
            "{what}: output {place} is {found}, expected {expected}"
        );
    }
}

fn classes(count: usize) -> Targets {
    Targets::Classes((0..count).map(|class| class.to_string()).collect())
}

fn normal(len: usize) -> Vec<f32> {
    let mut stream = Stream::new(5, "features");
    (0..len).map(|_| stream.normal() as f32).collect()
}

/// The folder of the example that ships.
fn digits() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits")
}

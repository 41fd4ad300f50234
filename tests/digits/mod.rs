//! The digits network from the weights that TensorFlow started with, whatever carries the sums: a
//! body that one rank runs.

use std::path::Path;
use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::checkpoint::{Checkpoint, Facts, Named, Retention, Writer};
use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::data::{
    ColumnFormat, ColumnSource, DataConfig, Prefetch, Sampler, Source, Split, Table, Task, load,
};
use ringstep::layers::{ActivationSpec, Build, Conv2D, Dense, LayerSpec};
use ringstep::models::{LossSpec, Sequential};
use ringstep::optim::{Adam, ClipSpec, OptimizerSpec};
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// Rows of a global batch, in the order of the file.
const GLOBAL_BATCH: usize = 32;

/// A stored variable: a run of a blob, or one value everywhere.
#[derive(Debug, PartialEq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The variables of a manifest, under the names this project gives them.
pub(crate) fn variables(name: &str) -> Vec<Variable> {
    let manifest = std::fs::read_to_string(format!("{GOLDEN}/weights/{name}.json")).unwrap();
    let blob = std::fs::read(format!("{GOLDEN}/weights/{name}.f32")).unwrap();
    let manifest: Vec<serde_json::Value> = serde_json::from_str(&manifest).unwrap();
    let read = |entry: &serde_json::Value| {
        let shape: Vec<usize> = entry["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|size| size.as_u64().unwrap() as usize)
            .collect();
        let len = shape.iter().product();
        let values = match entry["offset"].as_u64() {
            Some(offset) => blob[offset as usize..][..len * 4]
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                .collect(),
            None => vec![entry["fill"].as_f64().unwrap() as f32; len],
        };
        let name = entry["name"]
            .as_str()
            .unwrap()
            .trim_end_matches(":0")
            .to_owned();
        Variable {
            name,
            shape,
            values,
        }
    };
    manifest.iter().map(read).collect()
}

/// A folder with a checkpoint of these tensors alone.
pub(crate) fn saved(tensors: &[Named<'_>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        last: 1,
        best: None,
        needed: None,
    };
    let writer = Writer::begin(folder.path(), 0).unwrap();
    writer
        .finish(&Facts::default(), tensors, 0, &retention)
        .unwrap();
    folder
}

/// How to train.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) reduce: ReduceMode,
    pub(crate) micro_batch: usize,
    pub(crate) sharded: bool,
    pub(crate) optimizer: OptimizerSpec,
    pub(crate) clip: Option<ClipSpec>,
    pub(crate) steps: u64,
}

impl Recipe {
    /// Adam as TensorFlow's run had it.
    pub(crate) fn adam(reduce: ReduceMode, micro_batch: usize, steps: u64) -> Self {
        Self {
            reduce,
            micro_batch,
            sharded: false,
            optimizer: OptimizerSpec::from(Adam::default()),
            clip: None,
            steps,
        }
    }
}

/// The losses of all steps, and the weights after them.
pub(crate) type Trained = (Vec<f64>, Vec<Variable>);

/// The training rows, and a checkpoint of the weights to start with.
pub(crate) struct Digits {
    table: Arc<Table>,
    start: tempfile::TempDir,
}

impl Digits {
    pub(crate) fn load() -> Self {
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
        let source = Source::Columns(ColumnSource {
            format: ColumnFormat::Csv,
            train: vec![digits.join("train.csv")],
            test: Vec::new(),
            features: None,
            labels: vec!["digit".to_owned()],
            weight: None,
            classes: None,
            na_value: None,
        });
        let config = DataConfig {
            shape: Some([8, 8, 1].into()),
            scale: 0.0625,
            ..DataConfig::new(source)
        };
        let table = load(
            &config,
            Task::Classification { classes: None },
            None,
            Split::Train,
            None,
        )
        .unwrap();
        let variables = variables("cnn_digits_init");
        let tensors: Vec<_> = variables
            .iter()
            .map(|variable| Named {
                name: &variable.name,
                shape: &variable.shape,
                values: &variable.values,
            })
            .collect();
        Self {
            table: Arc::new(table),
            start: saved(&tensors),
        }
    }

    /// What one rank does.
    pub(crate) fn train(&self, reducer: Reducer, recipe: &Recipe) -> Result<Trained, TrainError> {
        let micro_batch = recipe.micro_batch;
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, micro_batch);
        let layers: Vec<LayerSpec> = vec![
            Conv2D::new(32, 3).activation(ActivationSpec::Relu).into(),
            serde_json::from_str(r#""max_pooling2d""#).unwrap(),
            serde_json::from_str(r#""flatten""#).unwrap(),
            Dense::new(128).activation(ActivationSpec::Relu).into(),
            Dense::new(10).activation(ActivationSpec::Softmax).into(),
        ];
        let loss = LossSpec::SoftmaxCrossEntropy(Default::default());
        let model = Sequential::new(build, &layers, &self.table.description(), &loss)?;
        let options = TrainerOptions {
            reduce: recipe.reduce,
            bucket_bytes: 64 << 10,
            sharded: recipe.sharded,
            clip: recipe.clip,
            ..TrainerOptions::new(
                micro_batch,
                GLOBAL_BATCH.div_ceil(micro_batch),
                recipe.optimizer.clone(),
            )
        };
        let rank = (reducer.rank(), reducer.world());
        let mut trainer = Trainer::new(backend, model, options, reducer)?;
        let start = Checkpoint::newest(self.start.path())?.checkpoint.unwrap();
        trainer.restore_model(&start)?;
        let sampler = Sampler {
            rows: self.table.rows,
            global_batch: GLOBAL_BATCH,
            micro_batch,
            seed: 0,
            shuffle: false,
            ..Sampler::default()
        };
        let table = Arc::clone(&self.table);
        let mut shares = Prefetch::start(table, sampler, rank, 0..recipe.steps).unwrap();
        let mut losses = Vec::new();
        while let Some(share) = shares.next_share() {
            let report = trainer.step(&share, 1e-3)?;
            if let Some(ClipSpec::GlobalNorm(limit)) = recipe.clip {
                assert!(report.gradient_norm.unwrap() > limit, "nothing is clipped");
            }
            losses.push(report.loss);
            shares.recycle(share);
        }
        let variable = |(name, shape, values)| Variable {
            name,
            shape,
            values,
        };
        let weights = trainer.tensors().into_iter().map(variable).collect();
        Ok((losses, weights))
    }

    /// What `world` thread ranks come to.
    pub(crate) fn train_threads(
        &self,
        (world, collective): (usize, CollectiveChoice),
        recipe: &Recipe,
    ) -> Trained {
        let options = Options::default().with_collective(collective);
        let connects = connect_threads(world, &options).unwrap();
        let body = |reducer: Reducer| self.train(reducer, recipe);
        run_threads(connects, body).unwrap().swap_remove(0)
    }
}

/// Largest difference of any weight over the largest weight.
pub(crate) fn distance(a: &[Variable], b: &[Variable]) -> f64 {
    let (mut difference, mut largest) = (0f64, 0f64);
    for (a, b) in a.iter().zip(b) {
        assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
        for (&a, &b) in a.values.iter().zip(&b.values) {
            difference = difference.max(f64::from((a - b).abs()));
            largest = largest.max(f64::from(b.abs()));
        }
    }
    difference / largest
}

//! The digits network against TensorFlow: the same weights at the start, the same losses on the way.

use std::path::Path;
use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::checkpoint::{Checkpoint, Facts, Named, Retention, Writer};
use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::data::{CsvSource, DataConfig, Prefetch, Sampler, Source, Split, Task, load};
use ringstep::layers::{ActivationSpec, Build, Conv2D, Dense, LayerSpec};
use ringstep::models::{LossReduction, LossSpec, Sequential};
use ringstep::optim::{Adam, OptimizerSpec};
use ringstep::train::{Reducer, Trainer, TrainerOptions, connect_threads, run_threads};

use CollectiveChoice::{Auto, Ring};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// A stored variable: a run of a blob, or one value everywhere.
struct Variable {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The variables of a manifest, under the names this project gives them.
fn variables(name: &str) -> Vec<Variable> {
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

/// Losses of 90 steps, and the weights after them.
fn train(
    (world, collective): (usize, CollectiveChoice),
    reduce: ReduceMode,
    micro_batch: usize,
) -> (Vec<f64>, Vec<Variable>) {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    let config = DataConfig {
        source: Source::Csv(CsvSource {
            train: digits.join("train.csv"),
            test: None,
            label: "digit".to_owned(),
            weight: None,
            classes: None,
        }),
        shape: Some([8, 8, 1].into()),
        scale: 0.0625,
        shuffle: false,
    };
    let table = Arc::new(load(&config, Task::Classification, Split::Train, None).unwrap());
    let layers: Vec<LayerSpec> = vec![
        Conv2D::new(32, 3).activation(ActivationSpec::Relu).into(),
        serde_json::from_str(r#""max_pooling2d""#).unwrap(),
        serde_json::from_str(r#""flatten""#).unwrap(),
        Dense::new(128).activation(ActivationSpec::Relu).into(),
        Dense::new(10).activation(ActivationSpec::Softmax).into(),
    ];
    let loss = LossSpec::SoftmaxCrossEntropy(Default::default());
    let folder = tempfile::tempdir().unwrap();
    let start = variables("cnn_digits_init");
    let named: Vec<_> = start
        .iter()
        .map(
            |Variable {
                 name,
                 shape,
                 values,
             }| Named {
                name,
                shape,
                values,
            },
        )
        .collect();
    let retention = Retention {
        last: 1,
        best: None,
    };
    let writer = Writer::begin(folder.path(), 0).unwrap();
    let saved = writer
        .finish(&Facts::default(), &named, 0, &retention)
        .unwrap();

    let body = |reducer: Reducer| {
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, micro_batch);
        let model = Sequential::new(build, &layers, &table.description(), &loss).unwrap();
        let options = TrainerOptions {
            seed: 0,
            micro_batch,
            micro_batches: 32_usize.div_ceil(micro_batch),
            reduce,
            bucket_bytes: 64 << 10,
            sharded: false,
            loss_reduction: LossReduction::Mean,
            optimizer: OptimizerSpec::from(Adam::default()),
            clip: None,
        };
        let rank = (reducer.rank(), reducer.world());
        let mut trainer = Trainer::new(backend, model, options, reducer)?;
        trainer.restore_model(&Checkpoint::open(&saved)?)?;
        let sampler = Sampler {
            rows: table.rows,
            global_batch: 32,
            micro_batch,
            seed: 0,
            shuffle: false,
        };
        let mut shares = Prefetch::start(Arc::clone(&table), sampler, rank, 0..90).unwrap();
        let mut losses = Vec::new();
        while let Some(share) = shares.next_share() {
            losses.push(trainer.step(&share, 1e-3)?.loss);
            shares.recycle(share);
        }
        Ok::<_, ringstep::train::TrainError>((losses, trainer.tensors()))
    };
    let connects = connect_threads(world, &Options::default().with_collective(collective)).unwrap();
    let (losses, tensors) = run_threads(connects, body).unwrap().swap_remove(0);
    let variable = |(name, shape, values)| Variable {
        name,
        shape,
        values,
    };
    (losses, tensors.into_iter().map(variable).collect())
}

fn golden_losses() -> Vec<f64> {
    let text = std::fs::read_to_string(format!("{GOLDEN}/cnn_digits_parity.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    golden["train_loss"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| loss.as_f64().unwrap())
        .collect()
}

/// Largest difference of any weight over the largest weight.
fn distance(a: &[Variable], b: &[Variable]) -> f64 {
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

/// Norm of all differences over the norm of all weights.
fn relative_norm(a: &[Variable], b: &[Variable]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        for (&a, &b) in a.values.iter().zip(&b.values) {
            difference += f64::from(a - b).powi(2);
            norm += f64::from(b).powi(2);
        }
    }
    (difference / norm).sqrt()
}

#[test]
fn losses_follow_tensorflow_for_ninety_steps() {
    let golden = golden_losses();
    for (ranks, reduce, micro_batch) in [
        ((1, Auto), ReduceMode::F32, 32),
        ((1, Auto), ReduceMode::Exact, 32),
        ((2, Auto), ReduceMode::Exact, 8),
        ((2, Ring), ReduceMode::Exact, 8),
        ((3, Ring), ReduceMode::Exact, 8),
        ((4, Ring), ReduceMode::Exact, 8),
        ((2, Ring), ReduceMode::F32, 8),
        ((3, Ring), ReduceMode::F32, 8),
        ((4, Ring), ReduceMode::F32, 8),
    ] {
        let (losses, weights) = train(ranks, reduce, micro_batch);
        assert_eq!(losses.len(), golden.len());
        for (step, (loss, golden)) in losses.iter().zip(&golden).enumerate() {
            let error = (loss - golden).abs() / golden;
            assert!(
                error < 1e-4,
                "step {step} of {ranks:?}, {reduce:?}: {loss} against {golden}"
            );
        }
        // Adam divides by the gradient's own size, so a weight whose gradient is but rounding moves
        // at random; the weights as a whole do not.
        let distance = relative_norm(&weights, &variables("cnn_digits_final"));
        assert!(
            distance < 1e-3,
            "{ranks:?}, {reduce:?}: weights are {distance} apart"
        );
    }
}

#[test]
fn float_sums_of_several_ranks_stay_close_to_one_rank() {
    let (_, one) = train((1, Auto), ReduceMode::F32, 8);
    for ranks in [(4, Auto), (2, Ring), (3, Ring), (4, Ring)] {
        let (_, several) = train(ranks, ReduceMode::F32, 8);
        let distance = distance(&several, &one);
        assert!(distance < 1e-5, "{ranks:?}: weights are {distance} apart");
    }
}

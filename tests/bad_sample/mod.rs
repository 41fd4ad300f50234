//! Training with one sample that is not like the others, whatever carries the sums: a body that one rank
//! runs, which asserts that the rank stops and names the rank that had the sample.

use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::comm::ReduceMode;
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossSpec, Sequential};
use ringstep::optim::Adam;
use ringstep::params::partition;
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions};

/// What the sample has for a feature, and what is not finite then. Losses are added in double precision, so
/// that the last overflows in the gradient only.
pub(crate) const SAMPLES: [(f32, &str); 3] = [
    (f32::NAN, "loss"),
    (f32::INFINITY, "loss"),
    (1e25, "gradient"),
];

/// Rows of a micro-batch, of a global batch, and the row that is not like the others: one of the
/// second step's.
const MICRO_BATCH: usize = 4;
const GLOBAL_BATCH: usize = 24;
const BAD_ROW: usize = 24 + 13;

/// Two features and a target each; in [`BAD_ROW`] the first feature is `bad`.
fn table(bad: f32) -> Arc<Table> {
    let rows = 2 * GLOBAL_BATCH;
    let mut features: Vec<f32> = (0..rows * 2).map(|i| (i as f32 * 0.7).sin()).collect();
    features[BAD_ROW * 2] = bad;
    Arc::new(Table {
        features,
        targets: (0..rows).map(|row| (row % 5) as f32).collect(),
        ..Table::empty([2].into(), Targets::Numbers(1), rows)
    })
}

/// Two steps, in the order of the table.
fn train(reducer: Reducer, table: Arc<Table>, reduce: ReduceMode) -> Result<(), TrainError> {
    let layers: Vec<LayerSpec> =
        serde_json::from_str(r#"[{"kind": "dense", "units": 1}]"#).unwrap();
    let mut backend = Cpu::new();
    let build = Build::new(&mut backend, MICRO_BATCH);
    let loss = LossSpec::SquaredError(Default::default());
    let model = Sequential::new(build, &layers, &table.description(), &loss)?;
    let options = TrainerOptions {
        seed: 3,
        reduce,
        bucket_bytes: 1 << 10,
        ..TrainerOptions::new(MICRO_BATCH, GLOBAL_BATCH / MICRO_BATCH, Adam::default())
    };
    let rank = (reducer.rank(), reducer.world());
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let sampler = Sampler {
        rows: table.rows,
        global_batch: GLOBAL_BATCH,
        micro_batch: MICRO_BATCH,
        seed: 3,
        shuffle: false,
        ..Sampler::default()
    };
    let mut shares = Prefetch::start(table, sampler, rank, 0..2).unwrap();
    while let Some(share) = shares.next_share() {
        trainer.step(&share, 1e-2)?;
        shares.recycle(share);
    }
    Ok(())
}

/// Trains, and asserts how that ends.
pub(crate) fn stops(
    reducer: Reducer,
    reduce: ReduceMode,
    (bad, expected): (f32, &str),
) -> Result<(), TrainError> {
    let (own, world) = (reducer.rank(), reducer.world());
    let error = train(reducer, table(bad), reduce).unwrap_err();
    let text = error.to_string();
    let case = format!("rank {own} of {world}, {reduce:?}: {text}");
    let TrainError::NotFinite {
        step,
        what,
        rank,
        tensor,
        ..
    } = error
    else {
        panic!("{case}")
    };
    let index = BAD_ROW % GLOBAL_BATCH / MICRO_BATCH;
    let count = GLOBAL_BATCH / MICRO_BATCH;
    let owner = (0..world).find(|&rank| partition(count, world, rank).contains(&index));
    assert_eq!((step, what, Some(rank)), (2, expected, owner), "{case}");
    assert_eq!(tensor, "gradient of 'dense/kernel'", "{case}");
    assert!(text.contains(&format!("rank {rank}")), "{case}");
    Ok(())
}

//! Training step by step, whatever carries the sums: a body that one rank runs, which asserts after
//! every step that all ranks hold the same bits and that each computed its share.

use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::comm::ReduceMode;
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossSpec, Sequential};
use ringstep::optim::{Adam, ClipSpec};
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions};

use crate::collectives::gather;

/// Widths that no bucket and no world divides, moving statistics, and numbers drawn at random.
const LAYERS: &str = r#"[
    {"kind": "dense", "units": 37, "activation": "tanh"},
    "batch_normalization",
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense", "units": 19, "activation": "relu"},
    {"kind": "dense", "units": 3, "activation": "softmax"}
]"#;

/// A global batch is five micro-batches, the last of an epoch three, of which one is short.
const ROWS: usize = 51;
const GLOBAL_BATCH: usize = 20;
const MICRO_BATCH: usize = 4;
const STEPS: u64 = 12;

/// So small that every gradient is clipped.
const NORM: f64 = 0.01;

fn table() -> Arc<Table> {
    let classes = (0..3).map(|class| class.to_string()).collect();
    let noise = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.0;
    Arc::new(Table {
        features: (0..ROWS * 11).map(noise).collect(),
        targets: (0..ROWS).map(|row| (row % 3) as f32).collect(),
        ..Table::empty([11].into(), Targets::Classes(classes), ROWS)
    })
}

/// Trains with Adam, clipped, in small buckets.
pub(crate) fn train(reducer: Reducer, reduce: ReduceMode, sharded: bool) -> Result<(), TrainError> {
    let table = table();
    let layers: Vec<LayerSpec> = serde_json::from_str(LAYERS).unwrap();
    let loss = LossSpec::SoftmaxCrossEntropy(Default::default());
    let mut backend = Cpu::new();
    let build = Build::new(&mut backend, MICRO_BATCH);
    let model = Sequential::new(build, &layers, &table.description(), &loss)?;
    let options = TrainerOptions {
        seed: 3,
        reduce,
        bucket_bytes: 1 << 10,
        sharded,
        clip: Some(ClipSpec::GlobalNorm(NORM)),
        ..TrainerOptions::new(
            MICRO_BATCH,
            GLOBAL_BATCH.div_ceil(MICRO_BATCH),
            Adam::default(),
        )
    };
    let rank = (reducer.rank(), reducer.world());
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let sampler = Sampler {
        rows: ROWS,
        global_batch: GLOBAL_BATCH,
        micro_batch: MICRO_BATCH,
        seed: 3,
        shuffle: true,
        ..Sampler::default()
    };
    let mut shares = Prefetch::start(table, sampler, rank, 0..STEPS).unwrap();
    let mut before = digest(&mut trainer);
    while let Some(share) = shares.next_share() {
        let report = trainer.step(&share, 1e-2)?;
        let what = format!(
            "{reduce:?}, step {}, rank {} of {}",
            share.step, rank.0, rank.1
        );
        let norm = report.gradient_norm.unwrap();
        assert!(norm > NORM, "{what}: a norm of {norm} is not clipped");

        let after = digest(&mut trainer);
        assert_ne!(after, before, "{what}: nothing moved");
        before = after;
        for (name, bits) in [
            ("weights", after),
            ("loss", report.loss.to_bits()),
            ("norm", norm.to_bits()),
        ] {
            let all = gather_all(&mut trainer, bits)?;
            assert!(
                all.iter().all(|&bits| bits == all[0]),
                "{what}: {name} differ: {all:x?}"
            );
        }

        let micro_batches = if share.total_rows == GLOBAL_BATCH {
            5
        } else {
            3
        };
        let counts = gather_all(&mut trainer, report.micro_batches as u64)?;
        let (floor, ceil) = (micro_batches / rank.1, micro_batches.div_ceil(rank.1));
        let fair = |&count: &u64| count == floor as u64 || count == ceil as u64;
        assert!(
            counts.iter().all(fair),
            "{what}: {micro_batches} in shares of {counts:?}"
        );
        assert_eq!(counts.iter().sum::<u64>(), micro_batches as u64, "{what}");
        assert_eq!(report.totals.rows, share.total_rows as f64, "{what}");
        shares.recycle(share);
    }
    assert_eq!(trainer.global_step(), STEPS);
    Ok(())
}

/// A hash of the bits of all parameters and moving statistics.
fn digest(trainer: &mut Trainer<Cpu, Sequential<Cpu>>) -> u64 {
    let tensors = trainer.tensors();
    let values = tensors.iter().flat_map(|(_, _, values)| values);
    values.fold(0xcbf2_9ce4_8422_2325, |hash: u64, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

/// `value` of every rank.
fn gather_all(
    trainer: &mut Trainer<Cpu, Sequential<Cpu>>,
    value: u64,
) -> Result<Vec<u64>, TrainError> {
    let work =
        move |communicator: &mut dyn ringstep::comm::Communicator| gather(communicator, value);
    Ok(trainer.reducer().call(work)?)
}

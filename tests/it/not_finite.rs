//! Values that are not finite: all ranks stop at once, say whose they are, and save none.

use std::fs;
use std::sync::{Arc, Mutex};

use ringstep::backend::cpu::Cpu;
use ringstep::checkpoint::Checkpoint;
use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::config::{Override, RunConfig};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossReduction, LossSpec, Sequential};
use ringstep::optim::{Adam, OptimizerSpec};
use ringstep::params::partition;
use ringstep::train::{
    Begin, Bits, Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads,
};

use crate::robustness::{houses, session};

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
        micro_batch: MICRO_BATCH,
        micro_batches: GLOBAL_BATCH / MICRO_BATCH,
        reduce,
        bucket_bytes: 1 << 10,
        sharded: false,
        loss_reduction: LossReduction::Mean,
        optimizer: OptimizerSpec::from(Adam::default()),
        clip: None,
        loss_scale: None,
    };
    let rank = (reducer.rank(), reducer.world());
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let sampler = Sampler {
        rows: table.rows,
        global_batch: GLOBAL_BATCH,
        micro_batch: MICRO_BATCH,
        seed: 3,
        shuffle: false,
    };
    let mut shares = Prefetch::start(table, sampler, rank, 0..2).unwrap();
    while let Some(share) = shares.next_share() {
        trainer.step(&share, 1e-2)?;
        shares.recycle(share);
    }
    Ok(())
}

#[test]
fn one_sample_that_is_not_finite_stops_every_rank_with_the_name_of_its_rank() {
    use CollectiveChoice::{Auto, Ring};
    let index = BAD_ROW % GLOBAL_BATCH / MICRO_BATCH;
    // Losses are added in double precision; the last overflows only in the gradient.
    for (bad, expected) in [
        (f32::NAN, "loss"),
        (f32::INFINITY, "loss"),
        (1e25, "gradient"),
    ] {
        for reduce in [ReduceMode::Exact, ReduceMode::F32, ReduceMode::Bf16] {
            for (world, collective) in [(2, Auto), (3, Auto), (4, Auto), (2, Ring), (4, Ring)] {
                let errors = Mutex::new(Vec::new());
                let body = |reducer: Reducer| {
                    let result = train(reducer, table(bad), reduce);
                    let error = result.as_ref().unwrap_err();
                    let TrainError::NotFinite {
                        step,
                        what,
                        rank,
                        tensor,
                        ..
                    } = error
                    else {
                        panic!("{error}")
                    };
                    let place = (*step, *what, *rank, tensor.clone());
                    errors.lock().unwrap().push((place, error.to_string()));
                    result
                };
                let options = Options::default().with_collective(collective);
                run_threads(connect_threads(world, &options).unwrap(), body).unwrap_err();
                let count = GLOBAL_BATCH / MICRO_BATCH;
                let owner = (0..world).find(|&rank| partition(count, world, rank).contains(&index));
                let errors = errors.into_inner().unwrap();
                assert_eq!(errors.len(), world);
                for ((step, what, rank, tensor), text) in errors {
                    let case = format!("{reduce:?}, {world} ranks, {collective:?}: {text}");
                    assert_eq!((step, what, Some(rank)), (2, expected, owner), "{case}");
                    assert_eq!(tensor, "gradient of 'dense/kernel'", "{case}");
                    assert!(text.contains(&format!("rank {rank}")), "{case}");
                }
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_all_ranks_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    houses(folder.path());
    let optimizer = r#"train.optimizer={kind="sgd",learning_rate=1e24}"#;
    let session = session(folder.path(), 3, &[optimizer]);
    let error = session.train().unwrap_err();
    let TrainError::NotFinite { step, tensor, .. } = &error else {
        panic!("{error}")
    };
    assert!(*step > 1 && !tensor.is_empty());
    let text = error.to_string();
    assert!(
        text.contains("rank") && text.contains("not applied"),
        "{text}"
    );
    let kept = session
        .folder
        .join(format!("checkpoints/step-{}", step - 1));
    assert!(
        kept.is_dir(),
        "the checkpoint before the failed step is kept"
    );
}

#[test]
fn a_statistic_that_is_not_finite_stops_all_ranks_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    houses(folder.path());
    // The variance overflows; what is divided by its root is zero, and so the loss is finite.
    let layers = r#"model.layers=[{kind="batch_normalization"},{kind="dense",units=1}]"#;
    let session = session(folder.path(), 3, &["data.scale=1e19", layers]);
    let error = session.train().unwrap_err();
    let TrainError::NotFinite { what, tensor, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*what, "statistic");
    assert_eq!(tensor, "what 'batch_normalization/moving_variance' follows");
}

#[test]
fn what_is_not_finite_is_not_saved() {
    for (zero, reduce) in [(0, "exact"), (1, "exact"), (1, "f32")] {
        let folder = tempfile::tempdir().unwrap();
        houses(folder.path());
        let zero = format!("train.zero={zero}");
        let reduce = format!("train.reduce=\"{reduce}\"");
        let overrides = ["train.keep=1", "train.epochs=1", &zero, &reduce];
        let mut session = session(folder.path(), 3, &overrides);
        session.train().unwrap();
        let kept = session.folder.join("checkpoints/step-6");
        assert!(kept.is_dir());

        // Gradients whose squares are infinite: finite loss, but no second moment any more.
        let data = fs::read_to_string(folder.path().join("houses.csv")).unwrap();
        let data = data.replace("1000,900,", "1e15,900,");
        fs::write(folder.path().join("houses.csv"), data).unwrap();
        let text = ["train.epochs=2"];
        let overrides = [&overrides[..], &text].concat();
        let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
        session.config = RunConfig::load(&folder.path().join("run.toml"), &overrides).unwrap();
        session.begin = Begin::Resume(Bits::MayDiffer);
        let error = session.train().unwrap_err();
        let text = error.to_string();
        let TrainError::Diverged { tensor, .. } = error else {
            panic!("{text}")
        };
        assert_eq!(tensor, "the optimizer's v of 'dense/kernel'");
        assert!(
            text.contains("not saved") && text.contains("--resume"),
            "{text}"
        );
        let left: Vec<_> = fs::read_dir(session.folder.join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.len() == 1, "{left:?}");
        Checkpoint::newest(&session.folder.join("checkpoints"))
            .unwrap()
            .checkpoint
            .unwrap();
    }
}

//! Whole runs: what the number of ranks, buckets and sharding may not change.

use std::fs;
use std::path::Path;

use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::config::{Override, RunConfig};
use ringstep::train::{
    Begin, Bits, Existing, Outcome, Ranks, Session, TrainError, connect_threads, run_threads,
};
use sha2::{Digest, Sha256};

use crate::lockstep;

/// A small convolutional network on digits with everything that could tell ranks apart: dropout,
/// batch normalisation, clipping, a short last batch, micro-batches that do not divide.
fn run_file() -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    format!(
        r#"
[data]
format = "csv"
train = "{0}/train.csv"
test = "{0}/test.csv"
label = "digit"
shape = [8, 8, 1]
scale = 0.0625

[model]
loss = "softmax_cross_entropy"

[[model.layers]]
kind = "conv2d"
filters = 8
kernel_size = 3
activation = "relu"

[[model.layers]]
kind = "batch_normalization"

[[model.layers]]
kind = "max_pooling2d"

[[model.layers]]
kind = "flatten"

[[model.layers]]
kind = "dense"
units = 32
activation = "relu"

[[model.layers]]
kind = "dropout"
rate = 0.2

[[model.layers]]
kind = "dense"
units = 10
activation = "softmax"

[train]
device = "cpu"
global_batch = 100
micro_batch = 16
steps = 20
optimizer = "adam"
clip = {{ global_norm = 1.0 }}
reduce = "exact"
log_every = 1
"#,
        data.display()
    )
}

pub(crate) struct Trained {
    pub(crate) outcome: Outcome,
    pub(crate) digest: String,
    pub(crate) losses: Vec<f64>,
}

/// Runs `session` and hashes the weights of its last checkpoint.
pub(crate) fn finish(session: &Session) -> Result<Trained, TrainError> {
    let outcome = session.train()?;
    let checkpoint = session
        .folder
        .join(format!("checkpoints/step-{}", outcome.step));
    let weights = fs::read(checkpoint.join("model.safetensors")).unwrap();
    let digest = Sha256::digest(&weights)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let metrics = ringstep::train::read_metrics(&session.folder.join("metrics.jsonl")).unwrap();
    let loss = |record: &ringstep::train::Record| match record {
        ringstep::train::Record::Train(train) => Some(train.loss),
        _ => None,
    };
    let losses = metrics.iter().filter_map(loss).collect();
    Ok(Trained {
        outcome,
        digest,
        losses,
    })
}

fn session(folder: &Path, world: usize, overrides: &[&str]) -> Session {
    let file = folder.join("run.toml");
    fs::write(&file, run_file()).unwrap();
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&file, &overrides).unwrap();
    let begin = Begin::New(Existing::Keep);
    Session::new(config, folder.join("run"), begin, Ranks::Threads(world))
}

pub(crate) fn train(world: usize, overrides: &[&str]) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    finish(&session(folder.path(), world, overrides)).unwrap()
}

#[test]
fn the_number_of_ranks_does_not_change_a_bit() {
    let one = train(1, &[]);
    assert_eq!(one.losses.len(), 20);
    assert!(one.losses[19] < one.losses[0]);
    for world in [2, 3, 4, 5, 8] {
        let many = train(world, &[]);
        assert_eq!(many.digest, one.digest, "{world} ranks");
        assert_eq!(many.losses, one.losses, "{world} ranks");
        assert_eq!(many.outcome.metrics, one.outcome.metrics, "{world} ranks");
    }
}

#[test]
fn buckets_collectives_and_sharding_do_not_change_a_bit() {
    let one = train(1, &[]).digest;
    for overrides in [
        &["train.bucket_mib=0.0009765625"][..],
        &["train.bucket_mib=0.0625"],
        &["train.zero=1"],
        &["train.zero=1", "train.bucket_mib=0.0009765625"],
    ] {
        assert_eq!(train(3, overrides).digest, one, "{overrides:?}");
    }
    for world in [2, 3, 4] {
        for overrides in [
            &["train.collective=ring"][..],
            &["train.collective=ring", "train.zero=1"],
            &["train.collective=ring", "train.bucket_mib=0.0009765625"],
        ] {
            let found = train(world, overrides).digest;
            assert_eq!(found, one, "{world} ranks, {overrides:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = session(folder.path(), 4, &["train.collective=hierarchical"]);
    hosts.comm.hosts = vec![3, 1];
    assert_eq!(finish(&hosts).unwrap().digest, one, "two pretended hosts");
}

#[test]
fn sharding_changes_nothing_where_sums_are_floats() {
    for optimizer in ["adam", "lamb"] {
        for (world, collective) in [(3, "auto"), (2, "ring"), (3, "ring"), (4, "ring")] {
            let optimizer = format!("train.optimizer={optimizer}");
            let collective = format!("train.collective={collective}");
            let common = ["train.reduce=f32", &optimizer, &collective];
            let replicated = train(world, &common);
            let sharded = train(world, &[&common[..], &["train.zero=1"]].concat());
            let what = format!("{world} ranks, {optimizer}, {collective}");
            assert_eq!(sharded.digest, replicated.digest, "{what}");
            assert_eq!(sharded.losses, replicated.losses, "{what}");
        }
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks_as_if_nothing_had_happened() {
    let whole = train(1, &[]).digest;
    for (zero_before, zero_after, collective) in [
        ("0", "0", "auto"),
        ("1", "0", "auto"),
        ("0", "1", "auto"),
        ("1", "1", "auto"),
        ("1", "1", "ring"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let collective = format!("train.collective={collective}");
        let zero = format!("train.zero={zero_before}");
        let first = session(folder.path(), 4, &["train.steps=9", &zero, &collective]);
        finish(&first).unwrap();
        let zero = format!("train.zero={zero_after}");
        let second = session(folder.path(), 3, &[&zero, &collective]);
        let resumed = finish(&Session {
            begin: Begin::Resume(Bits::Same),
            ..second
        })
        .unwrap();
        assert_eq!(resumed.outcome.step, 20);
        assert_eq!(
            resumed.digest, whole,
            "zero {zero_before} then {zero_after}, {collective}"
        );
    }
}

#[test]
fn all_ranks_hold_equal_bits_after_every_step_and_compute_their_shares() {
    // Eight ranks are more than there are micro-batches.
    for world in [1, 2, 3, 4, 8] {
        for collective in [CollectiveChoice::Auto, CollectiveChoice::Ring] {
            for reduce in [ReduceMode::F32, ReduceMode::Bf16, ReduceMode::Exact] {
                for sharded in [false, true] {
                    let options = Options::default().with_collective(collective);
                    let connects = connect_threads(world, &options).unwrap();
                    let body = |reducer| lockstep::train(reducer, reduce, sharded);
                    run_threads(connects, body).unwrap();
                }
            }
        }
    }
}

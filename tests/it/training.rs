//! Whole runs: what the number of ranks, buckets and sharding may not change.

use std::fs;
use std::path::Path;

use ringstep::comm::{CollectiveChoice, Options};
use ringstep::config::{Override, RunConfig};
use ringstep::train::{Begin, Bits, Console, Existing, Outcome, Ranks, Session, TrainError};
use sha2::{Digest, Sha256};

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

struct Trained {
    outcome: Outcome,
    digest: String,
    losses: Vec<f64>,
}

/// Runs `session` and hashes the weights of its last checkpoint.
fn finish(session: &Session) -> Result<Trained, TrainError> {
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
    Session {
        folder: folder.join("run"),
        begin: Begin::New(Existing::Keep),
        ranks: Ranks::Threads(world),
        comm: Options::default().with_collective(config.train.collective),
        console: Console::quiet(),
        config,
    }
}

fn train(world: usize, overrides: &[&str]) -> Trained {
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
        &["train.collective=ring"],
        &["train.collective=ring", "train.zero=1"],
    ] {
        assert_eq!(train(3, overrides).digest, one, "{overrides:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut hosts = session(folder.path(), 4, &[]);
    hosts.comm = Options {
        collective: CollectiveChoice::Hierarchical,
        hosts: vec![3, 1],
        ..Options::default()
    };
    assert_eq!(finish(&hosts).unwrap().digest, one, "two pretended hosts");
}

#[test]
fn sharding_changes_nothing_where_sums_are_floats() {
    for optimizer in ["adam", "lamb"] {
        let optimizer = format!("train.optimizer={optimizer}");
        let replicated = train(3, &["train.reduce=f32", &optimizer]);
        let sharded = train(3, &["train.reduce=f32", &optimizer, "train.zero=1"]);
        assert_eq!(sharded.digest, replicated.digest, "{optimizer}");
        assert_eq!(sharded.losses, replicated.losses, "{optimizer}");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks_as_if_nothing_had_happened() {
    let whole = train(1, &[]).digest;
    for (zero_before, zero_after) in [("0", "0"), ("1", "0"), ("0", "1"), ("1", "1")] {
        let folder = tempfile::tempdir().unwrap();
        let zero = format!("train.zero={zero_before}");
        let first = session(folder.path(), 4, &["train.steps=9", &zero]);
        finish(&first).unwrap();
        let zero = format!("train.zero={zero_after}");
        let second = session(folder.path(), 3, &[&zero]);
        let resumed = finish(&Session {
            begin: Begin::Resume(Bits::Same),
            ..second
        })
        .unwrap();
        assert_eq!(resumed.outcome.step, 20);
        assert_eq!(
            resumed.digest, whole,
            "zero {zero_before} then {zero_after}"
        );
    }
}

#[test]
fn each_rank_computes_floor_or_ceil_of_its_share() {
    // 100 rows in micro-batches of 16 are 7; of 4 ranks the first three have 2, the last 1.
    let outcome = train(4, &[]).outcome;
    assert!((1..=2).contains(&outcome.micro_batches));
}

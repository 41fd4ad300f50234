//! Whole runs in every precision: how near they come to f32, and what must not change their bits.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use ringstep::checkpoint::Checkpoint;
use ringstep::config::{Override, RunConfig};
use ringstep::train::{Begin, Bits, Existing, Ranks, Record, Session, TrainRecord, read_metrics};

use crate::commands::output;
use crate::training::{self, Trained, finish};

/// A regression whose gradients are beyond f16 until 2^15 has been halved some times.
fn houses(folder: &Path) {
    let mut rows = "area,distance,price\n".to_owned();
    for row in 0..90 {
        let (area, distance) = (f64::from(row % 17) / 17.0, f64::from(row % 23) / 23.0);
        let price = 150.0 * area - 40.0 * distance + 20.0;
        writeln!(rows, "{area},{distance},{price}").unwrap();
    }
    fs::write(folder.join("houses.csv"), rows).unwrap();
    let run = r#"
[data]
format = "csv"
train = "houses.csv"
test = "houses.csv"
label = "price"

[model]
loss = "squared_error"
layers = [
    { kind = "dense", units = 6, activation = "tanh" },
    "batch_normalization",
    { kind = "dense", units = 1 },
]

[train]
device = "cpu"
precision = "f16"
global_batch = 20
micro_batch = 4
steps = 24
optimizer = { kind = "adam", learning_rate = 0.3 }
clip = { global_norm = 5.0 }
log_every = 1
evaluate_every = 0
checkpoint_every = 0
"#;
    fs::write(folder.join("run.toml"), run).unwrap();
}

fn session(folder: &Path, world: usize, begin: Begin, overrides: &[&str]) -> Session {
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&folder.join("run.toml"), &overrides).unwrap();
    Session::new(config, folder.join("run"), begin, Ranks::Threads(world))
}

/// Trains anew.
fn train(folder: &Path, world: usize, overrides: &[&str]) -> Trained {
    finish(&session(
        folder,
        world,
        Begin::New(Existing::Replace),
        overrides,
    ))
    .unwrap()
}

/// The logged steps.
fn records(folder: &Path) -> Vec<TrainRecord> {
    let records = read_metrics(&folder.join("run/metrics.jsonl")).unwrap();
    let trained = |record| match record {
        Record::Train(record) => Some(record),
        _ => None,
    };
    records.into_iter().filter_map(trained).collect()
}

#[test]
fn a_convolutional_network_comes_near_the_loss_of_f32() {
    let common = ["train.steps=150", "train.evaluate_every=0"];
    let plain = training::train(1, &common);
    let mean = |losses: &[f64]| losses[100..].iter().sum::<f64>() / 50.0;
    // Of f16 some steps were not applied, and so it is as many steps of the loss's fall behind.
    for (precision, near) in [("tf32", 0.002), ("bf16", 0.01), ("f16", 0.06)] {
        let set = format!("train.precision={precision}");
        let rounded = training::train(1, &[common[0], common[1], &set]);
        assert_ne!(rounded.digest, plain.digest, "{precision} rounds nothing");
        let (rounded, plain) = (mean(&rounded.losses), mean(&plain.losses));
        let apart = (rounded / plain - 1.0).abs();
        assert!(apart < near, "{precision}: {rounded}, f32: {plain}");
    }
}

#[test]
fn the_number_of_ranks_does_not_change_a_bit_of_rounded_products() {
    for precision in ["bf16", "f16"] {
        let precision = format!("train.precision={precision}");
        let one = training::train(1, &[&precision]);
        for (world, others) in [
            (2, &[][..]),
            (3, &["train.zero=1"]),
            (3, &["train.collective=ring"]),
        ] {
            let many = training::train(world, &[&[&*precision], others].concat());
            assert_eq!(
                many.digest, one.digest,
                "{precision}, {world} ranks, {others:?}"
            );
            assert_eq!(many.losses, one.losses);
            assert_eq!(many.outcome.metrics, one.outcome.metrics);
        }
    }
}

#[test]
fn overflows_are_logged_and_change_no_bit_on_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    houses(folder);
    let one = train(folder, 1, &[]);
    let logged = records(folder);
    let skipped = logged
        .iter()
        .filter_map(|record| record.skipped)
        .sum::<u32>();
    assert!((5..=12).contains(&skipped), "{skipped} steps skipped");
    let mut factor = 32768.0;
    for record in &logged {
        assert_eq!(record.loss_scale, Some(factor), "{}", record.step);
        factor /= 2f64.powi(record.skipped.unwrap() as i32);
    }
    assert!(one.losses[23] < one.losses[0] / 2.0, "{:?}", one.losses);
    for (world, overrides) in [
        (3, &[][..]),
        (2, &["train.collective=ring", "train.log_every=6"]),
        (5, &["train.zero=1"]),
    ] {
        let many = train(folder, world, overrides);
        assert_eq!(many.digest, one.digest, "{world} ranks, {overrides:?}");
        let logged = records(folder)
            .into_iter()
            .filter_map(|record| record.skipped);
        assert_eq!(logged.sum::<u32>(), skipped);
    }
}

#[test]
fn a_resumed_run_keeps_the_factor_and_what_was_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    houses(folder);
    let whole = train(folder, 1, &[]).digest;
    train(folder, 3, &["train.steps=12"]);
    let newest = Checkpoint::newest(&folder.join("run/checkpoints")).unwrap();
    let facts = newest.checkpoint.unwrap().facts().clone();
    let factor = facts.loss_scale.unwrap().factor();
    assert_eq!(factor, 2f64.powi(15 - facts.skipped_steps as i32));
    assert!(factor < 32768.0);
    let resumed = session(folder, 2, Begin::Resume(Bits::Same), &[]);
    assert_eq!(finish(&resumed).unwrap().digest, whole);
    let logged = records(folder);
    assert_eq!(logged.len(), 24);
}

#[test]
fn two_thousand_steps_without_overflow_double_the_factor() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    houses(folder);
    train(folder, 1, &["train.steps=2600"]);
    let logged = records(folder);
    let factor = |index: usize| logged[index].loss_scale.unwrap();
    let doubled = (1..logged.len()).find(|&index| factor(index) > factor(index - 1));
    let doubled = doubled.unwrap();
    assert_eq!(factor(doubled), 2.0 * factor(doubled - 1));
    let before = logged[..doubled].iter().rev();
    let finite = before.take_while(|record| record.skipped == Some(0));
    assert_eq!(finite.count(), 2000);
}

#[test]
fn a_run_is_evaluated_in_the_precision_it_was_trained_in() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    houses(folder);
    let trained = output(
        folder,
        &[
            "train",
            "run.toml",
            "--run-dir",
            "run",
            "--precision",
            "bf16",
        ],
    );
    let evaluate = || {
        let table = output(folder, &["evaluate", "run"]);
        let row = table.lines().nth(1).unwrap();
        row.split_whitespace().nth(4).unwrap().to_owned()
    };
    let loss = |line: &str| Some(line.strip_prefix("test_loss")?.trim().to_owned());
    let trained = trained.lines().find_map(loss).unwrap();
    assert_eq!(evaluate(), trained);
    let config = fs::read_to_string(folder.join("run/config.toml")).unwrap();
    let rewritten = config.replace("precision = \"bf16\"", "precision = \"f32\"");
    assert_ne!(rewritten, config);
    fs::write(folder.join("run/config.toml"), rewritten).unwrap();
    assert_ne!(evaluate(), trained);
}

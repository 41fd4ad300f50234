//! Run files: what they mean, and what is said about mistakes in them.

mod columns;
mod estimators;
mod mistakes;
mod ranges;

use std::fs;

use ringstep::backend::{DeviceChoice, MatmulChoice, Precision};
use ringstep::comm::ReduceMode;
use ringstep::config::{
    Architecture, Cadence, Goal, Keep, Length, Measure, Override, RunConfig, Seconds,
};
use ringstep::data::Source;
use ringstep::models::LossReduction;

/// A run file whose lines the tests change; `[train]` starts at line 14.
const RUN: &str = r#"[data]
format = "csv"
train = "train.csv"
test = "test.csv"
label = "digit"

[model]
loss = { kind = "softmax_cross_entropy" }

[[model.layers]]
kind = "dense"
units = 10

[train]
global_batch = 64
epochs = 3
optimizer = { kind = "adam", learning_rate = 0.001 }
"#;

/// Reads `text` as `run.toml` in an own folder; errors have the folder cut away.
fn load(text: &str, overrides: &[&str]) -> Result<RunConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("digits");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("run.toml"), text).unwrap();
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    RunConfig::load(&folder.join("run.toml"), &overrides).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.display()), "")
    })
}

/// The error of the run file with one piece of text replaced by another.
fn error(from: &str, to: &str) -> String {
    assert!(RUN.contains(from), "{from} is not in the run file");
    load(&RUN.replacen(from, to, 1), &[]).unwrap_err()
}

fn override_error(assignment: &str) -> String {
    load(RUN, &[assignment]).unwrap_err()
}

/// A residual block with a convolution in it; it is entry 1 and starts at line 10.
const BLOCK: &str = r#"[[model.layers]]
kind = "residual"
name = "block"
layers = [
    { kind = "flatten" },
    { kind = "dense", name = "inner", units = 8 },
]

[[model.layers]]
kind = "dense""#;

fn block_error(from: &str, to: &str) -> String {
    assert!(BLOCK.contains(from), "{from} is not in the block");
    let block = BLOCK.replacen(from, to, 1);
    error("[[model.layers]]\nkind = \"dense\"", &block)
}

#[test]
fn defaults_are_filled_in() {
    let run = load(RUN, &[]).unwrap();
    assert_eq!(run.name, "digits");
    let Source::Columns(csv) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert!(csv.train[0].is_absolute() && csv.train[0].ends_with("digits/train.csv"));
    assert!(run.data.shuffle);
    assert_eq!((run.data.scale, &run.data.shape), (1.0, &None));
    let train = &run.train;
    assert_eq!(
        (train.global_batch, train.micro_batch, train.ranks),
        (64, 32, 1)
    );
    assert_eq!((train.length, train.seed), (Length::Epochs(3), 0));
    assert_eq!((train.device, train.reduce), (DeviceChoice::Auto, None));
    assert_eq!(train.precision, Precision::F32);
    assert_eq!(train.matmul, MatmulChoice::Auto);
    assert_eq!(train.loss_reduction, Some(LossReduction::Mean));
    assert_eq!(train.bucket_bytes(), 25 << 20);
    assert_eq!((train.sharded, train.scale_rate_with_ranks), (false, false));
    assert_eq!(
        (train.log_every, train.keep, &train.best),
        (10, Keep::Newest(3), &None)
    );
    assert_eq!(
        (train.evaluate_every, train.checkpoint_every),
        (Cadence::Epoch, Cadence::Epoch)
    );
}

#[test]
fn the_default_micro_batch_is_no_larger_than_the_global_batch() {
    let run = load(RUN, &["train.global_batch=20"]).unwrap();
    assert_eq!(run.train.micro_batch, 20);
}

#[test]
fn the_resolved_configuration_reads_back_equal() {
    let overrides = [
        "data.shape=[8, 8, 1]",
        "data.weight=w",
        "data.classes=[\"a\", \"b\"]",
        "data.na_value=NA",
        "train.zero=1",
        "train.best=accuracy",
        "train.evaluate_every=600s",
        "train.evaluate_throttle=\"30 s\"",
        "train.checkpoint_every=0",
        "train.keep=0",
        "train.early_stopping={ kind = 'no_increase', metric = 'accuracy', patience = '100 steps', \
         baseline = 0.25 }",
        "train.plateau.metric={ name = 'kappa', goal = 'maximize' }",
        "train.export.when=['best']",
        "train.warm_start={ from = 'a', rename = { 'b/c' = 'd' } }",
        "train.bucket_mib=0.0009765625",
        "train.steps=500",
        "train.seed=9223372036854775807",
    ];
    let run = load(RUN, &overrides).unwrap();
    assert!(run.train.sharded);
    let accuracy = Measure {
        name: "accuracy".to_owned(),
        goal: Goal::Maximize,
    };
    assert_eq!(run.train.best, Some(accuracy));
    assert_eq!(
        run.train.evaluate_every,
        Cadence::Seconds(Seconds::new(600))
    );
    assert_eq!(run.train.keep, Keep::All);
    let here = std::env::current_dir().unwrap();
    assert_eq!(run.train.warm_start.as_ref().unwrap().from, here.join("a"));
    assert_eq!(run.train.checkpoint_every, Cadence::End);
    assert_eq!(run.train.bucket_bytes(), 1024);
    let text = run.to_toml();
    assert_eq!(load(&text, &[]).unwrap(), run, "{text}");
}

#[test]
fn idx_files_are_read_from_the_run_files_folder() {
    let idx = "format = \"idx\"\ntrain_images = \"a.gz\"\ntrain_labels = \"b.gz\"\n";
    let text = RUN.replacen(&RUN[7..RUN.find("\n\n").unwrap() + 1], idx, 1);
    let run = load(&text, &[]).unwrap();
    let Source::Arrays(source) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert!(source.train.features.ends_with("digits/a.gz"));
    assert_eq!((source.test.is_none(), run.data.has_test()), (true, false));
    assert_eq!(load(&run.to_toml(), &[]).unwrap(), run);
    let half = text.replace("[model]", "test_images = \"c\"\n[model]");
    assert_eq!(
        load(&half, &[]).unwrap_err(),
        "run.toml:1: missing key 'test_labels' in [data]: beside test_images"
    );
}

#[test]
fn overrides_win_and_the_last_one_most() {
    let run = load(RUN, &["train.seed=1", "train.seed=2", "train.reduce=f32"]).unwrap();
    assert_eq!(
        (run.train.seed, run.train.reduce),
        (2, Some(ReduceMode::F32))
    );
}

#[test]
fn an_override_of_steps_replaces_the_files_epochs() {
    let run = load(RUN, &["train.steps=500"]).unwrap();
    assert_eq!(run.train.length, Length::Steps(500));
    assert_eq!(run.train.length.steps(7), 500);
    assert_eq!(Length::Epochs(3).steps(7), 21);
}

#[test]
fn an_overrides_path_counts_from_the_current_directory() {
    let run = load(RUN, &["data.train=Cargo.toml"]).unwrap();
    let Source::Columns(csv) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert_eq!(
        csv.train,
        [std::env::current_dir().unwrap().join("Cargo.toml")]
    );
}

#[test]
fn cadences_are_due_at_multiples_and_after_their_time() {
    let seconds = std::time::Duration::from_secs;
    let is_due = |cadence: Cadence, done| cadence.is_due(done, 10, seconds(5));
    assert!(is_due(Cadence::Epoch, 20) && !is_due(Cadence::Epoch, 15));
    assert!(is_due(Cadence::Steps(5), 15) && !is_due(Cadence::Steps(5), 16));
    assert!(!is_due(Cadence::End, 20));
    assert!(is_due(Cadence::Seconds(Seconds::new(5)), 1));
    assert!(!is_due(Cadence::Seconds(Seconds::new(6)), 10));
}

#[test]
fn layers_can_be_overridden_by_number() {
    let run = load(RUN, &["model.layers.0.units=7", "train.optimizer=sgd"]).unwrap();
    assert!(run.to_toml().contains("units = 7"));
    assert_eq!(run.optimizers()[0].name(), "sgd");
    assert_eq!(
        override_error("model.layers.0.units=x"),
        "--set model.layers.0.units=x: model.layers entry 1.units: expected integer, found string"
    );
}

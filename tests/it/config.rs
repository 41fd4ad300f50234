//! Run files: what they mean, and what is said about mistakes in them.

use std::fs;
use std::path::Path;

use ringstep::comm::ReduceMode;
use ringstep::config::{Architecture, BestMetric, Cadence, Length, Override, RunConfig};
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

#[test]
fn defaults_are_filled_in() {
    let run = load(RUN, &[]).unwrap();
    assert_eq!(run.name, "digits");
    let Source::Csv(csv) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert!(csv.train.is_absolute() && csv.train.ends_with("digits/train.csv"));
    assert!(run.data.shuffle);
    assert_eq!((run.data.scale, &run.data.shape), (1.0, &None));
    let train = &run.train;
    assert_eq!(
        (train.global_batch, train.micro_batch, train.ranks),
        (64, 32, 1)
    );
    assert_eq!((train.length, train.seed), (Length::Epochs(3), 0));
    assert_eq!(train.reduce, ReduceMode::Exact);
    assert_eq!(train.loss_reduction, LossReduction::Mean);
    assert_eq!(train.bucket_bytes(), 25 << 20);
    assert_eq!((train.sharded, train.scale_rate_with_ranks), (false, false));
    assert_eq!((train.log_every, train.keep, train.best), (10, 3, None));
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
        "train.zero=1",
        "train.best=accuracy",
        "train.evaluate_every=7",
        "train.checkpoint_every=0",
        "train.bucket_mib=0.0009765625",
        "train.steps=500",
        "train.seed=9223372036854775807",
    ];
    let run = load(RUN, &overrides).unwrap();
    assert!(run.train.sharded);
    assert_eq!(run.train.best, Some(BestMetric::Accuracy));
    assert_eq!(run.train.evaluate_every, Cadence::Steps(7));
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
    let Source::Idx(source) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert!(source.train.images.ends_with("digits/a.gz"));
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
    assert_eq!((run.train.seed, run.train.reduce), (2, ReduceMode::F32));
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
    let Source::Csv(csv) = &run.data.source else {
        panic!("{:?}", run.data.source);
    };
    assert_eq!(
        csv.train,
        std::env::current_dir().unwrap().join("Cargo.toml")
    );
}

#[test]
fn cadences_are_due_at_multiples() {
    assert!(Cadence::Epoch.is_due(20, 10) && !Cadence::Epoch.is_due(15, 10));
    assert!(Cadence::Steps(5).is_due(15, 10) && !Cadence::Steps(5).is_due(16, 10));
    assert!(!Cadence::End.is_due(20, 10));
}

#[test]
fn unknown_keys_are_named_with_line_and_nearest() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nmicro_bacth = 8"),
        "run.toml:17: unknown key 'micro_bacth' in [train]; did you mean 'micro_batch'?"
    );
    assert_eq!(
        error("[train]\n", "[trian]\n"),
        "run.toml:14: unknown key 'trian' in the run file; its sections are [data], [model] and \
         [train]; did you mean 'train'?"
    );
    assert_eq!(
        error("[model]\n", "[model]\ncolour = 3\n"),
        "run.toml:8: unknown key 'colour' in [model]; known are loss, layers, custom"
    );
}

#[test]
fn wrong_types_are_named_with_line() {
    assert_eq!(
        error("epochs = 3", "epochs = \"many\""),
        "run.toml:16: train.epochs: expected integer, found string"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 2.5"),
        "run.toml:16: train.epochs: expected integer, found number"
    );
    assert_eq!(
        error("epochs = 3", "epochs = -3"),
        "run.toml:16: train.epochs: expected integer of at least 0, found -3"
    );
    assert_eq!(
        error("label =", "shape = [8, \"8\"]\nlabel ="),
        "run.toml:5: data.shape entry 2: expected integer, found string"
    );
    assert_eq!(
        error("[model]\n", "[model]\nlayers = 3\n")
            .lines()
            .next()
            .unwrap(),
        "run.toml:11: duplicate key"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nevaluate_every = \"often\""),
        "run.toml:17: train.evaluate_every: expected a number of steps (0: only at the end) or \
         \"epoch\", found 'often'"
    );
}

#[test]
fn unknown_names_are_named_with_line_and_nearest() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nreduce = \"exat\""),
        "run.toml:17: train.reduce: unknown name 'exat'; did you mean 'exact'?"
    );
    assert_eq!(
        error("\"csv\"", "\"parquet\""),
        "run.toml:2: data.format: unknown name 'parquet'; known are csv, idx"
    );
}

#[test]
fn how_long_must_be_said_once() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nsteps = 30"),
        "run.toml:16: train.epochs: steps is given, too; keep one of them"
    );
    assert_eq!(
        error("epochs = 3", ""),
        "run.toml:14: missing key 'steps' or 'epochs' in [train]: how long to train"
    );
}

#[test]
fn impossible_numbers_are_refused() {
    assert_eq!(
        error("global_batch = 64", "global_batch = 0"),
        "run.toml:15: train.global_batch: must be at least 1"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nmicro_batch = 65"),
        "run.toml:17: train.micro_batch: 65 is more than global_batch = 64; a global batch is cut \
         into micro-batches"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nranks = 0"),
        "run.toml:17: train.ranks: must be at least 1"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nzero = 3"),
        "run.toml:17: train.zero: expected 0 (off) or 1 (ZeRO-1), found 3"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nbucket_mib = -1"),
        "run.toml:17: train.bucket_mib: expected a number above 0"
    );
    assert_eq!(
        error("label =", "scale = 0\nlabel ="),
        "run.toml:5: data.scale: expected a finite number other than 0"
    );
    assert_eq!(
        error("[data]", "name = \"../elsewhere\"\n[data]"),
        "run.toml:1: name: expected the name of a folder within runs/"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        error(&RUN[RUN.find("[train]").unwrap()..], ""),
        "run.toml: missing section [train]"
    );
    assert_eq!(
        error("global_batch = 64\n", ""),
        "run.toml:14: missing key 'global_batch' in [train]"
    );
    assert_eq!(
        error("label = \"digit\"\n", ""),
        "run.toml:1: missing key 'label' in [data]: the column to predict"
    );
    let layers = &RUN[RUN.find("[[model.layers]]").unwrap()..RUN.find("[train]").unwrap()];
    assert_eq!(
        error(layers, ""),
        "run.toml:7: missing key 'layers' in [model]: the layers, in forward order (or 'custom', \
         the name of a model written in Rust)"
    );
    let missing = RunConfig::load(Path::new("no/such/run.toml"), &[]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot read run file no/such/run.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn broken_toml_is_named_with_line() {
    let message = error("epochs = 3", "epochs = ");
    assert!(message.starts_with("run.toml:16: "), "{message}");
}

#[test]
fn overrides_are_named_by_their_errors() {
    assert_eq!(
        override_error("train.ranks=0"),
        "--set train.ranks=0: train.ranks: must be at least 1"
    );
    assert_eq!(
        override_error("train.sed=1"),
        "--set train.sed=1: unknown key 'sed' in [train]; did you mean 'seed'?"
    );
    assert_eq!(
        override_error("train.reduce=exakt"),
        "--set train.reduce=exakt: train.reduce: unknown name 'exakt'; did you mean 'exact'?"
    );
    assert_eq!(
        override_error("train.steps"),
        "--set train.steps: expected section.key=value"
    );
    assert_eq!(
        override_error("train.seed.x=1"),
        "--set train.seed.x=1: train.seed: expected integer, found table"
    );
    assert_eq!(
        override_error("train.epochs.x=1"),
        "--set train.epochs.x=1: train.epochs is a value, not a table"
    );
    assert_eq!(
        override_error("model.layers.4.units=1"),
        "--set model.layers.4.units=1: model.layers has entries 0 to 0, not '4'"
    );
    let flag = [Override::flag("--ranks 0", "train.ranks=0")];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, RUN).unwrap();
    assert_eq!(
        RunConfig::load(&path, &flag).unwrap_err().to_string(),
        "--ranks 0: train.ranks: must be at least 1"
    );
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
fn mistakes_in_layers_are_found_however_deep() {
    let plain = RUN.replacen("[[model.layers]]\nkind = \"dense\"", BLOCK, 1);
    let run = load(&plain, &[]).unwrap();
    let Architecture::Layers(layers) = &run.model.architecture else {
        panic!("{:?}", run.model);
    };
    assert_eq!(layers.specs().len(), 2);
    assert_eq!(load(&run.to_toml(), &[]).unwrap(), run);
    assert_eq!(
        error("units = 10", "units = 10\nactivaton = \"relu\""),
        "run.toml:13: unknown key 'activaton' in model.layers entry 1 (dense); did you mean \
         'activation'?"
    );
    assert_eq!(
        error("units = 10", "units = 10\nname = \"ten\"\nuse_bias = 3"),
        "run.toml:14: model.layers entry 1.use_bias: expected boolean, found integer"
    );
    assert_eq!(
        error("\"dense\"", "\"densed\""),
        "run.toml:11: unknown layer kind 'densed'; did you mean 'dense'?"
    );
    assert_eq!(
        error("units = 10\n", ""),
        "run.toml:10: missing key 'units' in model.layers entry 1 (dense)"
    );
    assert_eq!(
        error("kind = \"dense\"\n", ""),
        "run.toml:10: missing key 'kind' in model.layers entry 1"
    );
    assert_eq!(
        block_error("units = 8", "unist = 8"),
        "run.toml:15: unknown key 'unist' in model.layers entry 1.layers entry 2 (dense); did you \
         mean 'units'?"
    );
    assert_eq!(
        block_error("units = 8", "units = \"8\""),
        "run.toml:15: model.layers entry 1.layers entry 2.units: expected integer, found string"
    );
    assert_eq!(
        block_error(", units = 8", ""),
        "run.toml:15: missing key 'units' in model.layers entry 1.layers entry 2 (dense)"
    );
    assert_eq!(
        block_error("kind = \"flatten\"", "kind = \"flaten\""),
        "run.toml:14: unknown layer kind 'flaten'; did you mean 'flatten'?"
    );
}

#[test]
fn mistakes_in_losses_and_optimizers_are_found() {
    assert_eq!(
        error("learning_rate", "learning_rat"),
        "run.toml:17: unknown key 'learning_rat' in [train.optimizer] (adam); did you mean \
         'learning_rate'?"
    );
    assert_eq!(
        error("0.001", "\"fast\""),
        "run.toml:17: train.optimizer.learning_rate: expected number, found string"
    );
    assert_eq!(
        error("\"adam\"", "\"adem\""),
        "run.toml:17: unknown optimizer kind 'adem'; did you mean 'adam'?"
    );
    assert_eq!(
        error(
            "{ kind = \"softmax_cross_entropy\" }",
            "\"softmax_cross_entrpy\""
        ),
        "run.toml:8: model.loss: unknown name 'softmax_cross_entrpy'; did you mean \
         'softmax_cross_entropy'?"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nclip = { global_norm = 0 }"),
        "run.toml:17: train.clip: expected a number above 0"
    );
    assert_eq!(
        error(
            "epochs = 3",
            "epochs = 3\nschedule = { kind = \"cosine\", decay_steps = 0 }"
        ),
        "run.toml:17: train.schedule: schedule cosine: decay_steps is 0; give the number of steps \
         the fall takes"
    );
}

/// `settings` of an optimizer, and what is wrong with them.
fn optimizer_error(settings: &str) -> String {
    let optimizer = format!("optimizer = {{ {settings} }}");
    error(
        "optimizer = { kind = \"adam\", learning_rate = 0.001 }",
        &optimizer,
    )
}

#[test]
fn settings_of_optimizers_have_ranges() {
    for (settings, problem) in [
        (
            "kind = \"adam\", beta_1 = 1.0",
            "beta_1: expected a number from 0 to below 1, found 1",
        ),
        (
            "kind = \"adamw\", beta_2 = -0.5",
            "beta_2: expected a number from 0 to below 1, found -0.5",
        ),
        (
            "kind = \"adam\", epsilon = 0",
            "epsilon: expected a finite number above 0, found 0",
        ),
        (
            "kind = \"adam\", weight_decay = -1e-4",
            "weight_decay: expected a finite number of at least 0, found -0.0001",
        ),
        (
            "kind = \"adam\", learning_rate = inf",
            "learning_rate: expected a finite number of at least 0, found inf",
        ),
        (
            "kind = \"adam\", learning_rate = nan",
            "learning_rate: expected a finite number of at least 0, found NaN",
        ),
        (
            "kind = \"sgd\", momentum = 1",
            "momentum: expected a number from 0 to below 1, found 1",
        ),
        (
            "kind = \"adagrad\", initial_accumulator = -1",
            "initial_accumulator: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"rmsprop\", rho = 1.5",
            "rho: expected a number from 0 to below 1, found 1.5",
        ),
        (
            "kind = \"rmsprop\", initial_mean_square = -1",
            "initial_mean_square: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l1 = -1",
            "l1: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l2 = -1",
            "l2: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l2_shrinkage = -1",
            "l2_shrinkage: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", beta = -1",
            "beta: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", learning_rate_power = 0.5",
            "learning_rate_power: expected a finite number of at most 0, found 0.5",
        ),
        (
            "kind = \"lamb\", epsilon = -1",
            "epsilon: expected a finite number above 0, found -1",
        ),
        (
            "kind = \"lars\", trust = 0",
            "trust: expected a finite number above 0, found 0",
        ),
        (
            "kind = \"lars\", epsilon = -1",
            "epsilon: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"lion\", beta_2 = 1",
            "beta_2: expected a number from 0 to below 1, found 1",
        ),
    ] {
        assert_eq!(
            optimizer_error(settings),
            format!("run.toml:17: train.optimizer.{problem}")
        );
    }
    assert_eq!(
        override_error("train.optimizer.beta_1=1"),
        "--set train.optimizer.beta_1=1: train.optimizer.beta_1: expected a number from 0 to below \
         1, found 1"
    );
}

#[test]
fn settings_of_losses_and_layers_have_ranges() {
    for kind in ["softmax_cross_entropy", "sigmoid_cross_entropy"] {
        let loss = format!("kind = \"{kind}\", label_smoothing = 1.0");
        assert_eq!(
            error("kind = \"softmax_cross_entropy\"", &loss),
            "run.toml:8: model.loss.label_smoothing: expected a number from 0 to below 1, found 1"
        );
    }
    assert_eq!(
        error(
            "kind = \"softmax_cross_entropy\"",
            "kind = \"huber\", delta = 0"
        ),
        "run.toml:8: model.loss.delta: expected a finite number above 0, found 0"
    );
    for (layer, problem) in [
        (
            "dropout\"\nrate = 1.2",
            "rate: expected a number from 0 to below 1, found 1.2",
        ),
        (
            "dropout\"\nrate = 0.9999999999",
            "rate: expected a number from 0 to below 1, found 1",
        ),
        (
            "batch_normalization\"\nmomentum = 1.5",
            "momentum: expected a number from 0 to 1, found 1.5",
        ),
        (
            "batch_normalization\"\nepsilon = 0.0",
            "epsilon: expected a finite number above 0, found 0",
        ),
        (
            "layer_normalization\"\nepsilon = -1",
            "epsilon: expected a finite number above 0, found -1",
        ),
    ] {
        assert_eq!(
            error("dense\"\nunits = 10", layer),
            format!("run.toml:12: model.layers entry 1.{problem}")
        );
    }
    assert_eq!(
        block_error("kind = \"flatten\"", "kind = \"dropout\", rate = -1"),
        "run.toml:14: model.layers entry 1.layers entry 1.rate: expected a number from 0 to below \
         1, found -1"
    );
}

#[test]
fn layers_can_be_overridden_by_number() {
    let run = load(RUN, &["model.layers.0.units=7", "train.optimizer=sgd"]).unwrap();
    assert!(run.to_toml().contains("units = 7"));
    assert_eq!(run.train.optimizer.name(), "sgd");
    assert_eq!(
        override_error("model.layers.0.units=x"),
        "--set model.layers.0.units=x: model.layers entry 1.units: expected integer, found string"
    );
}

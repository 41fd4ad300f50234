//! What steers whole runs: early stopping, falling learning rates, clocks, exports and warm starts.

use std::fs;
use std::path::Path;

use ringstep::checkpoint::Checkpoint;
use ringstep::config::{Override, RunConfig};
use ringstep::train::{
    Begin, Bits, Existing, Outcome, Ranks, Record, Session, export_onnx, read_metrics,
};

use crate::commands::{failure, output, ringstep};

/// A network that soon learns its few rows by heart.
const RUN: &str = r#"
[data]
format = "csv"
train = "train.csv"
test = "test.csv"
label = "class"
scale = 0.1

[model]
loss = "softmax_cross_entropy"
layers = [
    { kind = "dense", units = 12, activation = "relu" },
    { kind = "batch_normalization", momentum = 0.8 },
    { kind = "dense", units = 3 },
]

[train]
device = "cpu"
global_batch = 20
micro_batch = 4
steps = 200
optimizer = { kind = "adam", learning_rate = 0.06 }
log_every = 1
evaluate_every = 4
checkpoint_every = 10
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.toml"), RUN).unwrap();
    for (name, rows) in [("train.csv", 0..60), ("test.csv", 60..100)] {
        let row = |row: i32| {
            let (width, height) = (row * 5 % 17, row % 11);
            let class = match width * 11 - height * 17 {
                ..-30 => 0,
                -30..30 => 1,
                30.. => 2,
            };
            // Some rows are called wrongly, so that there is something to learn by heart.
            let class = (class + usize::from(row % 6 == 0)) % 3;
            format!("{width},{height},{}\n", ["ash", "elm", "oak"][class])
        };
        let text = std::iter::once("width,height,class\n".to_owned());
        let text: String = text.chain(rows.map(row)).collect();
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn session(folder: &Path, begin: Begin, world: usize, settings: &[&str]) -> Session {
    let settings: Vec<_> = settings.iter().map(|set| Override::set(set)).collect();
    let config = RunConfig::load(&folder.join("run.toml"), &settings).unwrap();
    Session::new(config, folder.join("run"), begin, Ranks::Threads(world))
}

/// Begins anew.
fn train(folder: &Path, world: usize, settings: &[&str]) -> Outcome {
    session(folder, Begin::New(Existing::Replace), world, settings)
        .train()
        .unwrap()
}

fn resume(folder: &Path, world: usize, settings: &[&str]) -> Outcome {
    session(folder, Begin::Resume(Bits::Same), world, settings)
        .train()
        .unwrap()
}

/// The weights of a step.
fn weights(folder: &Path, step: u64) -> Vec<u8> {
    let checkpoint = format!("run/checkpoints/step-{step}/model.safetensors");
    fs::read(folder.join(checkpoint)).unwrap()
}

/// Names in a folder within the run's, sorted.
fn names(folder: &Path, within: &str) -> Vec<String> {
    let entries = fs::read_dir(folder.join("run").join(within)).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// A number for each of some steps.
type Curve = Vec<(u64, f64)>;

/// The learning rates, and the test losses.
fn history(folder: &Path) -> (Curve, Curve) {
    let (mut rates, mut losses) = (Vec::new(), Vec::new());
    for record in read_metrics(&folder.join("run/metrics.jsonl")).unwrap() {
        match record {
            Record::Train(train) => rates.push((train.step, train.rate)),
            Record::Evaluate(evaluation) => {
                losses.push((evaluation.step, evaluation.metrics["loss"]));
            }
            _ => {}
        }
    }
    (rates, losses)
}

const STEERED: [&str; 6] = [
    "train.early_stopping.kind=no_decrease",
    "train.early_stopping.patience=7",
    "train.early_stopping.restore_best=true",
    "train.plateau.factor=0.5",
    "train.plateau.patience=2",
    "train.plateau.cooldown=1",
];

#[test]
fn ranks_and_breaks_change_nothing_of_what_evaluations_decide() {
    let whole = folder();
    let whole = whole.path();
    let outcome = train(whole, 1, &STEERED);
    let (rates, losses) = history(whole);
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let end = outcome.step;
    assert_eq!(end, best.0 + 7 * 4, "{losses:?}");
    assert!(
        best.0 > 20 && end < 200 && !end.is_multiple_of(10),
        "{losses:?}"
    );
    let reason = outcome.stopped.clone().unwrap();
    assert!(
        reason.starts_with("no decrease of test_loss for 28 steps; the best was "),
        "{reason}"
    );
    assert!(rates[end as usize - 1].1 < 0.06 / 8.0, "{rates:?}");
    // The weights and the metrics are those of the best evaluation.
    assert_eq!(weights(whole, end), weights(whole, best.0));
    assert_eq!(outcome.metrics["test_loss"], best.1);

    for world in [2, 3, 4] {
        let many = folder();
        let many = many.path();
        let found = train(many, world, &[&STEERED[..], &["train.zero=1"]].concat());
        assert_eq!((found.step, &found.stopped), (end, &outcome.stopped));
        assert_eq!(found.metrics, outcome.metrics);
        assert_eq!(weights(many, end), weights(whole, end), "{world} ranks");
        let history = history(many);
        assert_eq!(history, (rates.clone(), losses.clone()), "{world} ranks");
    }

    // Broken where no evaluation is due, where one is, while waiting, and in a cooldown.
    for cut in [2, best.0, best.0 + 6, end - 5] {
        let broken = folder();
        let broken = broken.path();
        let steps = format!("train.steps={cut}");
        train(broken, 3, &[&STEERED[..], &[&steps]].concat());
        let found = resume(broken, 2, &STEERED);
        assert_eq!((found.step, &found.stopped), (end, &outcome.stopped));
        assert_eq!(found.metrics, outcome.metrics, "cut at {cut}");
        assert_eq!(weights(broken, end), weights(whole, end), "cut at {cut}");
        assert_eq!(history(broken).0, rates, "cut at {cut}");
    }

    // It stays over until it is asked for something else.
    let again = resume(whole, 2, &STEERED);
    assert_eq!((again.step, again.stopped), (end, outcome.stopped));
    let patient = [&STEERED[..], &["train.early_stopping.patience=99"]].concat();
    assert_eq!(resume(whole, 2, &patient).step, 200);
}

#[test]
fn ranks_agree_on_what_time_it_is() {
    let folder = folder();
    let outcome = train(
        folder.path(),
        3,
        &[
            "train.steps=100000000",
            "train.log_every=1000000",
            "train.evaluate_every=1s",
            "train.checkpoint_every=1s",
            // Whatever is found ends it.
            "train.early_stopping={ kind = 'lower', threshold = 1e9 }",
        ],
    );
    assert!(outcome.step > 1);
    assert!(
        outcome
            .stopped
            .unwrap()
            .ends_with("is lower than 1000000000")
    );
    let checkpoint = format!("step-{}", outcome.step);
    assert_eq!(names(folder.path(), "checkpoints"), [checkpoint]);
}

#[test]
fn checkpoints_are_kept_from_the_first_on() {
    let folder = folder();
    let folder = folder.path();
    let settings = ["train.checkpoint_at_start=true", "train.max_steps=40"];
    train(folder, 2, &[&settings[..], &["train.keep=all"]].concat());
    let all = ["step-0", "step-10", "step-20", "step-30", "step-40"];
    assert_eq!(names(folder, "checkpoints"), all);
    let end = weights(folder, 40);
    for step in ["10", "20", "30", "40"] {
        fs::remove_dir_all(folder.join(format!("run/checkpoints/step-{step}"))).unwrap();
    }
    let resumed = resume(folder, 3, &[&settings[..], &["train.keep=2"]].concat());
    assert_eq!((resumed.begun, resumed.step), (0, 40));
    assert_eq!(names(folder, "checkpoints"), ["step-30", "step-40"]);
    assert_eq!(weights(folder, 40), end);
}

#[test]
fn models_are_exported_while_a_run_trains() {
    let folder = folder();
    let folder = folder.path();
    let settings = [
        "train.steps=30",
        "train.evaluate_every=10",
        "train.keep=0",
        "train.best=loss",
        "train.export.when=['best', 'latest', 'final']",
        "train.export.formats=['onnx', 'safetensors']",
        "train.export.keep=2",
        "train.tensorboard=true",
    ];
    train(folder, 2, &settings);
    let losses = history(folder).1;
    let best: Vec<_> = (0..3)
        .filter(|&i| losses[..i].iter().all(|l| l.1 > losses[i].1))
        .collect();
    let mut expected = vec!["final-30".to_owned()];
    expected.extend([20, 30].map(|step| format!("latest-{step}")));
    let best = best[best.len().saturating_sub(2)..].iter();
    expected.extend(best.map(|i| format!("best-{}", 10 * (i + 1))));
    let mut expected: Vec<_> = expected
        .iter()
        .flat_map(|name| [format!("{name}.onnx"), format!("{name}.safetensors")])
        .collect();
    expected.sort_unstable();
    let found = names(folder, "exports");
    assert_eq!(found, expected, "{losses:?}");
    let config = session(folder, Begin::Resume(Bits::Same), 1, &settings).config;
    for name in found {
        let contents = fs::read(folder.join("run/exports").join(&name)).unwrap();
        let (step, format) = name.split_once('-').unwrap().1.split_once('.').unwrap();
        let checkpoint = Checkpoint::named(&folder.join("run/checkpoints"), step).unwrap();
        let same = match format {
            "onnx" => export_onnx(&config, &checkpoint).unwrap(),
            _ => checkpoint.weights().unwrap(),
        };
        assert!(contents == same, "{name} is not that of the checkpoint");
    }
    let curves = ["test", "train"];
    assert_eq!(names(folder, "tensorboard"), curves);
    for curve in curves {
        assert_eq!(names(folder, &format!("tensorboard/{curve}")).len(), 1);
    }
    let file = &names(folder, "tensorboard/train")[0];
    let events = fs::read(folder.join("run/tensorboard/train").join(file)).unwrap();
    let mut logged = 0;
    for record in read_metrics(&folder.join("run/metrics.jsonl")).unwrap() {
        if let Record::Train(record) = record {
            logged += 1;
            let rate = (record.steps_per_second as f32).to_le_bytes();
            let tag = [&b"global_step/sec\x15"[..], &rate].concat();
            assert!(rate != [0; 4] && events.windows(tag.len()).any(|bytes| bytes == tag));
        }
    }
    assert!(logged > 0);
    train(folder, 1, &["train.steps=1"]);
    assert!(!folder.join("run/exports").exists() && !folder.join("run/tensorboard").exists());
}

/// Every tensor of a file of safetensors.
fn tensors(contents: &[u8]) -> ringstep::checkpoint::StoredTensors {
    ringstep::checkpoint::decode_all(contents).unwrap()
}

#[test]
fn a_run_begins_with_weights_of_another() {
    let other = folder();
    let other = other.path();
    train(other, 1, &["train.steps=10", "train.seed=7"]);
    let source = tensors(&weights(other, 10));
    let first = "train.checkpoint_at_start=true";
    let run = other.join("run");
    let checkpoint = run.join("checkpoints/step-10");
    let file = checkpoint.join("model.safetensors");
    let cold = folder();
    let cold = cold.path();
    train(cold, 1, &["train.steps=1", first]);
    let initial = tensors(&weights(cold, 0));
    let new = folder();
    let new = new.path();
    for (world, from) in [(1, &run), (2, &checkpoint), (3, &file)] {
        let from = format!("train.warm_start.from={}", from.display());
        let outcome = train(new, world, &["train.steps=1", first, &from]);
        assert_eq!((outcome.begun, outcome.step), (0, 1));
        for (name, tensor) in tensors(&weights(new, 0)) {
            let is_trainable = !name.contains("moving");
            let expected = if is_trainable { &source } else { &initial };
            assert_eq!(tensor, expected[&name], "{name}");
        }
    }

    let from = format!("train.warm_start.from={}", run.display());
    let rename = "train.warm_start.rename={ 'batch_normalization/beta' = 'dense/bias' }";
    let only = "train.warm_start.tensors=*/b*a";
    train(new, 2, &["train.steps=1", first, &from, rename, only]);
    for (name, tensor) in tensors(&weights(new, 0)) {
        let expected = match name.as_str() {
            "batch_normalization/beta" => &source["dense/bias"],
            _ => &initial[&name],
        };
        assert_eq!(&tensor, expected, "{name}");
    }

    for (settings, expected) in [
        (
            &["model.layers.0.units=5"][..],
            "'dense/kernel' has shape [2, 12] there, 'dense/kernel' has [2, 5] here; leave it out by \
             train.warm_start.tensors",
        ),
        (
            &["train.warm_start.tensors=dance*"],
            "'dance*' takes nothing: there are batch_normalization/beta, ",
        ),
        (
            &["train.warm_start.rename={ 'dense/bias' = 'bias' }"],
            "'dense/bias' is to be 'bias', which is not there",
        ),
        (
            &["train.warm_start.rename={ 'bias' = 'dense/bias' }"],
            "train.warm_start.rename has 'bias', which is no trainable tensor that '*' takes",
        ),
    ] {
        let settings = [&["train.steps=1", &from][..], settings].concat();
        let begin = Begin::New(Existing::Replace);
        let error = session(new, begin, 2, &settings).train().unwrap_err();
        let error = error.to_string();
        let start = format!("cannot begin with the weights in {}: ", run.display());
        assert!(
            error.starts_with(&start) && error.contains(expected),
            "{error}"
        );
    }
    // What cannot be begun leaves the run alone that is there.
    assert!(new.join("run/checkpoints/step-1").exists());
}

#[test]
fn a_run_goes_on_for_more_steps_from_its_own_folder() {
    let folder = folder();
    let folder = folder.path();
    let run = ["train", "run.toml", "--run-dir", "run", "-q"];
    output(folder, &[&run[..], &["--set", "train.steps=32"]].concat());
    let own = ["train", "run", "--resume", "-q"];
    let said = output(folder, &[&own[..], &["--more-steps", "10"]].concat());
    assert!(
        said.contains("trained 10 steps") && said.contains("from 32 to 42"),
        "{said}"
    );
    let both = ["--more-steps", "10", "--set", "train.epochs=3"];
    let error = failure(folder, &[&own[..], &both].concat());
    let twice = "--more-steps 10 says how long to train, and so does --set train.epochs=3; keep one of them";
    assert!(error.contains(twice), "{error}");
    let most = [&own[..], &["--set", "train.max_steps=30"]].concat();
    let nothing = ringstep(folder, &most);
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(nothing.status.success() && said.contains("has taken 42 steps and was asked for 30"));
    let error = failure(folder, &["train", "run"]);
    assert!(error.contains("run holds a run already"), "{error}");
}

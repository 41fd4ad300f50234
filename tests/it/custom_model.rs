//! The models of `examples/custom_model.rs`: the same life as those of a run file.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};

use clap::Parser;
use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Accumulate, Backend};
use ringstep::config::{Architecture, Custom, Override, RunConfig};
use ringstep::data::{Description, Targets};
use ringstep::layers::{Build, Context, LayerError, Mode};
use ringstep::models::{BuildModel, CustomModel, LossSpec, MicroBatch, Model, SoftmaxCrossEntropy};
use ringstep::params::{GradSink, Layout};
use ringstep::random::Stream;
use ringstep::train::{Begin, Bits, Existing, Outcome, Ranks, Session};
use sha2::{Digest, Sha256};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "elsewhere it is a program of its own"
)]
#[path = "../../examples/custom_model.rs"]
pub(crate) mod example;

/// A short run of a narrow residual network.
const SHORT: [&str; 6] = [
    "train.device=cpu",
    "model.custom.filters=3",
    "train.global_batch=100",
    "train.micro_batch=16",
    "train.steps=16",
    "train.evaluate_every=0",
];

fn config(overrides: &[&str]) -> Result<RunConfig, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/custom_model.toml");
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load_with(&file, &overrides, &example::models());
    config.map_err(|error| {
        let folder = format!("{}/", file.parent().unwrap().display());
        error.to_string().replace(&folder, "")
    })
}

fn train(folder: &Path, begin: Begin, world: usize, overrides: &[&str]) -> Result<Outcome, String> {
    let config = config(&[&SHORT, overrides].concat())?;
    let session = Session::new(config, folder, begin, Ranks::Threads(world));
    session.train().map_err(|error| error.to_string())
}

/// SHA-256 of the weights of a step.
fn weights(folder: &Path, step: u64) -> Vec<u8> {
    let file = format!("checkpoints/step-{step}/model.safetensors");
    Sha256::digest(fs::read(folder.join(file)).unwrap()).to_vec()
}

const ANEW: Begin = Begin::New(Existing::Keep);

#[test]
fn ranks_and_a_break_change_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str| folder.path().join(name);
    for kind in ["residual", "plain"] {
        let custom = match kind {
            "residual" => "model.custom={ kind = \"residual\", filters = 3 }",
            _ => "model.custom=plain",
        };
        let [one, three, parts] =
            ["one", "three", "parts"].map(|name| run(&format!("{kind}-{name}")));
        let outcome = train(&one, ANEW, 1, &[custom]).unwrap();
        assert_eq!(outcome.step, 16);
        let reference = weights(&one, 16);
        train(&three, ANEW, 3, &[custom, "train.zero=1"]).unwrap();
        assert_eq!(weights(&three, 16), reference, "{kind} on 3 ranks");
        train(&parts, ANEW, 3, &[custom, "train.steps=9"]).unwrap();
        train(&parts, Begin::Resume(Bits::Same), 2, &[custom]).unwrap();
        assert_eq!(weights(&parts, 16), reference, "{kind} resumed");
        assert_ne!(weights(&parts, 9), reference);
    }
}

#[test]
fn a_run_goes_on_as_the_model_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    train(folder, ANEW, 1, &["train.steps=2"]).unwrap();
    for (setting, difference) in [
        (
            "model.custom.filters=4",
            "model.custom.filters: was 3, is 4",
        ),
        (
            "model.custom=plain",
            "model.custom.kind: was \"residual\", is \"plain\"",
        ),
    ] {
        let error = train(folder, Begin::Resume(Bits::MayDiffer), 1, &[setting]).unwrap_err();
        assert!(
            error.contains(&format!(": {difference}; put back")),
            "{error}"
        );
    }
}

#[test]
fn settings_are_written_down_with_every_default() {
    let run = config(&["model.custom=residual"]).unwrap();
    let Architecture::Custom(custom) = &run.model.architecture else {
        panic!("{:?}", run.model);
    };
    assert_eq!(custom.kind(), "residual");
    assert_eq!(
        custom,
        &Custom::new(example::Residual { filters: 16 }).unwrap()
    );
    assert_ne!(
        custom,
        &Custom::new(example::Residual { filters: 8 }).unwrap()
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, run.to_toml()).unwrap();
    assert!(run.to_toml().contains("[model.custom]\nfilters = 16\n"));
    let again = RunConfig::load_with(&file, &[], &example::models()).unwrap();
    assert_eq!(again, run);
}

#[test]
fn mistakes_in_run_files_are_named_with_line_and_nearest() {
    let error = |setting: &str| config(&[setting]).unwrap_err();
    assert_eq!(
        error("model.custom.filtrs=8"),
        "--set model.custom.filtrs=8: unknown key 'filtrs' in [model.custom] (residual); did you \
         mean 'filters'?"
    );
    assert_eq!(
        error("model.custom.kind=residul"),
        "--set model.custom.kind=residul: unknown custom kind 'residul'; did you mean 'residual'?"
    );
    assert_eq!(
        error("model.custom=mixer"),
        "--set model.custom=mixer: model.custom: unknown name 'mixer'; known are residual, plain"
    );
    assert_eq!(
        error("model.custom.filters=many"),
        "--set model.custom.filters=many: model.custom.filters: expected integer, found string"
    );
    assert_eq!(
        error("model.custom=3"),
        "--set model.custom=3: model.custom: expected string, found integer"
    );
    assert_eq!(
        error("model.custom={ filters = 3 }"),
        "--set model.custom={ filters = 3 }: missing key 'kind' in [model.custom]: one of residual, plain"
    );
    assert_eq!(
        error("model.layers=[\"flatten\"]"),
        "custom_model.toml:18: model.custom: layers are given, too; keep one of them"
    );
    let folder = tempfile::tempdir().unwrap();
    let error = train(folder.path(), ANEW, 1, &["model.custom.filters=0"]).unwrap_err();
    assert_eq!(
        error,
        "layer 'conv2d': filters is 0, but must be at least 1"
    );
}

/// A gradient arena that is written once, from its end.
struct Gradient {
    values: Vec<f32>,
    finished: usize,
}

impl GradSink<Cpu> for Gradient {
    fn grads(&mut self, range: Range<usize>) -> (&mut [f32], Accumulate) {
        assert!(range.end <= self.finished, "a finished gradient is written");
        (&mut self.values[range], Accumulate::Set)
    }

    fn done(&mut self, from: usize) {
        assert!(from <= self.finished);
        self.finished = from;
    }
}

const ROWS: usize = 6;

/// The residual network on images of 4 x 4 pixels in three classes, with numbers drawn at random.
struct Small {
    cpu: Cpu,
    model: Box<dyn Model<Cpu>>,
    parameters: Vec<f32>,
    features: Vec<f32>,
    state: Vec<f32>,
}

impl Small {
    fn new() -> Self {
        let mut cpu = Cpu::new();
        let data = Description {
            shape: [4, 4, 1].into(),
            targets: Targets::Classes(["a", "b", "c"].map(str::to_owned).into()),
            ..Description::default()
        };
        let loss = LossSpec::from(SoftmaxCrossEntropy::default());
        let build = Build::new(&mut cpu, ROWS);
        let model = example::Residual { filters: 2 }
            .build(build, &data, &loss)
            .unwrap();
        let mut stream = Stream::new(7, "small");
        let mut parameters = vec![0.0; model.layout().end()];
        for tensor in model.layout().tensors() {
            for value in &mut parameters[tensor.range()] {
                *value = 0.5 * stream.normal() as f32;
            }
        }
        let states = model.states().iter().map(|state| state.range.end).max();
        Self {
            cpu,
            parameters,
            features: (0..ROWS * 16).map(|_| stream.normal() as f32).collect(),
            state: vec![0.0; states.unwrap()],
            model,
        }
    }

    /// The loss and, where there is somewhere to put them, its gradients.
    fn loss(&mut self, gradient: Option<&mut Gradient>) -> f64 {
        let targets = [0.0, 1.0, 2.0, 2.0, 1.0, 0.0];
        let mut statistics = self.state.clone();
        let mut cx = Context {
            backend: &mut self.cpu,
            mode: Mode::Train,
            rows: ROWS,
            seed: 1,
            step: 2,
            first_sample: 3,
            state: &self.state[..],
            statistics: &mut statistics[..],
        };
        let batch = MicroBatch {
            features: &self.features[..],
            targets: &targets[..],
            weights: None,
        };
        let mut report = [0.0; 4];
        self.model
            .forward(&mut cx, &self.parameters, &batch, &mut report);
        if let Some(gradient) = gradient {
            self.model
                .backward(&mut cx, &self.parameters, &batch, gradient);
        }
        report[0]
    }
}

#[test]
fn both_branches_have_the_gradients_of_finite_differences() {
    let mut small = Small::new();
    let layout: Layout = small.model.layout().clone();
    let mut gradient = Gradient {
        values: vec![f32::NAN; layout.end()],
        finished: layout.end(),
    };
    small.loss(Some(&mut gradient));
    assert_eq!(gradient.finished, 0);
    // Larger steps cross kinks of relu, smaller ones drown in the rounding of the loss.
    let step = 5e-4;
    for tensor in layout.tensors() {
        let own = &gradient.values[tensor.range()];
        let largest = own.iter().fold(0.0_f32, |a, b| a.max(b.abs())).max(0.1);
        for index in tensor.range() {
            let value = small.parameters[index];
            let mut at = |value: f32| {
                small.parameters[index] = value;
                small.loss(None)
            };
            let slope = (at(value + step) - at(value - step)) / f64::from(2.0 * step);
            at(value);
            let error = (slope as f32 - gradient.values[index]).abs() / largest;
            assert!(error < 1e-2, "{} {index}: {error}", tensor.name);
        }
    }
}

/// Set for the process that [`custom`] starts: the command line of a program with these models.
const CHILD: &str = "RINGSTEP_TEST_CUSTOM_PROGRAM";

/// A program with models of its own. Nothing unless started for it.
#[test]
fn program() {
    let Some(line) = std::env::var_os(CHILD) else {
        return;
    };
    let words: Vec<String> = serde_json::from_str(line.to_str().unwrap()).unwrap();
    let arguments = ringstep::cli::Arguments::parse_from(words);
    if let Err(failure) = ringstep::cli::run(&arguments, &example::models()) {
        eprintln!("error: {failure}");
        std::process::exit(1);
    }
}

fn custom(folder: &Path, arguments: &[&str]) -> Output {
    let line = [&["custom"], arguments].concat();
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "custom_model::program", "--nocapture"])
        .env(CHILD, serde_json::to_string(&line).unwrap())
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_program_with_models_of_its_own_trains_evaluates_predicts_and_inspects() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let run_file = fs::read_to_string(examples.join("custom_model.toml")).unwrap();
    fs::write(folder.join("run.toml"), run_file.replace("digits/", "")).unwrap();
    for file in ["train.csv", "test.csv"] {
        fs::copy(examples.join("digits").join(file), folder.join(file)).unwrap();
    }
    let said = |arguments: &[&str]| {
        let output = custom(folder, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let train = [
        "train",
        "run.toml",
        "-q",
        "--run-dir",
        "run",
        "--ranks",
        "3",
        "--device",
        "cpu",
        "--set",
    ];
    said(&[&train[..], &["train.epochs=2"]].concat());
    let trained = said(&[&train[..], &["train.epochs=4", "--resume"]].concat());
    assert!(trained.contains("trained 90 steps in "), "{trained}");
    assert!(trained.contains(" s, from 90 to 180\n"), "{trained}");

    // Whatever has to be known of it is in the run.
    fs::remove_file(folder.join("train.csv")).unwrap();
    let inspected = said(&["inspect", "run"]);
    for part in ["conv2d_3", "[4, 4, 32]", "19,818 parameters", "step-180"] {
        assert!(inspected.contains(part), "{part} in\n{inspected}");
    }
    let evaluated = said(&["evaluate", "run", "--ranks", "2"]);
    let metrics = fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    let lines: Vec<_> = metrics.lines().collect();
    assert_eq!(
        lines[lines.len() - 1],
        lines[lines.len() - 2],
        "{evaluated}"
    );
    said(&["predict", "run", "--input", "test.csv", "--output", "y.csv"]);
    let predicted = fs::read_to_string(folder.join("y.csv")).unwrap();
    let truth = fs::read_to_string(folder.join("test.csv")).unwrap();
    let pairs = predicted.lines().zip(truth.lines()).skip(1);
    let right = pairs.filter(|(y, x)| y.split(',').next() == x.rsplit(',').next());
    let right = right.count();
    assert!(right > 300, "{right} of 360");

    let ringstep = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let remedy = "model.custom.kind: 'residual' is a model written in Rust, and this program has \
                  none; give the command to the program that defines it: the one that trained the \
                  run\n";
    for command in ["evaluate", "inspect"] {
        let error = ringstep(&[command, "run"]);
        let place = "error: run/config.toml:";
        assert!(
            error.starts_with(place) && error.ends_with(remedy),
            "{error}"
        );
    }
    let error = ringstep(&["train", "run.toml", "--run-dir", "other"]);
    assert!(error.ends_with(remedy), "{error}");
    assert!(!folder.join("other").exists());
}

/// Has a setting by the name under which run files name the model.
#[derive(serde::Serialize, serde::Deserialize)]
struct Ambiguous {
    kind: String,
}

impl CustomModel for Ambiguous {
    const KIND: &'static str = "ambiguous";
}

impl BuildModel for Ambiguous {
    fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError> {
        example::Plain::default().build(build, data, loss)
    }
}

#[test]
fn a_setting_may_not_take_the_models_name() {
    let model = Ambiguous {
        kind: "wide".to_owned(),
    };
    let error = Custom::new(model).unwrap_err().to_string();
    assert!(
        error.contains("'ambiguous' have a field 'kind'") && error.contains("rename"),
        "{error}"
    );
}

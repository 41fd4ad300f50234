//! Runs that go on: what may be another then, and what is refused.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ringstep::checkpoint::Checkpoint;
use ringstep::config::{Override, RunConfig};
use ringstep::data::{Prefetch, Rows, Sampler, Split, load};
use ringstep::train::{Begin, Bits, Existing, Outcome, Ranks, Record, Session, read_metrics};
use sha2::{Digest, Sha256};

/// A network with everything that a checkpoint has to carry: moving averages, moving statistics and
/// random numbers.
const RUN: &str = r#"
[data]
format = "csv"
train = "train.csv"
label = "class"

[model]
loss = { kind = "softmax_cross_entropy" }
layers = [
    { kind = "dense", units = 6, activation = "relu" },
    "batch_normalization",
    { kind = "dropout", rate = 0.2 },
    { kind = "dense", units = 3 },
]

[train]
device = "cpu"
global_batch = 20
micro_batch = 3
steps = 2
optimizer = { kind = "adam" }
log_every = 1
checkpoint_every = 0
"#;

/// A folder with a run file and 93 rows to learn from.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.toml"), RUN).unwrap();
    fs::write(folder.path().join("train.csv"), rows(93)).unwrap();
    folder
}

fn rows(count: u32) -> String {
    let row = |row: u32| {
        let class = ["ash", "elm", "oak"][(row * row % 7 % 3) as usize];
        format!("{},{},{class}\n", row % 7, row % 11)
    };
    std::iter::once("width,height,class\n".to_owned())
        .chain((0..count).map(row))
        .collect()
}

fn session(folder: &Path, begin: Begin, world: usize, overrides: &[&str]) -> Session {
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&folder.join("run.toml"), &overrides).unwrap();
    Session::new(config, folder.join("run"), begin, Ranks::Threads(world))
}

fn train(folder: &Path, world: usize, overrides: &[&str]) -> Outcome {
    session(folder, Begin::New(Existing::Replace), world, overrides)
        .train()
        .unwrap()
}

/// Goes on from step 2; errors have the folder cut away.
fn resume(folder: &Path, bits: Bits, overrides: &[&str]) -> Result<Outcome, String> {
    session(folder, Begin::Resume(bits), 2, overrides)
        .train()
        .map_err(|error| {
            error
                .to_string()
                .replace(&format!("{}/", folder.display()), "")
        })
}

/// What is said of a run that would be another.
fn other_run(differences: &str) -> String {
    format!(
        "cannot resume from run/checkpoints/step-2: {differences}; put back what the run was \
         trained with, or start anew in another folder with --run-dir"
    )
}

/// What is said of a run that would have other bits.
fn other_bits(differences: &str) -> String {
    format!(
        "cannot resume from run/checkpoints/step-2 with the same bits: {differences}; put back \
         what the run was trained with, or go on with other bits by --allow-different-bits"
    )
}

#[test]
fn what_a_run_is_made_of_stays() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    for (overrides, differences) in [
        (
            &["train.optimizer=sgd"][..],
            "train.optimizer.kind: was \"adam\", is \"sgd\"",
        ),
        (
            &["train.optimizer.beta_1=0.8"],
            "train.optimizer.beta_1: was 0.9, is 0.8",
        ),
        (
            &["model.layers.0.units=7"],
            "model.layers entry 1.units: was 6, is 7",
        ),
        (
            &["model.layers.2.rate=0.25"],
            "model.layers entry 3.rate: was 0.2, is 0.25",
        ),
        (
            &["model.layers.1=flatten"],
            "model.layers entry 2.kind: was \"batch_normalization\", is \"flatten\"",
        ),
        (
            &["model.layers.3.name=\"last\""],
            "model.layers entry 4.name: was not set, is \"last\"",
        ),
        (
            &["model.layers=[{ kind = \"dense\", units = 3 }]"],
            "model.layers: had 4 entries, has 1",
        ),
        (
            &["model.loss.label_smoothing=0.1"],
            "model.loss.label_smoothing: was 0.0, is 0.1",
        ),
        (&["train.seed=1"], "train.seed: was 0, is 1"),
        (
            &["train.global_batch=30"],
            "train.global_batch: was 20, is 30",
        ),
        (&["train.micro_batch=5"], "train.micro_batch: was 3, is 5"),
        (&["data.shuffle=false"], "data.shuffle: was true, is false"),
        (
            &["train.loss_reduction=sum"],
            "train.loss_reduction: was \"mean\", is \"sum\"",
        ),
        (
            &["train.seed=1", "train.micro_batch=5", "train.steps=9"],
            "train.micro_batch: was 3, is 5; train.seed: was 0, is 1",
        ),
    ] {
        for bits in [Bits::Same, Bits::MayDiffer] {
            let error = resume(folder, bits, overrides).unwrap_err();
            assert_eq!(error, other_run(differences), "{overrides:?}");
        }
    }
}

#[test]
fn the_size_columns_and_classes_of_the_data_stay() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let all = rows(93);
    for (data, differences) in [
        (rows(92), "rows of the training data: was 93, is 92"),
        (
            all.replace("height", "length"),
            "columns of the training data entry 2: was \"height\", is \"length\"",
        ),
        (
            all.replace("elm", "fir"),
            "targets of the training data.classes entry 2: was \"elm\", is \"fir\"",
        ),
        (
            all.trim()
                .replace("width,", "depth,width,")
                .replace('\n', "\n1,"),
            "columns of the training data: had 2 entries, has 3; shape of the training data entry \
             1: was 2, is 3",
        ),
    ] {
        fs::write(folder.join("train.csv"), data).unwrap();
        let error = resume(folder, Bits::MayDiffer, &["train.steps=3"]).unwrap_err();
        assert_eq!(error, other_run(differences));
    }
}

#[test]
fn how_long_how_fast_and_where_may_change() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 4, &["train.zero=1"]);
    fs::rename(folder.join("train.csv"), folder.join("moved.csv")).unwrap();
    fs::copy(folder.join("moved.csv"), folder.join("test.csv")).unwrap();
    let moved = format!("data.train={}", folder.join("moved.csv").display());
    let test = format!("data.test={}", folder.join("test.csv").display());
    let outcome = resume(
        folder,
        Bits::Same,
        &[
            "name=other",
            &moved,
            &test,
            "train.epochs=2",
            "train.ranks=2",
            "train.zero=0",
            "train.bucket_mib=0.25",
            "train.collective=ring",
            "train.log_every=3",
            "train.evaluate_every=1",
            "train.checkpoint_every=2",
            "train.keep=1",
            "train.best=loss",
            "train.clip={ global_norm = 1.0 }",
            "train.schedule={ kind = \"warmup\", steps = 4 }",
            "train.scale_rate_with_ranks=true",
            "train.optimizer.learning_rate=0.1",
            "train.optimizer.weight_decay=0.1",
        ],
    );
    assert_eq!(outcome.unwrap().step, 10);
}

/// Which rows every micro-batch of some steps has, over all ranks.
fn stream(folder: &Path, world: usize, steps: Range<u64>) -> Vec<(u64, usize, Vec<f32>)> {
    let config = session(folder, Begin::Resume(Bits::Same), world, &[]).config;
    let table = load(&config.data, config.task(), None, Split::Train, None).unwrap();
    let table = Arc::new(table);
    let sampler = Sampler {
        rows: table.rows,
        global_batch: config.train.global_batch,
        micro_batch: config.train.micro_batch,
        seed: config.train.seed,
        shuffle: config.data.shuffle,
        ..Sampler::default()
    };
    let mut stream = Vec::new();
    for rank in 0..world {
        let ranks = (rank, world);
        let mut prefetch =
            Prefetch::start(Arc::clone(&table), sampler.clone(), ranks, steps.clone()).unwrap();
        while let Some(share) = prefetch.next_share() {
            let rows = |rows: Rows<'_>| (share.step, rows.first_sample, rows.features.to_vec());
            stream.extend(share.micro_batches().map(rows));
            prefetch.recycle(share);
        }
    }
    stream.sort_by_key(|(step, first, _)| (*step, *first));
    stream
}

/// Loss by step, as it was logged.
fn losses(folder: &Path) -> Vec<(u64, f64)> {
    let records = read_metrics(&folder.join("run/metrics.jsonl")).unwrap();
    let loss = |record: &Record| match record {
        Record::Train(record) => Some((record.step, record.loss)),
        _ => None,
    };
    records.iter().filter_map(loss).collect()
}

#[test]
fn fifty_steps_on_four_ranks_and_fifty_on_three_are_a_hundred() {
    let (whole, parts) = (folder(), folder());
    let (whole, parts) = (whole.path(), parts.path());
    train(whole, 1, &["train.steps=100"]);
    train(parts, 4, &["train.steps=50"]);
    let rest = session(parts, Begin::Resume(Bits::Same), 3, &["train.steps=100"]);
    assert_eq!(rest.train().unwrap().step, 100);

    let last = |folder: &Path| Checkpoint::named(&folder.join("run/checkpoints"), "100").unwrap();
    let (one, two) = (last(whole), last(parts));
    // Size and SHA-256 of the parameters, moving statistics and the optimizer's state.
    assert_eq!(two.manifest().files, one.manifest().files);
    let names: Vec<_> = one.manifest().files.keys().collect();
    assert_eq!(names, ["model.safetensors", "optimizer-0-of-1.safetensors"]);
    let place = |checkpoint: &Checkpoint| {
        let facts = checkpoint.facts();
        (facts.seed, facts.epoch, facts.step_of_epoch)
    };
    assert_eq!((one.facts().world, two.facts().world), (1, 3));
    assert_eq!(place(&two), place(&one));
    assert_eq!(two.facts().exponents, one.facts().exponents);
    assert_eq!(losses(parts), losses(whole));
    assert_eq!(losses(whole).len(), 100);

    let mut both = stream(parts, 4, 0..50);
    both.extend(stream(parts, 3, 50..100));
    assert_eq!(both, stream(whole, 1, 0..100));
}

/// Says in the manifest of step 2 that another machine wrote it; returns this machine's name.
fn pretend_another_machine(folder: &Path) -> String {
    let folder = folder.join("run/checkpoints/step-2");
    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let field = &mut manifest["fingerprint"]["arithmetic"];
    let here = field.as_str().unwrap().to_owned();
    *field = "cpu abacus".into();
    let text = serde_json::to_string(&manifest).unwrap();
    let line = format!("{}  manifest.json\n", sha256(text.as_bytes()));
    fs::write(folder.join("manifest.json"), text).unwrap();
    fs::write(folder.join("manifest.sha256"), line).unwrap();
    here
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn another_arithmetic_is_refused_where_sums_are_exact() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let here = pretend_another_machine(folder);
    let difference = format!("arithmetic: was \"cpu abacus\", is \"{here}\"");
    let error = resume(folder, Bits::Same, &["train.steps=3"]).unwrap_err();
    assert_eq!(error, other_bits(&difference));
    let how_to_launch = ["train.steps=3", "train.graphs=false"];
    let outcome = resume(folder, Bits::MayDiffer, &how_to_launch);
    assert_eq!(outcome.unwrap().step, 3);

    train(folder, 1, &["train.reduce=f32"]);
    pretend_another_machine(folder);
    let outcome = resume(folder, Bits::Same, &["train.reduce=f32", "train.steps=3"]);
    assert_eq!(outcome.unwrap().step, 3);
}

#[test]
fn another_way_to_add_is_refused_unless_bits_may_differ() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let f32 = ["train.reduce=f32", "train.steps=3"];
    let error = resume(folder, Bits::Same, &f32).unwrap_err();
    assert_eq!(error, other_bits("train.reduce: was \"exact\", is \"f32\""));
    assert_eq!(resume(folder, Bits::MayDiffer, &f32).unwrap().step, 3);
}

#[test]
fn another_precision_is_refused_unless_bits_may_differ() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let bf16 = ["train.precision=bf16", "train.steps=3"];
    let error = resume(folder, Bits::Same, &bf16).unwrap_err();
    assert_eq!(
        error,
        other_bits("train.precision: was \"f32\", is \"bf16\"")
    );
    assert_eq!(resume(folder, Bits::MayDiffer, &bf16).unwrap().step, 3);
}

#[test]
fn other_numbers_in_the_data_are_refused_unless_bits_may_differ() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let changed = rows(93).replacen("\n1,", "\n1.5,", 1);
    fs::write(folder.join("train.csv"), changed).unwrap();
    let error = resume(folder, Bits::Same, &["train.steps=3"]).unwrap_err();
    let start = "cannot resume from run/checkpoints/step-2 with the same bits: training data: was \
                 \"93 rows, ";
    assert!(error.starts_with(start), "{error}");
    let outcome = resume(folder, Bits::MayDiffer, &["train.steps=3"]);
    assert_eq!(outcome.unwrap().step, 3);
}

#[test]
fn the_flag_goes_on_with_a_warning() {
    let folder = folder();
    let folder = folder.path();
    train(folder, 1, &[]);
    let here = pretend_another_machine(folder);
    let ringstep = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args([
                "train",
                "run.toml",
                "--run-dir",
                "run",
                "--quiet",
                "--resume",
            ])
            .args(["--ranks", "2", "--set", "train.steps=3"])
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let difference = format!("arithmetic: was \"cpu abacus\", is \"{here}\"");
    let (code, said) = ringstep(&[]);
    assert_eq!(said, format!("error: {}\n", other_bits(&difference)));
    assert_eq!(code, Some(1));
    let (code, said) = ringstep(&["--allow-different-bits"]);
    assert_eq!(
        said.trim(),
        format!("WARN going on with other bits: {difference}")
    );
    assert_eq!(code, Some(0));
}

//! Runs on GPUs from beginning to end: the losses of CPU ranks, and with exact sums the same bits for
//! any number of ranks, whatever sums between them.

use std::fs;
use std::path::Path;

use ringstep::backend::cuda::Cuda;
use ringstep::checkpoint::Checkpoint;
use ringstep::comm::nccl::{self, NcclAlgorithm};
use ringstep::config::{Override, RunConfig};
use ringstep::train::{Begin, Bits, Existing, Ranks, Record, Session, read_metrics};

/// Largest difference of a loss from the CPU's over twenty steps.
const LOSS_ERROR: f64 = 1e-4;

pub(crate) const CNN: &str = r#"[
    {kind="conv2d",filters=4,kernel_size=3,activation="relu"},"batch_normalization","max_pooling2d",
    "flatten",{kind="dense",units=8,activation="relu"},{kind="dropout",rate=0.2},{kind="dense",units=3}
]"#;

pub(crate) const MLP: &str = r#"[
    "flatten",{kind="dense",units=16,activation="tanh"},"layer_normalization",
    {kind="residual",layers=[{kind="dense",units=16,activation="gelu"}]},
    {kind="dense",units=3,activation="softmax"}
]"#;

/// Images of 6 x 6 in three classes; ten steps an epoch, of which the last is short.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..36).map(|pixel| format!("p{pixel}")).collect();
    let mut lines = vec![format!("{},label\n", names.join(","))];
    for row in 0..76 {
        let pixel = |pixel: i32| ((row * 37 + pixel * 11) as f64 * 0.13).sin() + f64::from(row % 3);
        let pixels: Vec<_> = (0..36).map(|at| format!("{:.4}", pixel(at))).collect();
        lines.push(format!("{},{}\n", pixels.join(","), row % 3));
    }
    let (train, test) = (&lines[..], &lines[..lines.len() / 2]);
    fs::write(folder.path().join("train.csv"), train.concat()).unwrap();
    fs::write(folder.path().join("test.csv"), test.concat()).unwrap();
    let run = format!(
        "[data]\nformat = \"csv\"\ntrain = \"train.csv\"\ntest = \"test.csv\"\nlabel = \"label\"\n\
         shape = [6, 6, 1]\n\
         [model]\nloss = \"softmax_cross_entropy\"\nlayers = {MLP}\n\
         [train]\nglobal_batch = 8\nmicro_batch = 3\nsteps = 20\nlog_every = 1\n\
         evaluate_every = 0\ncheckpoint_every = 0\n\
         optimizer = {{ kind = \"adam\", learning_rate = 0.01 }}\nclip = {{ global_norm = 1.0 }}\n"
    );
    fs::write(folder.path().join("run.toml"), run).unwrap();
    folder
}

/// What sets the model's layers.
pub(crate) fn model(layers: &str) -> String {
    format!("model.layers={}", layers.replace('\n', " "))
}

pub(crate) fn session(folder: &Path, ranks: usize, overrides: &[&str]) -> Session {
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&folder.join("run.toml"), &overrides).unwrap();
    let begin = Begin::New(Existing::Replace);
    Session::new(config, folder.join("run"), begin, Ranks::Threads(ranks))
}

/// What a run came to: the loss of every step, the test's metrics, and the hash of its weights.
#[derive(Debug, PartialEq)]
pub(crate) struct Result {
    pub(crate) losses: Vec<f64>,
    pub(crate) test: Vec<f64>,
    pub(crate) weights: String,
}

pub(crate) fn train(folder: &Path, ranks: usize, overrides: &[&str]) -> Result {
    finish(&session(folder, ranks, overrides))
}

pub(crate) fn finish(session: &Session) -> Result {
    let outcome = session.train().unwrap();
    let records = read_metrics(&session.folder.join("metrics.jsonl")).unwrap();
    let loss = |record: &Record| match record {
        Record::Train(train) => Some(train.loss),
        _ => None,
    };
    let checkpoints = session.folder.join("checkpoints");
    let checkpoint = Checkpoint::newest(&checkpoints)
        .unwrap()
        .checkpoint
        .unwrap();
    Result {
        losses: records.iter().filter_map(loss).collect(),
        test: outcome.metrics.into_values().collect(),
        weights: checkpoint.manifest().files["model.safetensors"]
            .sha256
            .clone(),
    }
}

#[track_caller]
pub(crate) fn assert_near(expected: &Result, actual: &Result, what: &str) {
    assert_eq!(expected.losses.len(), 20);
    let pairs = [
        (&expected.losses, &actual.losses),
        (&expected.test, &actual.test),
    ];
    for (expected, actual) in pairs {
        assert_eq!(expected.len(), actual.len(), "{what}");
        for (step, (expected, actual)) in expected.iter().zip(actual).enumerate() {
            let difference = (expected - actual).abs();
            assert!(
                difference <= LOSS_ERROR,
                "{what}: {actual} is not {expected} at {step}"
            );
        }
    }
}

pub(crate) const CUDA: &str = "train.device=cuda";
pub(crate) const STAGED: &str = "train.collective=staged";
pub(crate) const NCCL: &str = "train.collective=nccl";

/// All gradients at once, or each tensor's in buckets of its own.
const ONE_BUCKET: &str = "train.bucket_mib=25";
pub(crate) const BUCKETS: &str = "train.bucket_mib=0.00001";

/// Whether the GPUs at hand can be summed so: NCCL has to be there, and wants one for each rank.
pub(crate) fn can_sum(ranks: usize, collective: &str) -> bool {
    collective != NCCL || has_nccl() && ranks <= Cuda::count().unwrap()
}

/// Whether NCCL is there, as it is beside the emulator.
fn has_nccl() -> bool {
    nccl::load(NcclAlgorithm::Auto).is_ok()
}

#[test]
fn sums_in_halves_are_those_of_cpu_ranks_up_to_their_rounding() {
    let folder = folder();
    let folder = folder.path();
    let half = "train.reduce=bf16";
    let cpu = train(folder, 2, &["train.device=cpu", half]);
    for collective in [STAGED, NCCL] {
        if !can_sum(2, collective) {
            continue;
        }
        let gpus = train(folder, 2, &[CUDA, half, collective, BUCKETS]);
        for (step, (expected, actual)) in cpu.losses.iter().zip(&gpus.losses).enumerate() {
            // Eight bits of a gradient, which Adam's first steps turn to whole steps.
            assert!(
                (expected - actual).abs() <= 1e-2,
                "{collective}: {actual} is not {expected} at {step}"
            );
        }
    }
}

#[test]
fn losses_are_those_of_cpu_ranks_on_any_number_of_gpus() {
    let folder = folder();
    let folder = folder.path();
    for layers in [CNN, MLP] {
        let model = &*model(layers);
        let cpu = train(folder, 1, &[model, "train.device=cpu", "train.reduce=f32"]);
        for (ranks, collective, bucket) in [
            (1, STAGED, ONE_BUCKET),
            (2, STAGED, BUCKETS),
            (3, STAGED, ONE_BUCKET),
            (1, NCCL, BUCKETS),
            (2, NCCL, ONE_BUCKET),
            (3, NCCL, BUCKETS),
        ] {
            if !can_sum(ranks, collective) {
                continue;
            }
            let gpus = train(folder, ranks, &[model, CUDA, collective, bucket]);
            let what = format!("{ranks} ranks, {collective}, {bucket}");
            assert_near(&cpu, &gpus, &what);
            assert_ne!(cpu.weights, gpus.weights, "{what}: computed on the CPU");
        }
    }
}

#[test]
fn exact_sums_give_the_same_bits_on_any_number_of_gpus() {
    let folder = folder();
    let folder = folder.path();
    for layers in [CNN, MLP] {
        let exact = [&*model(layers), CUDA, "train.reduce=exact"];
        let one = train(folder, 1, &exact);
        for (ranks, more) in [
            (2, [STAGED, "train.zero=0", ONE_BUCKET]),
            (3, [STAGED, "train.zero=1", BUCKETS]),
            (2, [NCCL, "train.zero=1", BUCKETS]),
            (3, [NCCL, "train.zero=0", BUCKETS]),
        ] {
            if !can_sum(ranks, more[0]) {
                continue;
            }
            let several = train(folder, ranks, &[&exact[..], &more].concat());
            assert_eq!(one, several, "{ranks} ranks, {more:?}");
        }
    }
}

#[test]
fn rounded_products_train_as_on_cpu_ranks_with_the_same_bits_on_any_number_of_gpus() {
    let folder = folder();
    let folder = folder.path();
    let model = &*model(CNN);
    let whole = train(folder, 1, &[model, CUDA, "train.reduce=exact"]);
    for precision in ["tf32", "bf16", "f16"] {
        let precision = format!("train.precision={precision}");
        let rounded = [model, &precision, "train.reduce=exact"];
        let cpu = train(folder, 1, &[&rounded[..], &["train.device=cpu"]].concat());
        let one = train(folder, 1, &[&rounded[..], &[CUDA]].concat());
        for (ranks, sums) in [
            (2, [STAGED, BUCKETS]),
            (2, [NCCL, ONE_BUCKET]),
            (3, [NCCL, BUCKETS]),
        ] {
            if can_sum(ranks, sums[0]) {
                let several = train(folder, ranks, &[&rounded[..], &[CUDA], &sums].concat());
                assert_eq!(one, several, "{precision}, {ranks} ranks, {sums:?}");
            }
        }
        assert_ne!(
            one.weights, whole.weights,
            "{precision}: nothing was rounded"
        );
        for (step, (expected, actual)) in cpu.losses.iter().zip(&one.losses).enumerate() {
            // What differs in the last place of an f32 may be rounded the other way: half a unit of
            // eight bits, which Adam's first steps turn to whole steps.
            assert!(
                (expected - actual).abs() <= 1e-2,
                "{precision}: {actual} is not {expected} at {step}"
            );
        }
    }
}

/// Numbers of a size that `f16` cannot hold 2^15 times, in few of the micro-batches.
#[test]
fn a_step_that_overflows_is_skipped_by_all_ranks_together() {
    let folder = folder();
    let folder = folder.path();
    let mut lines = vec!["a,b,y\n".to_owned()];
    for row in 0..80 {
        let [a, b] = [row * 7 % 11, row * 5 % 13].map(|x| f64::from(x) / 5.0 - 1.0);
        let far = if row % 16 == 3 { 300.0 } else { 1.0 };
        lines.push(format!("{a},{b},{}\n", far * (a - 0.5 * b)));
    }
    fs::write(folder.join("train.csv"), lines.concat()).unwrap();
    fs::write(
        folder.join("run.toml"),
        "[data]\nformat = \"csv\"\ntrain = \"train.csv\"\nlabel = \"y\"\n\
         [model]\nloss = \"squared_error\"\n\
         layers = [{ kind = \"dense\", units = 8, activation = \"tanh\" }, { kind = \"dense\", units = 1 }]\n\
         [train]\nglobal_batch = 8\nmicro_batch = 2\nsteps = 20\nlog_every = 1\n\
         precision = \"f16\"\noptimizer = { kind = \"adam\", learning_rate = 0.01 }\n",
    )
    .unwrap();
    // What each step lost to the factor, its losses, and the weights.
    let run = |ranks, overrides: &[&str]| {
        let session = session(folder, ranks, overrides);
        let result = finish(&session);
        let records = read_metrics(&session.folder.join("metrics.jsonl")).unwrap();
        let skipped = records.iter().filter_map(|record| match record {
            Record::Train(train) => Some((train.skipped.unwrap(), train.loss_scale.unwrap())),
            _ => None,
        });
        (skipped.collect::<Vec<_>>(), result)
    };
    let (expected, _) = run(1, &["train.device=cpu"]);
    let skipped = expected.iter().filter(|(skipped, _)| *skipped > 0).count();
    assert!((2..15).contains(&skipped), "{expected:?}");
    for reduce in ["train.reduce=exact", "train.reduce=f32"] {
        let one = run(1, &[CUDA, reduce]);
        assert_eq!(one.0, expected, "{reduce}");
        for (ranks, collective) in [(2, STAGED), (2, NCCL), (3, NCCL)] {
            if can_sum(ranks, collective) {
                let several = run(ranks, &[CUDA, reduce, collective]);
                let what = format!("{reduce}, {ranks} ranks, {collective}");
                assert_eq!(several.0, expected, "{what}");
                assert!(reduce.ends_with("f32") || several == one, "{what}");
            }
        }
    }
}

#[test]
fn a_run_goes_on_on_other_devices() {
    let folder = folder();
    let folder = folder.path();
    let exact = [CUDA, "train.reduce=exact"];
    let whole = train(folder, 2, &exact);
    let mut half = session(folder, 3, &[&exact[..], &["train.steps=10"]].concat());
    half.train().unwrap();
    half = session(folder, 1, &exact);
    half.begin = Begin::Resume(Bits::Same);
    let resumed = finish(&half);
    assert_eq!(resumed, whole, "resumed on another number of GPUs");

    half = session(folder, 1, &["train.device=cpu", "train.steps=30"]);
    half.begin = Begin::Resume(Bits::Same);
    let error = half.train().unwrap_err().to_string();
    assert!(error.contains("arithmetic"), "{error}");
    half.begin = Begin::Resume(Bits::MayDiffer);
    assert_eq!(half.train().unwrap().step, 30);
}

#[test]
fn gpus_that_are_not_there_and_sums_that_do_not_fit_are_named() {
    let folder = folder();
    let folder = folder.path();
    let error = |ranks, overrides: &[&str]| {
        let error = session(folder, ranks, overrides).train().unwrap_err();
        error.to_string()
    };
    let text = error(2, &["train.device=cuda:77"]);
    assert!(text.contains("77"), "{text}");
    if has_nccl() {
        let text = error(2, &["train.device=cuda:0", NCCL]);
        assert!(text.contains("ranks 0 and 1 are on the same GPU"), "{text}");
    }
    let text = error(2, &["train.device=cpu", NCCL]);
    assert!(text.contains("choose --device cuda"), "{text}");
}

#[test]
fn several_ranks_share_one_gpu_through_the_host() {
    let folder = folder();
    let folder = folder.path();
    let apart = train(folder, 2, &[CUDA, "train.reduce=exact", STAGED]);
    let last = format!("train.device=cuda:{}", Cuda::count().unwrap() - 1);
    for collective in ["train.collective=auto", "train.collective=ring"] {
        let exact = [&*last, "train.reduce=exact", collective];
        assert_eq!(apart, train(folder, 3, &exact), "{collective}");
    }
}

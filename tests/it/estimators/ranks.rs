//! The number of ranks changes neither the weights of an Estimator nor what evaluation says, and neither
//! does it matter whether a table lies in the arena; and what is refused.

use std::fs;
use std::path::Path;

use ringstep::config::{Override, RunConfig};
use ringstep::train::{Begin, Bits, Existing, Ranks, Session};

use crate::training::{Trained, finish};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Columns of every kind, and a hash with far more ids than a step touches.
fn run_file(kind: &str) -> String {
    let is_classifier = kind.ends_with("classifier");
    let (data, label, columns) = match is_classifier {
        true => (
            "iris",
            "species",
            "petal_length = \"numeric\"\n\
             petal_width = { kind = \"numeric\", normalize = \"standardize\" }\n\
             brand = { kind = \"hash\", source = \"sepal_width\", buckets = 1000000 }\n\
             length = { kind = \"bucketized\", source = \"sepal_length\", boundaries = [5, 6, 7] }\n\
             crossed = { kind = \"crossed\", keys = [\"length\", \"brand\"], buckets = 50000 }\n",
        ),
        false => (
            "autompg",
            "mpg",
            "petal_length = { kind = \"numeric\", source = \"weight\", normalize = \"standardize\" }\n\
             petal_width = { kind = \"numeric\", source = \"model_year\", normalize = \"standardize\" }\n\
             brand = { kind = \"hash\", buckets = 1000000 }\n\
             length = { kind = \"bucketized\", source = \"cylinders\", boundaries = [4, 5, 6] }\n\
             crossed = { kind = \"crossed\", keys = [\"length\", \"brand\"], buckets = 50000 }\n",
        ),
    };
    let wide = "[\"petal_length\", \"brand\", \"length\", \"crossed\"]";
    let deep = "[\"petal_length\", \"petal_width\", \"length\", \
                { kind = \"indicator\", column = \"length\" }, \
                { kind = \"embedding\", column = \"brand\", dimension = 3 }]";
    let arguments = match kind.rsplit_once('_').unwrap().0 {
        "baseline" => String::new(),
        "linear" => format!("feature_columns = {wide}\n"),
        "dnn" => format!(
            "feature_columns = {deep}\nhidden_units = [8, 6]\ndropout = 0.2\nbatch_norm = true\n"
        ),
        _ => format!(
            "linear_feature_columns = {wide}\ndnn_feature_columns = {deep}\ndnn_hidden_units = [8]\n"
        ),
    };
    let classes = if is_classifier { "n_classes = 3\n" } else { "" };
    format!(
        "[data]\nformat = \"csv\"\ntrain = \"{ROOT}/examples/{data}/train.csv\"\n\
         test = \"{ROOT}/examples/{data}/test.csv\"\nlabel = \"{label}\"\n\n[columns]\n{columns}\n\
         [estimator]\nkind = \"{kind}\"\n{classes}{arguments}\n[train]\ndevice = \"cpu\"\n\
         global_batch = 32\nmicro_batch = 6\nsteps = 12\nlog_every = 1\nreduce = \"exact\"\n\
         loss_reduction = \"mean\"\n"
    )
}

fn train(text: &str, folder: &Path, ranks: usize, begin: Begin, set: &[&str]) -> Trained {
    let path = folder.with_extension("toml");
    fs::write(&path, text).unwrap();
    let overrides: Vec<_> = set.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&path, &overrides);
    let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
    finish(&Session::new(config, folder, begin, Ranks::Threads(ranks))).unwrap()
}

const NEW: Begin = Begin::New(Existing::Keep);

#[test]
fn all_eight_have_equal_bits_and_metrics_on_any_number_of_ranks() {
    for what in ["linear", "dnn", "dnn_linear_combined", "baseline"] {
        for label in ["classifier", "regressor"] {
            let text = run_file(&format!("{what}_{label}"));
            let folder = tempfile::tempdir().unwrap();
            let run = |ranks: usize, collective: &str| {
                let folder = folder.path().join(format!("on-{ranks}"));
                let collective = format!("train.collective={collective}");
                train(&text, &folder, ranks, NEW, &[&collective])
            };
            let alone = run(1, "auto");
            let metrics = &alone.outcome.metrics;
            assert!(metrics.contains_key("test_average_loss"), "{metrics:?}");
            for (ranks, collective) in [(2, "direct"), (3, "ring"), (4, "hierarchical")] {
                let several = run(ranks, collective);
                let what = format!("{what} {label}, {ranks} ranks, {collective}");
                assert_eq!(&several.outcome.metrics, metrics, "{what}");
                assert_eq!(several.digest, alone.digest, "{what}");
            }
        }
    }
}

#[test]
fn a_run_with_tables_goes_on_with_another_number_of_ranks_as_if_it_had_not_stopped() {
    let text = run_file("dnn_linear_combined_regressor");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole = train(&text, &path("whole"), 2, NEW, &["train.steps=20"]);
    train(&text, &path("parts"), 1, NEW, &[]);
    let begin = Begin::Resume(Bits::Same);
    let parts = train(&text, &path("parts"), 3, begin, &["train.steps=20"]);
    assert_eq!(parts.outcome.metrics, whole.outcome.metrics);
    assert_eq!(parts.digest, whole.digest);
    // Small buckets cut the rows of a table that a step touches.
    let small = ["train.steps=20", "train.bucket_mib=0.0001"];
    let small = train(&text, &path("small"), 2, NEW, &small);
    assert_eq!(small.digest, whole.digest);
}

#[test]
fn a_table_has_the_same_bits_in_the_arena_and_outside() {
    // Under ZeRO-1 tables lie in the arena. Under this rule they may: a zero gradient changes nothing.
    for what in ["linear_classifier", "dnn_regressor"] {
        let text = run_file(what);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let rule = "estimator.optimizer={kind=\"adagrad\",learning_rate=0.1}";
        let set = [
            rule,
            "train.schedule={kind=\"exponential\",decay_steps=5,decay_rate=0.5}",
        ];
        let outside = train(&text, &path("outside"), 2, NEW, &set);
        let set = [&set[..], &["train.zero=1"]].concat();
        let inside = train(&text, &path("inside"), 2, NEW, &set);
        assert_eq!(inside.outcome.metrics, outside.outcome.metrics);
        assert_eq!(inside.digest, outside.digest, "{what}");
    }
}

/// Why a run cannot be trained.
fn refusal(text: &str, set: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, text).unwrap();
    let overrides: Vec<_> = set.iter().map(|text| Override::set(text)).collect();
    match RunConfig::load(&path, &overrides) {
        Err(error) => error.to_string(),
        Ok(config) => {
            let session = Session::new(config, folder.path().join("run"), NEW, Ranks::Threads(1));
            session.train().unwrap_err().to_string()
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_remedy() {
    let text = run_file("linear_classifier");
    let sharded = refusal(&text, &["train.zero=1"]);
    assert!(
        sharded.contains("zero = 1 cannot; set zero = 0"),
        "{sharded}"
    );
    let twice = "estimator.feature_columns=[\"length\", \"brand\", \"length\"]";
    let twice = refusal(&text, &[twice]);
    assert!(twice.contains("'length' is named twice"), "{twice}");
    let nothing = "estimator.feature_columns=[]";
    for kind in ["linear_classifier", "dnn_regressor"] {
        let nothing = refusal(&run_file(kind), &[nothing]);
        assert!(
            nothing.contains("names no columns; leave it out"),
            "{nothing}"
        );
    }
    let text = run_file("dnn_classifier");
    let plain = refusal(&text, &["estimator.feature_columns=[\"brand\"]"]);
    assert!(
        plain.contains("'brand' is categorical") && plain.contains("wrap it"),
        "{plain}"
    );
    let wrapped = "estimator.feature_columns=[{kind=\"indicator\",column=\"petal_length\"}]";
    let wrapped = refusal(&text, &[wrapped]);
    assert!(wrapped.contains("'petal_length' is numeric"), "{wrapped}");
}

#[test]
fn a_micro_batch_of_an_evaluation_may_be_larger_than_what_is_trained_on() {
    let text = run_file("linear_regressor");
    let folder = tempfile::tempdir().unwrap();
    let set = [
        "data.take=10",
        "train.global_batch=40",
        "train.micro_batch=30",
        "train.steps=2",
    ];
    let trained = train(&text, &folder.path().join("run"), 1, NEW, &set);
    assert!(trained.outcome.metrics["test_average_loss"].is_finite());
}

#[test]
fn a_side_of_rate_0_stands_still_and_the_other_learns() {
    let text = run_file("dnn_linear_combined_regressor");
    let folder = tempfile::tempdir().unwrap();
    let still = "estimator.dnn_optimizer={kind=\"sgd\",learning_rate=0.0}";
    let set = [
        still,
        "estimator.linear_optimizer={kind=\"sgd\",learning_rate=0.01}",
    ];
    let trained = train(&text, &folder.path().join("run"), 2, NEW, &set);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&trained.losses[8..]) < 0.8 * mean(&trained.losses[..4]),
        "{:?}",
        trained.losses
    );
}

#[test]
fn a_label_of_two_numbers_is_trained_as_two_labels_are() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| {
        let x = |j: usize| ((3 * i + j) * 7 % 11) as f32 * 0.1;
        let (a, b) = (x(0) - x(1), 2.0 * x(2));
        format!("{},{},{},{a},{b}\n", x(0), x(1), x(2))
    };
    let rows: String = (0..16).map(row).collect();
    fs::write(folder.path().join("rows.csv"), format!("x,y,z,a,b\n{rows}")).unwrap();
    let losses = |name: &str, labels: &[&str]| {
        let text = format!(
            "[data]\nformat = \"csv\"\ntrain = \"rows.csv\"\nfeatures = [\"x\", \"y\", \"z\"]\n\
             label = {labels:?}\n[estimator]\nkind = \"linear_regressor\"\nlabel_dimension = {}\n\
             optimizer = {{ kind = \"sgd\", learning_rate = 0.02 }}\n\
             [train]\ndevice = \"cpu\"\nglobal_batch = 8\nsteps = 6\nlog_every = 1\n",
            labels.len()
        );
        train(&text, &folder.path().join(name), 2, NEW, &[]).losses
    };
    let both = losses("both", &["a", "b"]);
    let (first, second) = (losses("first", &["a"]), losses("second", &["b"]));
    for ((both, first), second) in both.iter().zip(&first).zip(&second) {
        let sum = first + second;
        assert!((both - sum).abs() < 1e-5 * sum, "{both} {first} {second}");
    }
    assert!(both[5] < 0.9 * both[0], "{both:?}");
}

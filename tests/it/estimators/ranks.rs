//! The number of ranks changes neither the weights of an Estimator nor what evaluation says, and neither
//! does it matter whether a table lies in the arena.

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
         global_batch = 32\nmicro_batch = 6\nsteps = 12\nreduce = \"exact\"\n\
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
            let run = |ranks: usize| {
                let folder = folder.path().join(format!("on-{ranks}"));
                train(&text, &folder, ranks, NEW, &[])
            };
            let alone = run(1);
            let metrics = &alone.outcome.metrics;
            assert!(metrics.contains_key("test_average_loss"), "{metrics:?}");
            for ranks in [2, 3, 4] {
                let several = run(ranks);
                assert_eq!(
                    &several.outcome.metrics, metrics,
                    "{what} {label}, {ranks} ranks"
                );
                assert_eq!(
                    several.digest, alone.digest,
                    "{what} {label}, {ranks} ranks"
                );
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
}

#[test]
fn a_table_has_the_same_bits_in_the_arena_and_outside() {
    // Under ZeRO-1 tables lie in the arena.
    for what in ["linear_classifier", "linear_regressor"] {
        let text = run_file(what);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let outside = train(&text, &path("outside"), 2, NEW, &[]);
        let inside = train(&text, &path("inside"), 2, NEW, &["train.zero=1"]);
        assert_eq!(inside.outcome.metrics, outside.outcome.metrics);
        assert_eq!(inside.digest, outside.digest, "{what}");
    }
}

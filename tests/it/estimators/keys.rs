//! What `evaluate --json` and `predict --json` say of an Estimator has TensorFlow's keys, no more and no less.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::commands::output;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// What every evaluation says beside its metrics.
const OF_EVERY_MODEL: [&str; 4] = ["data", "epoch", "rows", "step"];

/// Trains an Estimator of numeric columns for some steps, and returns an object that says how it does on
/// the test rows, and one for the first of them.
fn objects(
    folder: &Path,
    (data, label): (&str, &str),
    estimator: &str,
    columns: &[&str],
) -> [Map<String, Value>; 2] {
    let columns: String = columns
        .iter()
        .map(|name| format!("{name} = \"numeric\"\n"))
        .collect();
    let test = format!("{EXAMPLES}/{data}/test.csv");
    let text = format!(
        "[data]\nformat = \"csv\"\ntrain = \"{test}\"\ntest = \"{test}\"\nlabel = \"{label}\"\n\
         [columns]\n{columns}[estimator]\n{estimator}\n[train]\ndevice = \"cpu\"\nglobal_batch = 32\n\
         steps = 3\n"
    );
    fs::write(folder.join(format!("{data}.toml")), text).unwrap();
    let run = format!("runs/{data}");
    output(folder, &["train", &format!("{data}.toml"), "--quiet"]);
    let evaluated = output(folder, &["evaluate", &run, "--json"]);
    let predicted = output(folder, &["predict", &run, "--input", &test, "--json"]);
    assert_eq!(
        predicted.lines().count() + 1,
        fs::read_to_string(&test).unwrap().lines().count()
    );
    [&*evaluated, predicted.lines().next().unwrap()].map(|text| serde_json::from_str(text).unwrap())
}

fn assert_keys(object: &Map<String, Value>, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

fn assert_evaluated(object: &Map<String, Value>, metrics: &[&str]) {
    let expected = [metrics, &["global_step"], &OF_EVERY_MODEL].concat();
    assert_keys(object, &expected);
    assert_eq!(object["global_step"], 3);
    for metric in metrics {
        assert!(object[*metric].as_f64().unwrap().is_finite(), "{metric}");
    }
}

#[test]
fn two_classes() {
    let folder = tempfile::tempdir().unwrap();
    let [evaluated, predicted] = objects(
        folder.path(),
        ("census", "income_over_50k"),
        "kind = \"linear_classifier\"",
        &["age", "education_num", "hours_per_week"],
    );
    assert_evaluated(
        &evaluated,
        &[
            "accuracy",
            "accuracy_baseline",
            "auc",
            "auc_precision_recall",
            "average_loss",
            "label/mean",
            "loss",
            "precision",
            "prediction/mean",
            "recall",
        ],
    );
    assert_keys(
        &predicted,
        &[
            "logits",
            "logistic",
            "probabilities",
            "class_ids",
            "classes",
            "all_class_ids",
            "all_classes",
        ],
    );
}

#[test]
fn three_classes() {
    let folder = tempfile::tempdir().unwrap();
    let [evaluated, predicted] = objects(
        folder.path(),
        ("iris", "species"),
        "kind = \"dnn_classifier\"\nn_classes = 3\nhidden_units = [4]",
        &["petal_length", "petal_width"],
    );
    assert_evaluated(&evaluated, &["accuracy", "average_loss", "loss"]);
    assert_keys(
        &predicted,
        &[
            "logits",
            "probabilities",
            "class_ids",
            "classes",
            "all_class_ids",
            "all_classes",
        ],
    );
    assert_eq!(predicted["probabilities"].as_array().unwrap().len(), 3);
}

#[test]
fn numbers() {
    let folder = tempfile::tempdir().unwrap();
    let [evaluated, predicted] = objects(
        folder.path(),
        ("autompg", "mpg"),
        "kind = \"dnn_regressor\"\nhidden_units = [4]",
        &["cylinders", "model_year"],
    );
    assert_evaluated(
        &evaluated,
        &["average_loss", "label/mean", "loss", "prediction/mean"],
    );
    assert_keys(&predicted, &["predictions"]);
}

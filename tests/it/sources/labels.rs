//! Labels of several numbers, of every format that has named columns.

use std::fs;

use ringstep::data::Targets;

use super::parquet::{Values, file};
use super::tfrecord::{List, example, record};
use super::{Folder, gzip};
use crate::commands::{failure, output};

/// Two columns are predicted, in this order.
const TWO: &str = "label = [\"v\", \"u\"]";

/// The lines of `[data]` for a file of that format, with the line of the `label`.
fn data(format: &str, file: &str, label: &str) -> String {
    format!("format = \"{format}\"\ntrain = \"{file}\"\n{label}")
}

#[track_caller]
fn check(folder: &Folder, width: usize, targets: &[f32]) {
    let table = folder.train().unwrap();
    assert_eq!(table.target_kind, Targets::Numbers(width));
    assert_eq!(table.targets, targets);
    assert_eq!(table.names, ["x"]);
}

#[test]
fn columns_follow_each_other_as_the_run_names_them() {
    let csv = "u,x,v\n1,2,3\n4,5,6\n";
    let folder = Folder::regression(&data("csv", "a.csv.gz", TWO)).with("a.csv.gz", gzip(csv));
    check(&folder, 2, &[3.0, 1.0, 6.0, 4.0]);
    let folder = folder.with("new.csv", "x\n7\n");
    let rows = folder.features("new.csv").unwrap();
    assert_eq!((rows.targets.len(), &rows.features[..]), (0, &[7.0][..]));

    let columns = [
        Values::Float(vec![1.0, 4.0]),
        Values::Int64(vec![2, 5]),
        Values::Double(vec![3.0, 6.0]),
    ];
    let schema = "required float u; required int64 x; required double v;";
    let file = file(schema, parquet::basic::Compression::SNAPPY, &columns);
    // Its two groups of rows are the same.
    check(
        &Folder::regression(&data("parquet", "a.parquet", TWO)).with("a.parquet", file),
        2,
        &[3.0, 1.0, 6.0, 4.0, 3.0, 1.0, 6.0, 4.0],
    );
}

#[test]
fn columns_of_several_values_are_labels_of_several_numbers() {
    let lines = "{\"x\": 1, \"u\": 2, \"v\": [3, 4]}\n{\"x\": 5, \"u\": 6, \"v\": [7, 8]}\n";
    let folder = Folder::regression(&data("jsonl", "a.jsonl", TWO)).with("a.jsonl", lines);
    check(&folder, 3, &[3.0, 4.0, 2.0, 7.0, 8.0, 6.0]);
    // Feature columns know their own names, so that the rows are not looked through for them.
    let columns = format!("{TWO}\n[columns]\nx = \"numeric\"");
    let folder = Folder::regression(&data("jsonl", "a.jsonl", &columns)).with("a.jsonl", lines);
    check(&folder, 3, &[3.0, 4.0, 2.0, 7.0, 8.0, 6.0]);

    let row = |values| {
        record(&example(&[
            ("x", List::Integers(&[1])),
            ("v", List::Floats(values)),
        ]))
    };
    let records = [row(&[2.5, 3.5]), row(&[4.5, 5.5])].concat();
    let data = data("tfrecord", "a.tfrecord", "label = \"v\"");
    let folder = Folder::regression(&data).with("a.tfrecord", records);
    check(&folder, 2, &[2.5, 3.5, 4.5, 5.5]);
}

#[test]
fn mistakes_name_the_column() {
    let csv = |label: &str| Folder::regression(&data("csv", "a.csv", label));
    let error = |folder: Folder| {
        folder
            .with("a.csv", "u,x,v\n1,2,3\n4,5,\n")
            .train()
            .unwrap_err()
    };
    assert_eq!(
        error(csv(TWO)),
        "a.csv:3: column 'v': the label is empty; leave the row out"
    );
    for (keys, problem) in [
        (
            "label = []",
            "4: data.label: names no columns; name the one to predict",
        ),
        (
            "label = [\"u\", \"u\"]",
            "4: data.label: 'u' is named twice",
        ),
        (
            "label = [\"u\", \"v\"]\nweight = \"v\"",
            "4: data.label: 'v' is the weight",
        ),
        (
            "label = [\"u\", \"v\"]\nfeatures = [\"x\", \"v\"]",
            "5: data.features: 'v' is the label",
        ),
        (
            "label = [\"u\", \"v\"]\n[columns]\nv = \"numeric\"",
            "6: columns.v: 'v' is the label; learn from other columns, or name another label in [data]",
        ),
        (
            "label = 3",
            "4: data.label: expected a string or an array of strings, found integer",
        ),
    ] {
        assert_eq!(error(csv(keys)), format!("run.toml:{problem}"), "{keys}");
    }
    assert_eq!(
        error(csv("label = [\"u\", \"w\"]")),
        "a.csv: no label column 'w'; known are u, x, v"
    );
    assert_eq!(
        error(Folder::new(&data("csv", "a.csv", TWO))),
        "run.toml:4: data.label: 2 columns, but a class is in one; name that, or for numbers take a \
         regressor or a loss such as squared_error"
    );
}

#[test]
fn rows_have_as_many_numbers_in_their_label_as_the_first() {
    let error = |lines: &str, columns: &str| {
        let data = data("jsonl", "a.jsonl", &format!("label = \"y\"\n{columns}"));
        let folder = Folder::regression(&data).with("a.jsonl", lines);
        folder.train().unwrap_err()
    };
    let two = "{\"x\": 1, \"y\": [1, 2]}\n";
    assert_eq!(
        error(&format!("{two}{{\"x\": 1, \"y\": [1]}}"), ""),
        "a.jsonl:2: column 'y': 1 values, but the first row has 2; mend the row"
    );
    assert_eq!(
        error(&format!("{two}{{\"x\": 1}}"), ""),
        "a.jsonl:2: column 'y': missing, but the first row has it; mend the row"
    );
    assert_eq!(
        error("{\"x\": 1, \"y\": []}", ""),
        "a.jsonl:1: column 'y': no value; leave the row out"
    );
    assert_eq!(
        error("{\"x\": 1}", "[columns]\nx = \"numeric\""),
        "a.jsonl: no label column 'y'; known are x"
    );
    assert_eq!(
        error("{\"x\": 1, \"y\": 1, \"w\": [1, 2]}", "weight = \"w\""),
        "a.jsonl:1: column 'w': 2 values, where one belongs; mend the row"
    );
}

#[test]
fn rows_that_are_tested_on_have_labels_as_those_that_are_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |label| format!("{{\"x\": 1, \"y\": {label}}}\n").repeat(2);
    let write = |name: &str, label| fs::write(folder.path().join(name), lines(label)).unwrap();
    write("train.jsonl", "[1, 2]");
    let run = "[data]\nformat = \"jsonl\"\ntrain = \"train.jsonl\"\ntest = \"test.jsonl\"\nlabel = \"y\"\n\
               [estimator]\nkind = \"linear_regressor\"\nlabel_dimension = 2\n\
               [train]\ndevice = \"cpu\"\nglobal_batch = 2\nsteps = 1\n";
    fs::write(folder.path().join("run.toml"), run).unwrap();
    for label in ["3", "[3, 4, 5]"] {
        write("test.jsonl", label);
        let error = failure(folder.path(), &["train", "run.toml"]);
        assert!(
            error.contains("test data: shape, columns, targets or encoding"),
            "{error}"
        );
    }
    write("test.jsonl", "[3, 4]");
    output(folder.path(), &["train", "run.toml"]);
}

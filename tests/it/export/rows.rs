//! `ringstep predict --encoded`: what it writes is what the exported model takes.

use std::fs;
use std::path::Path;

use super::{assert_near, load, run};
use crate::commands::{failure, output, rows, trained};

/// The shape and the numbers of a `.npy` file as numpy writes it.
fn read(path: &Path) -> (String, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\0");
    let begin = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!((begin % 64, bytes[begin - 1]), (0, b'\n'));
    let header = std::str::from_utf8(&bytes[10..begin]).unwrap().trim_end();
    let start = "{'descr': '<f4', 'fortran_order': False, 'shape': ";
    let shape = header.strip_prefix(start).unwrap().to_owned();
    let elements = bytes[begin..].as_chunks().0.iter();
    (
        shape,
        elements.map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    )
}

/// Rows with a number that is missing in every fifth, two numbers on boundaries, between and beyond them,
/// and categories.
fn samples() -> String {
    let mut text = String::new();
    for row in 0..40 {
        let level = match row % 5 {
            4 => String::new(),
            level => format!("\"level\": {}, ", level * 30 - 20),
        };
        let pair = [f64::from(row % 7) / 2.0, f64::from(row % 3)];
        let (city, label) = (row % 6, if row % 7 > 3 { "yes" } else { "no" });
        text += &format!(
            "{{{level}\"pair\": {pair:?}, \"city\": \"c{city}\", \"label\": \"{label}\"}}\n"
        );
    }
    text
}

const RUN: &str = r#"
    [data]
    format = "jsonl"
    train = "x.jsonl"
    label = "label"
    [columns]
    level = { kind = "numeric", default = 7, normalize = "standardize" }
    pair = { kind = "numeric", shape = 2 }
    level_bucket = { kind = "bucketized", source = "level", boundaries = [10, 40] }
    pair_bucket = { kind = "bucketized", source = "pair", boundaries = [0, 3] }
    city = { kind = "hash", buckets = 20 }
    word = { kind = "vocabulary", source = "city" }
    cross = { kind = "crossed", keys = ["city", "level_bucket"], buckets = 50 }
    [estimator]
    kind = "dnn_linear_combined_classifier"
    linear_feature_columns = ["city", "level_bucket", "cross", "word"]
    linear_optimizer = { kind = "sgd", learning_rate = 0.3 }
    dnn_feature_columns = ["level", "pair", "pair_bucket", { kind = "indicator", column = "level_bucket" }]
    dnn_hidden_units = [5]
    dnn_optimizer = { kind = "adam", learning_rate = 0.05 }
    [train]
    device = "cpu"
    global_batch = 8
    epochs = 5
"#;

#[test]
fn columns_are_encoded_as_the_exported_model_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("x.jsonl"), samples()).unwrap();
    fs::write(folder.join("city.toml"), RUN).unwrap();
    output(folder, &["train", "city.toml", "--quiet"]);
    output(folder, &["export", "runs/city", "--format", "onnx"]);
    let predict = ["predict", "runs/city", "--input", "x.jsonl"];
    let predicted = output(folder, &[&predict[..], &["--encoded", "x.npy"]].concat());
    assert_eq!(output(folder, &predict), predicted);

    let (shape, encoded) = read(&folder.join("x.npy"));
    assert_eq!(shape, "(40, 9, ), }");
    // city, level_bucket, cross, word; level, pair, pair_bucket: numbers as they stand in the data.
    let numbers = |row: usize| {
        let row = &encoded[row * 9..][..9];
        [&row[1..2], &row[4..]].concat()
    };
    assert_eq!(numbers(3), [70.0, 70.0, 1.5, 0.0, 1.5, 0.0]);
    assert_eq!(numbers(4), [7.0, 7.0, 2.0, 1.0, 2.0, 1.0]);
    let model = load(fs::read(folder.join("runs/city/model.onnx")).unwrap());
    let expected: Vec<f32> = predicted
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(3).unwrap().parse().unwrap())
        .collect();
    let distinct: std::collections::BTreeSet<_> = expected.iter().map(|p| p.to_bits()).collect();
    assert!(distinct.len() > 30, "{expected:?}");
    assert_near(
        "columns",
        &run(&model, 40, &[9].into(), &encoded),
        &expected,
    );
}

#[test]
fn rows_without_columns_are_as_they_stand_in_the_data() {
    let folder = trained();
    let folder = folder.path();
    fs::write(folder.join("x.csv"), rows(60, false)).unwrap();
    let predict = ["predict", "runs/two", "--input", "x.csv", "--encoded"];
    output(folder, &[&predict[..], &["x.npy"]].concat());
    let (shape, encoded) = read(&folder.join("x.npy"));
    // Its run file scales them.
    assert_eq!(encoded[..4], [5.0, 7.0, 10.0, 3.0]);
    assert_eq!(shape, format!("({}, 2, ), }}", encoded.len() / 2));
    // And they are read again.
    let again = [
        "predict",
        "runs/two",
        "--input",
        "x.npy",
        "--encoded",
        "y.npy",
    ];
    output(folder, &again);
    assert_eq!(read(&folder.join("y.npy")), (shape, encoded));

    for (path, problem) in [
        ("x.csv", "--encoded x.csv is the input"),
        (
            "runs/two/config.toml",
            "--encoded runs/two/config.toml belongs to a run",
        ),
        ("y.csv", "--encoded y.csv takes the predictions"),
        (
            "runs/../y.csv",
            "--encoded runs/../y.csv takes the predictions",
        ),
    ] {
        let error = failure(
            folder,
            &[&predict[..], &[path, "--output", "y.csv"]].concat(),
        );
        assert!(error.contains(problem), "{error}");
        assert!(
            error.contains("name another file, or it would be lost"),
            "{error}"
        );
    }
    assert_eq!(
        fs::read_to_string(folder.join("x.csv")).unwrap(),
        rows(60, false)
    );
}

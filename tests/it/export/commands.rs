//! `ringstep export` as it is typed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringstep::layers::Shape;
use safetensors::SafeTensors;

use super::{assert_near, digits, load, run};
use crate::commands::{failure, output, ringstep, trained, trained_on_columns};

/// The numbers in the columns of a CSV file that `wanted` wants.
fn columns(text: &str, wanted: impl Fn(&str) -> bool) -> (usize, Vec<f32>) {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut rows = 0;
    let mut numbers = Vec::new();
    for line in lines {
        rows += 1;
        let fields = header.iter().zip(line.split(','));
        let fields = fields.filter(|(name, _)| wanted(name));
        numbers.extend(fields.map(|(_, field)| field.parse::<f32>().unwrap()));
    }
    (rows, numbers)
}

/// Compares the exported model with what the run says of a file, whose features stand in the order in
/// which the model takes them.
fn check(folder: &Path, run_folder: &str, shape: &Shape, input: &str) {
    output(folder, &["export", run_folder, "--format", "onnx"]);
    let model = load(fs::read(folder.join(run_folder).join("model.onnx")).unwrap());
    let text = fs::read_to_string(folder.join(input)).unwrap();
    let (rows, features) = columns(&text, |name| !["label", "digit"].contains(&name));
    let predicted = output(folder, &["predict", run_folder, "--input", input]);
    let (_, expected) = columns(&predicted, |name| name.starts_with("probabilities"));
    assert!(rows > 0 && expected.len() >= rows, "{predicted}");
    assert_near(run_folder, &run(&model, rows, shape, &features), &expected);
}

#[test]
fn the_exported_digits_are_predicted_alike() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let run_file = digits().join("run.toml");
    let train = [
        "train",
        run_file.to_str().unwrap(),
        "--run-dir",
        "digits",
        "-q",
    ];
    output(
        folder,
        &[&train[..], &["--device", "cpu", "--set", "train.epochs=1"]].concat(),
    );
    fs::copy(digits().join("test.csv"), folder.join("test.csv")).unwrap();
    check(folder, "digits", &[8, 8, 1].into(), "test.csv");
}

#[test]
fn features_are_taken_as_they_stand_in_the_data() {
    // Its run file scales them.
    let folder = trained();
    check(folder.path(), "runs/two", &[2].into(), "test.csv");
    let normalised = [
        "--set",
        "data.mean=[0.25, -0.5]",
        "--set",
        "data.std=[0.5, 2]",
    ];
    let train = ["train", "two.toml", "--run-dir", "normalised", "-q"];
    output(folder.path(), &[&train[..], &normalised].concat());
    check(folder.path(), "normalised", &[2].into(), "test.csv");
}

#[test]
fn columns_are_normalised_in_the_graph() {
    let folder = trained_on_columns();
    check(folder.path(), "runs/two", &[2].into(), "test.csv");
}

#[test]
fn the_weights_are_read_under_keras_names() {
    let folder = trained();
    let folder = folder.path();
    let export = ["export", "runs/two", "--format", "safetensors"];
    output(folder, &export);
    let contents = fs::read(folder.join("runs/two/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&contents).unwrap();
    let mut found: Vec<_> = tensors
        .iter()
        .map(|(name, t)| (name, t.shape().to_vec()))
        .collect();
    found.sort();
    let expected = [("dense/bias", vec![2]), ("dense/kernel", vec![2, 2])];
    assert_eq!(found, expected);
    output(folder, &[&export[..], &["--output", "again"]].concat());
    assert_eq!(fs::read(folder.join("again")).unwrap(), contents);
}

#[test]
fn a_checkpoint_is_chosen_by_name() {
    let folder = trained();
    let folder = folder.path();
    let checkpoints = fs::read_dir(folder.join("runs/two/checkpoints")).unwrap();
    let mut files = Vec::new();
    for entry in checkpoints {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let export = [
            "export",
            "runs/two",
            "--format",
            "onnx",
            "--checkpoint",
            &name,
        ];
        output(folder, &[&export[..], &["--output", &name]].concat());
        files.push(fs::read(folder.join(&name)).unwrap());
    }
    assert!(files.len() > 1 && files[0] != files[1]);
}

#[test]
fn a_run_that_rounds_operands_is_told_that_the_exported_model_does_not() {
    let folder = trained();
    let folder = folder.path();
    let train = ["train", "two.toml", "--run-dir", "b", "--precision", "bf16"];
    output(folder, &train);
    let warning = "computes in f32: its outputs are not those of `ringstep predict`, which rounds \
                   operands to bf16";
    for (run, format, is_warned) in [
        ("b", "onnx", true),
        ("b", "safetensors", false),
        ("runs/two", "onnx", false),
    ] {
        let output = ringstep(folder, &["export", run, "--format", format]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains(warning), is_warned, "{run} {format}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn a_stream_gets_the_bytes() {
    let folder = trained();
    let folder = folder.path();
    let export = ["export", "runs/two", "--format", "onnx", "--output"];
    output(folder, &[&export[..], &["file"]].concat());
    let piped = Command::new(env!("CARGO_BIN_EXE_ringstep"))
        .args(export)
        .arg("/dev/stdout")
        .current_dir(folder)
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(folder.join("file")).unwrap());
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let folder = trained();
    let folder = folder.path();
    let export = |run: &str, more: &[&str]| {
        failure(
            folder,
            &[&["export", run, "--format", "onnx"], more].concat(),
        )
    };
    let error = export("runs/other", &[]);
    assert!(error.contains("error: no run in runs/other"), "{error}");
    let error = export("runs/two", &["--checkpoint", "step-1"]);
    assert!(error.contains("no checkpoint 'step-1'"), "{error}");
    let error = export("runs/two", &["--output", "nowhere/model.onnx"]);
    assert!(
        error.contains("--output nowhere/model.onnx: there is no folder nowhere; make it, or name"),
        "{error}"
    );
    let config = fs::read(folder.join("runs/two/config.toml")).unwrap();
    let error = export("runs/two", &["--output", "runs/two/config.toml"]);
    assert!(
        error.contains("belongs to a run; name another file"),
        "{error}"
    );
    assert_eq!(
        fs::read(folder.join("runs/two/config.toml")).unwrap(),
        config
    );
    fs::remove_dir_all(folder.join("runs/two/checkpoints")).unwrap();
    let error = export("runs/two", &[]);
    assert!(
        error.contains("no whole checkpoint in runs/two/checkpoints"),
        "{error}"
    );
}

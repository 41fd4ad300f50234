//! What commands print and write, and where.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{GrayImage, Luma};

use crate::commands::{failure, output, ringstep, trained};

#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_not_replaced() {
    let folder = trained();
    let folder = folder.path();
    let output = folder.join("full.csv");
    std::os::unix::fs::symlink("/dev/full", &output).unwrap();
    let error = failure(
        folder,
        &[
            "predict", "runs/two", "--input", "test.csv", "--output", "full.csv",
        ],
    );
    assert!(error.contains("full.csv"), "{error}");
    assert_eq!(fs::read_link(&output).unwrap(), Path::new("/dev/full"));
}

#[test]
fn an_output_that_is_closed_early_is_no_mistake() {
    let folder = trained();
    for command in [
        &["inspect", "runs/two"][..],
        &["evaluate", "runs/two"],
        &["predict", "runs/two", "--input", "test.csv"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args(command)
            .arg("--quiet")
            .current_dir(folder.path())
            .stdout(writer)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links_stay_and_what_they_lead_to_is_written() {
    let folder = trained();
    let folder = folder.path();
    let predict = ["predict", "runs/two", "--input", "test.csv", "--quiet"];
    let expected = output(folder, &predict);
    fs::write(
        folder.join("target.csv"),
        "an older, longer file\n".repeat(1000),
    )
    .unwrap();
    std::os::unix::fs::symlink("target.csv", folder.join("link.csv")).unwrap();
    output(folder, &[&predict[..], &["--output", "link.csv"]].concat());
    assert_eq!(
        fs::read_link(folder.join("link.csv")).unwrap(),
        Path::new("target.csv")
    );
    assert_eq!(
        fs::read_to_string(folder.join("target.csv")).unwrap(),
        expected
    );

    let before = fs::read_link("/dev/stdout").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_ringstep"))
        .args(predict)
        .args(["--output", "/dev/stdout"])
        .current_dir(folder)
        .stdout(fs::File::create(folder.join("out.csv")).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_link("/dev/stdout").unwrap(), before);
    assert_eq!(
        fs::read_to_string(folder.join("out.csv")).unwrap(),
        expected
    );
}

#[test]
fn outputs_that_are_not_finite_are_no_predictions() {
    let folder = trained();
    // With weights as large as this the largest numbers overflow.
    let train = [
        "train",
        "two.toml",
        "--run-dir",
        "raw",
        "--set",
        "train.optimizer.learning_rate=5.0",
    ];
    output(folder.path(), &train);
    let rows = "a,b\n1,2\n3e38,-3e38\n";
    fs::write(folder.path().join("huge.csv"), rows).unwrap();
    let predict = ["predict", "raw", "--input", "huge.csv", "--output", "y.csv"];
    let error = failure(folder.path(), &predict);
    assert!(error.contains("huge.csv: row 2 of the data"), "{error}");
    assert!(!folder.path().join("y.csv").exists());
}

#[test]
fn the_lines_printed_after_training_can_be_typed() {
    let folder = trained();
    let folder = folder.path();
    let train = [
        "train",
        "two.toml",
        "--run-dir",
        "a run",
        "--set",
        "train.epochs=2",
    ];
    let train = [&train[..], &["--set", "data.scale = 0.2"]].concat();
    let printed = output(folder, &train);
    let next = printed
        .split("next:")
        .nth(1)
        .unwrap()
        .replace("rows.csv", "test.csv");
    assert_eq!(next.trim().lines().count(), 3, "{printed}");
    for line in next.trim().lines() {
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder)
            .output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
    }
    assert!(
        folder.join("a run/checkpoints/step-10").exists(),
        "{printed}"
    );
}

#[test]
fn the_rows_that_are_predicted_are_kept() {
    let folder = trained();
    let folder = folder.path();
    let before = fs::read(folder.join("test.csv")).unwrap();
    let predict = ["predict", "runs/two", "--input", "test.csv", "--output"];
    let error = failure(folder, &[&predict[..], &["./test.csv"]].concat());
    assert!(error.contains("is the input"), "{error}");
    let pattern = ["predict", "runs/two", "--input", "tes?.csv", "--output"];
    let error = failure(folder, &[&pattern[..], &["test.csv"]].concat());
    assert!(error.contains("is the input"), "{error}");
    assert_eq!(fs::read(folder.join("test.csv")).unwrap(), before);
    failure(folder, &[&predict[..], &["runs"]].concat());
    let left = fs::read_dir(folder).unwrap();
    let mut left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!left.any(|name| name.contains("partial")));
}

#[test]
fn what_a_run_has_and_reads_is_kept() {
    let folder = trained();
    let folder = folder.path();
    let export = ["export", "runs/two", "--format", "onnx"];
    output(folder, &export);
    output(folder, &["export", "runs/two", "--format", "safetensors"]);
    fs::write(folder.join("x.csv"), "a,b\n1,2\n").unwrap();
    let predict = ["predict", "runs/two", "--input", "x.csv"];
    let (both, onnx) = (&["--output", "--encoded"][..], &["--output"][..]);
    for (command, flags, path, problem) in [
        (
            &predict[..],
            both,
            "train.csv",
            "is what the run learns from or is tested on",
        ),
        (
            &predict,
            both,
            "runs/../test.csv",
            "is what the run learns from or is tested on",
        ),
        (&predict, both, "x.csv", "is the input"),
        (&predict, both, "runs/two/config.toml", "belongs to a run"),
        (&predict, both, "runs/two/metrics.jsonl", "belongs to a run"),
        (
            &predict,
            both,
            "runs/two/checkpoints/new",
            "belongs to a run",
        ),
        (&predict, both, "runs/two/exports", "belongs to a run"),
        (&predict, both, "runs/two/tensorboard", "belongs to a run"),
        (
            &predict,
            both,
            "runs/two/model.onnx",
            "is an exported model",
        ),
        (
            &predict,
            both,
            "runs/two/model.safetensors",
            "is an exported model",
        ),
        (
            &export,
            onnx,
            "runs/two/model.safetensors",
            "is an exported model",
        ),
        (
            &export,
            onnx,
            "test.csv",
            "is what the run learns from or is tested on",
        ),
    ] {
        let before = fs::read(folder.join(path)).ok();
        for flag in flags {
            let error = failure(folder, &[command, &[flag, path]].concat());
            let expected =
                format!("error: {flag} {path} {problem}; name another file, or it would be lost\n");
            assert_eq!(error, expected);
        }
        assert_eq!(fs::read(folder.join(path)).ok(), before, "{path}");
    }
    // The same model again is no loss, nor is a file that only lies beside.
    output(folder, &export);
    for _ in 0..2 {
        output(
            folder,
            &[&predict[..], &["--output", "runs/two/y.csv"]].concat(),
        );
    }
    output(
        folder,
        &["train", "two.toml", "--run-dir", "other", "--quiet"],
    );
    for part in ["config.toml", "checkpoints/y.csv"] {
        let path = format!("other/{part}");
        let error = failure(folder, &[&predict[..], &["--output", &path]].concat());
        assert!(error.contains("belongs to a run"), "{error}");
    }
    let error = failure(folder, &[&predict[..], &["--output", "no/y.csv"]].concat());
    let expected =
        "error: --output no/y.csv: there is no folder no; make it, or name a file in another\n";
    assert_eq!(error, expected);
}

#[test]
fn images_that_a_run_reads_are_kept() {
    let folder = trained();
    let folder = folder.path();
    for class in ["cat", "dog"] {
        fs::create_dir_all(folder.join("photos").join(class)).unwrap();
        let image = GrayImage::from_pixel(2, 2, Luma([class.len() as u8]));
        let path = format!("photos/{class}/1.png");
        image.save(folder.join(path)).unwrap();
    }
    let run = "[data]\nformat = \"images\"\ntrain = \"photos\"\nshape = [2, 2, 1]\n\
               [model]\nloss = \"softmax_cross_entropy\"\nlayers = [\"flatten\", { kind = \"dense\", units = 2 }]\n\
               [train]\ndevice = \"cpu\"\nglobal_batch = 2\nsteps = 1\noptimizer = { kind = \"sgd\", learning_rate = 1 }\n";
    fs::write(folder.join("images.toml"), run).unwrap();
    output(folder, &["train", "images.toml"]);
    let predict = [
        "predict",
        "runs/images",
        "--input",
        "photos/cat",
        "--output",
    ];
    for (input, problem) in [
        ("photos/cat", "is the input"),
        ("photos/dog", "is what the run learns from or is tested on"),
    ] {
        let error = failure(
            folder,
            &[
                "predict",
                "runs/images",
                "--input",
                input,
                "--output",
                "photos/cat/1.png",
            ],
        );
        let expected = format!(
            "error: --output photos/cat/1.png {problem}; name another file, or it would be lost\n"
        );
        assert_eq!(error, expected);
    }
    // What is no image may lie beside them.
    for _ in 0..2 {
        output(folder, &[&predict[..], &["photos/y.csv"]].concat());
    }
}

#[test]
fn a_dash_is_the_standard_input() {
    let folder = trained();
    let folder = folder.path();
    let of_file = output(folder, &["predict", "runs/two", "--input", "test.csv"]);
    let rows = fs::File::open(folder.join("test.csv")).unwrap();
    let of_input = Command::new(env!("CARGO_BIN_EXE_ringstep"))
        .args(["predict", "runs/two", "--input", "-"])
        .current_dir(folder)
        .stdin(rows)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(of_input.stdout).unwrap(), of_file);
}

#[test]
fn a_dash_is_the_standard_output() {
    let folder = trained();
    let folder = folder.path();
    let predict = ["predict", "runs/two", "--input", "test.csv"];
    let with = |more: &[&str]| ringstep(folder, &[&predict[..], more].concat());
    let printed = with(&[]).stdout;
    assert_eq!(with(&["--output", "-"]).stdout, printed);
    with(&["--encoded", "x.npy"]);
    let encoded = with(&["--encoded", "-", "--output", "y.csv"]).stdout;
    assert_eq!(fs::read(folder.join("x.npy")).unwrap(), encoded);
    assert_eq!(fs::read(folder.join("y.csv")).unwrap(), printed);
    for more in [
        &["--encoded", "-"][..],
        &["--encoded", "-", "--output", "-"],
    ] {
        let error = failure(folder, &[&predict[..], more].concat());
        assert!(
            error.contains("--encoded - takes the predictions"),
            "{error}"
        );
    }
    let export = ["export", "runs/two", "--format", "onnx"];
    output(folder, &export);
    let model = ringstep(folder, &[&export[..], &["--output", "-"]].concat()).stdout;
    assert_eq!(fs::read(folder.join("runs/two/model.onnx")).unwrap(), model);
    assert!(!folder.join("-").exists());
}

#[test]
fn what_runs_is_said_at_the_start() {
    let folder = trained();
    let train = [
        "train",
        "two.toml",
        "--run-dir",
        "said",
        "--ranks",
        "3",
        "--zero",
        "1",
    ];
    let scaled = [
        "--set",
        "train.scale_rate_with_ranks=true",
        "--set",
        "train.log_every=1",
    ];
    let output = ringstep(folder.path(), &[&train[..], &scaled].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = ", collective: direct, reduce: exact, zero: 1, learning rate times";
    assert!(said.contains("ranks: 3, device: cpu "), "{said}");
    assert!(
        said.contains(", precision: f32, matmul: kernels, collective"),
        "{said}"
    );
    assert!(said.contains(expected), "{said}");
    let metrics = fs::read_to_string(folder.path().join("said/metrics.jsonl")).unwrap();
    let lines = metrics
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let rates: Vec<f64> = lines
        .filter_map(|line| line.unwrap()["rate"].as_f64())
        .collect();
    assert!(!rates.is_empty());
    for rate in rates {
        assert!((rate - 0.3).abs() < 1e-12, "{rate} of 3 x 0.1");
    }
}

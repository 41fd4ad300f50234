//! The program as it is typed: a small run trained, inspected, evaluated and applied.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program in `folder`.
pub(crate) fn ringstep(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringstep"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Standard output of a command that has to succeed.
pub(crate) fn output(folder: &Path, arguments: &[&str]) -> String {
    let output = ringstep(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that has to fail.
pub(crate) fn failure(folder: &Path, arguments: &[&str]) -> String {
    let output = ringstep(folder, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Rows whose class is the larger of two features.
pub(crate) fn rows(count: u32, with_label: bool) -> String {
    let mut text = String::from(if with_label {
        "b,label,a\n"
    } else {
        "extra,a,b\n"
    });
    for row in 0..count {
        let (a, b) = (row * 7 % 11, row * 5 % 13);
        if a != b {
            let label = if a > b { "left" } else { "right" };
            text += &match with_label {
                true => format!("{b},{label},{a}\n"),
                false => format!("{label},{a},{b}\n"),
            };
        }
    }
    text
}

/// A folder with a trained run in `runs/two`.
pub(crate) fn trained() -> tempfile::TempDir {
    trained_on("scale = 0.1")
}

/// The same of feature columns.
pub(crate) fn trained_on_columns() -> tempfile::TempDir {
    trained_on(
        "[columns]\n\
         second = { kind = \"numeric\", source = \"b\", normalize = \"standardize\" }\n\
         a = { kind = \"numeric\", default = 4, normalize = { scale = 0.25, offset = -1 } }",
    )
}

/// The same with these lines behind those of `[data]`.
fn trained_on(lines: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.csv"), rows(150, true)).unwrap();
    fs::write(folder.path().join("test.csv"), rows(60, true)).unwrap();
    let run = r#"
        [data]
        format = "csv"
        train = "train.csv"
        test = "test.csv"
        label = "label"
        LINES
        [model]
        loss = "softmax_cross_entropy"
        [[model.layers]]
        kind = "dense"
        units = 2
        activation = "softmax"
        [train]
        device = "cpu"
        global_batch = 32
        micro_batch = 8
        epochs = 40
        optimizer = { kind = "adam", learning_rate = 0.1 }
    "#;
    fs::write(folder.path().join("two.toml"), run.replace("LINES", lines)).unwrap();
    output(folder.path(), &["train", "two.toml", "--ranks", "2"]);
    folder
}

#[test]
fn a_trained_run_is_inspected_evaluated_and_applied() {
    let folder = trained();
    let folder = folder.path();

    let inspected = output(folder, &["inspect", "runs/two"]);
    for part in [
        "dense",
        "6 parameters",
        "step-",
        "test_accuracy",
        "samples/s",
    ] {
        assert!(inspected.contains(part), "{part} in\n{inspected}");
    }

    let metrics = folder.join("runs/two/metrics.jsonl");
    let last_line = || {
        fs::read_to_string(&metrics)
            .unwrap()
            .lines()
            .last()
            .unwrap()
            .to_owned()
    };
    let during_training = last_line();
    assert!(
        during_training.contains(r#""kind":"evaluate""#),
        "{during_training}"
    );
    let one = output(folder, &["evaluate", "runs/two"]);
    assert_eq!(last_line(), during_training);
    assert_eq!(
        output(folder, &["evaluate", "runs/two", "--ranks", "3"]),
        one
    );
    assert!(one.contains("accuracy"), "{one}");

    fs::write(folder.join("x.csv"), rows(60, false)).unwrap();
    let predict = ["predict", "runs/two", "--input", "x.csv"];
    let printed = output(folder, &predict);
    output(folder, &[&predict[..], &["--output", "y.csv"]].concat());
    assert_eq!(fs::read_to_string(folder.join("y.csv")).unwrap(), printed);
    let mut lines = printed.lines();
    assert_eq!(
        lines.next(),
        Some("classes,class_ids,probabilities_left,probabilities_right")
    );
    let truth = rows(60, false);
    let pairs: Vec<_> = lines.zip(truth.lines().skip(1)).collect();
    assert_eq!(pairs.len(), truth.lines().count() - 1);
    let class = |line: &str| line.split(',').next().unwrap().to_owned();
    let right = pairs.iter().filter(|(y, x)| class(y) == class(x)).count();
    assert!(right * 10 >= pairs.len() * 9, "{right} of {}", pairs.len());
}

#[test]
fn a_run_of_columns_encodes_what_it_predicts_from_as_it_was_trained() {
    let folder = trained_on_columns();
    let folder = folder.path();
    // What is known of the training data stands in the checkpoint.
    fs::remove_file(folder.join("train.csv")).unwrap();
    let inspected = output(folder, &["inspect", "runs/two"]);
    let table = "\
column  kind     numbers  ids
second  numeric        1
a       numeric        1
";
    assert!(inspected.starts_with(table), "{inspected}");
    let evaluated = output(folder, &["evaluate", "runs/two"]);
    assert!(evaluated.contains("accuracy"), "{evaluated}");

    fs::write(folder.join("x.csv"), "extra,b,a\n1,2,9\n1,7,\n").unwrap();
    let json = "{\"a\": 9, \"b\": 2}\n{\"b\": 7}\n{\"b\": 2, \"a\": 4}\n";
    fs::write(folder.join("x.jsonl"), json).unwrap();
    let predict = |input| output(folder, &["predict", "runs/two", "--input", input]);
    let printed = predict("x.csv");
    assert_eq!(printed.lines().count(), 3);
    assert!(predict("x.jsonl").starts_with(&printed), "{printed}");
    let classes: Vec<&str> = printed
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap())
        .collect();
    assert_eq!(classes, ["left", "right"]);
    fs::write(folder.join("x.csv"), "b,a\nx,9\n").unwrap();
    assert_eq!(
        failure(folder, &["predict", "runs/two", "--input", "x.csv"]),
        "error: x.csv:2: column 'b': [columns] second: expected a number, found 'x'; mend the row, \
         or make it a vocabulary or hash column\n"
    );
    assert_eq!(
        failure(folder, &["predict", "runs/two", "--input", "x.npy"]),
        "error: x.npy: numpy has no named columns, as the run's [columns] need; give csv, jsonl, \
         parquet or tfrecord\n"
    );
}

/// What a command said, or why it failed.
type Said = Result<String, String>;

/// What the commands that read a run say of the one in `run`.
fn reading(folder: &Path, run: &str) -> [Said; 3] {
    let says = |arguments: &[&str]| {
        let output = ringstep(folder, arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    };
    [
        says(&["evaluate", run]),
        says(&["predict", run, "--input", "x.csv"]),
        // Without the evaluations, to which each `evaluate` adds.
        says(&["inspect", run]).map(|text| text.split("\nstep ").next().unwrap().to_owned()),
    ]
}

#[test]
fn a_run_of_csv_files_is_read_without_its_training_data() {
    let folder = trained();
    let folder = folder.path();
    fs::write(folder.join("x.csv"), rows(60, false)).unwrap();
    let before = reading(folder, "runs/two");
    assert!(before.iter().all(Result::is_ok), "{before:?}");
    fs::remove_file(folder.join("train.csv")).unwrap();
    assert_eq!(reading(folder, "runs/two"), before);

    // What is evaluated on has to be there, and only that.
    fs::rename(folder.join("test.csv"), folder.join("moved.csv")).unwrap();
    let [evaluated, predicted, inspected] = reading(folder, "runs/two");
    let error = evaluated.unwrap_err();
    assert!(error.contains("test.csv: No such file"), "{error}");
    assert_eq!([predicted, inspected], before[1..]);

    // Only a run that has not come to a checkpoint still needs it.
    fs::remove_dir_all(folder.join("runs/two/checkpoints")).unwrap();
    let inspected = output(folder, &["inspect", "runs/two"]);
    let start = "no layers to show: there is no whole checkpoint yet, and cannot read ";
    assert!(inspected.starts_with(start), "{inspected}");
    assert!(inspected.contains("train.csv: No such file"), "{inspected}");
    assert!(inspected.contains("no checkpoints\n"), "{inspected}");
    fs::write(folder.join("train.csv"), rows(150, true)).unwrap();
    let inspected = output(folder, &["inspect", "runs/two"]);
    assert!(inspected.contains("6 parameters"), "{inspected}");
}

#[test]
fn a_run_that_was_moved_and_resumed_is_read_where_its_data_lie_now() {
    let folder = trained();
    let folder = folder.path();
    fs::create_dir(folder.join("moved")).unwrap();
    for name in ["train.csv", "test.csv", "runs/two"] {
        let to = Path::new(name).file_name().unwrap();
        fs::rename(folder.join(name), folder.join("moved").join(to)).unwrap();
    }
    let config = || fs::read_to_string(folder.join("moved/two/config.toml")).unwrap();
    let before = config();
    let resume = |more: &[&'static str]| {
        let paths = [
            "--set",
            "data.train=moved/train.csv",
            "--set",
            "data.test=moved/test.csv",
        ];
        [&["train", "moved/two", "--resume"], &paths[..], more].concat()
    };
    // What is refused changes nothing.
    failure(
        folder,
        &resume(&["--set", "model.layers.0.activation=relu"]),
    );
    assert_eq!(config(), before);
    let (metrics, aside) = (
        folder.join("moved/two/metrics.jsonl"),
        folder.join("metrics"),
    );
    fs::rename(&metrics, &aside).unwrap();
    fs::create_dir(&metrics).unwrap();
    failure(folder, &resume(&["--more-steps", "1"]));
    assert_eq!(config(), before);
    fs::remove_dir(&metrics).unwrap();
    fs::rename(&aside, &metrics).unwrap();
    output(folder, &resume(&["--more-steps", "1"]));
    output(folder, &["evaluate", "moved/two"]);
    output(
        folder,
        &["train", "moved/two", "--resume", "--more-steps", "1"],
    );
    let old = folder.join("train.csv").display().to_string();
    assert!(
        before.contains(&old) && !config().contains(&old),
        "{before}"
    );
}

/// Writes images of 2 x 2 bytes, whose class is whether the first is bright.
fn write_images(folder: &Path, split: &str, count: u8) {
    let header = |kind: u8, sizes: &[u32]| {
        let sizes = sizes.iter().flat_map(|size| size.to_be_bytes());
        [0, 0, 8, kind]
            .into_iter()
            .chain(sizes)
            .collect::<Vec<u8>>()
    };
    let mut images = header(3, &[count.into(), 2, 2]);
    let mut labels = header(1, &[count.into()]);
    for row in 0..count {
        images.extend([row % 2 * 200, row, 9, 255 - row]);
        labels.push(row % 2);
    }
    fs::write(folder.join(format!("{split}-images")), images).unwrap();
    fs::write(folder.join(format!("{split}-labels")), labels).unwrap();
}

#[test]
fn a_run_of_images_is_read_without_its_training_data() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_images(folder, "train", 80);
    write_images(folder, "test", 20);
    let run = r#"
        [data]
        format = "idx"
        train_images = "train-images"
        train_labels = "train-labels"
        test_images = "test-images"
        test_labels = "test-labels"
        classes = ["dark", "bright"]
        scale = 0.01
        [model]
        loss = "softmax_cross_entropy"
        layers = ["flatten", { kind = "dense", units = 2 }]
        [train]
        device = "cpu"
        global_batch = 16
        steps = 40
        optimizer = { kind = "adam", learning_rate = 0.1 }
    "#;
    fs::write(folder.join("images.toml"), run).unwrap();
    output(folder, &["train", "images.toml"]);
    fs::write(folder.join("x.csv"), "a,b,c,d\n0,5,9,250\n200,6,9,249\n").unwrap();
    let before = reading(folder, "runs/images");
    assert!(before.iter().all(Result::is_ok), "{before:?}");
    let predicted = before[1].as_ref().unwrap();
    assert!(
        predicted.contains("\ndark,") && predicted.contains("\nbright,"),
        "{predicted}"
    );
    fs::remove_file(folder.join("train-images")).unwrap();
    fs::remove_file(folder.join("train-labels")).unwrap();
    assert_eq!(reading(folder, "runs/images"), before);
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let folder = trained();
    let folder = folder.path();
    let error = failure(folder, &["train", "two.toml"]);
    assert!(
        error.contains("--resume") && error.contains("--overwrite"),
        "{error}"
    );
    let error = failure(folder, &["evaluate", "runs/other"]);
    assert!(error.contains("error: no run in runs/other"), "{error}");
    let error = failure(folder, &["evaluate", "runs/two", "--checkpoint", "step-1"]);
    assert!(
        error.contains("no checkpoint 'step-1'") && error.contains("there: step-"),
        "{error}"
    );
    fs::write(folder.join("x.csv"), "a,c\n1,2\n").unwrap();
    let error = failure(folder, &["predict", "runs/two", "--input", "x.csv"]);
    assert!(
        error.contains("x.csv: no feature column 'b'; known are a, c"),
        "{error}"
    );
    fs::write(folder.join("x.csv"), "a,b\n1,2\n3,four\n").unwrap();
    let error = failure(folder, &["predict", "runs/two", "--input", "x.csv"]);
    assert!(
        error.contains("x.csv:3: column 'b': expected a number, found 'four'"),
        "{error}"
    );
    let error = failure(
        folder,
        &[
            "train",
            "runs/two",
            "--resume",
            "--more-steps",
            "9223372036854775807",
        ],
    );
    assert!(
        error.contains("--more-steps 9223372036854775807 is more than a run counts; say fewer"),
        "{error}"
    );
    assert_eq!(
        ringstep(folder, &["train", "two.toml", "--ranks", "0"])
            .status
            .code(),
        Some(2)
    );
}

#[cfg(unix)]
#[test]
fn copies_that_a_launcher_starts_are_refused_by_every_command() {
    let folder = trained();
    for command in [
        &["inspect", "runs/two"][..],
        &["evaluate", "runs/two"],
        &["predict", "runs/two", "--input", "test.csv"],
        &["export", "runs/two", "--format", "onnx"],
    ] {
        for (variable, is_refused) in [("OMPI_COMM_WORLD_SIZE", true), ("SLURM_NTASKS", false)] {
            let output = Command::new(env!("CARGO_BIN_EXE_ringstep"))
                .args(command)
                .current_dir(folder.path())
                .env(variable, "4")
                .output()
                .unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), !is_refused, "{command:?}: {error}");
            assert_eq!(
                error.contains("does not share its work"),
                is_refused,
                "{error}"
            );
        }
    }
}

#[test]
fn more_ranks_than_work_are_not_started() {
    let folder = trained();
    let one = output(folder.path(), &["evaluate", "runs/two"]);
    let many = ["evaluate", "runs/two", "--ranks", "4000000000"];
    assert_eq!(output(folder.path(), &many), one);
}

#[test]
fn a_run_that_is_over_says_so() {
    let folder = trained();
    let output = ringstep(folder.path(), &["train", "two.toml", "--resume"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("nothing to train"),
        "{said}"
    );
}

#[test]
fn a_trace_has_every_part_of_a_step_with_its_time() {
    let folder = trained();
    let traced = ringstep(
        folder.path(),
        &["train", "two.toml", "--ranks", "2", "--overwrite", "-vv"],
    );
    let said = String::from_utf8_lossy(&traced.stderr);
    assert!(traced.status.success(), "{said}");
    let of_rank = |line: &&str| line.contains(" TRACE ") && line.contains(" rank-0");
    let step: Vec<_> = said
        .lines()
        .filter(of_rank)
        .skip_while(|line| !line.ends_with(" step 2 begins"))
        .take_while(|line| !line.ends_with(" step 3 begins"))
        .collect();
    for part in [
        "all-reduce of 0..",
        "backward is over",
        "update is queued",
        " ends",
    ] {
        assert!(
            step.iter().any(|line| line.contains(part)),
            "{part}: {said}"
        );
    }
    let time = |line: &&str| -> f64 {
        let word = line.split_whitespace().next().unwrap();
        word.strip_suffix('s').unwrap().parse().unwrap()
    };
    assert!(time(step.last().unwrap()) > time(&step[0]));
}

//! Commands that meet mistakes and mishaps: what they say, and what they leave.

use std::fs;
use std::process::Command;

use ringstep::checkpoint::list;

use crate::commands::{failure, output, ringstep, rows, trained};

#[test]
fn what_an_embedding_cannot_look_up_is_named() {
    let folder = trained();
    let folder = folder.path();
    let layers = r#"model.layers=[{kind="embedding",input_dim=13,output_dim=2},"flatten",{kind="dense",units=2}]"#;
    let train = ["train", "two.toml", "--run-dir", "runs/e", "--set", layers];
    let error = failure(folder, &train);
    assert!(
        error.contains("train.csv: row ") && error.contains(" is no index below 13"),
        "{error}"
    );
    assert!(!folder.join("runs/e").exists());

    let whole = ["--set", "data.scale=1", "--set", "train.epochs=1"];
    output(folder, &[&train[..], &whole].concat());
    for (rows, says) in [
        (
            "a,b\n1,2\n3,13\n",
            "x.csv: row 2 of the data, feature 'b': 13 is no index below 13",
        ),
        (
            "a,b\n1.5,2\n",
            "x.csv: row 1 of the data, feature 'a': 1.5 is no index below 13",
        ),
        ("a,b\n1,-2\n", "feature 'b': -2 is no index"),
    ] {
        fs::write(folder.join("x.csv"), rows).unwrap();
        let error = failure(folder, &["predict", "runs/e", "--input", "x.csv"]);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_global_batch_is_no_larger_than_the_data() {
    let folder = trained();
    let folder = folder.path();
    let all = |size: &str| {
        let size = format!("train.global_batch={size}");
        output(
            folder,
            &[
                "train",
                "two.toml",
                "--overwrite",
                "--set",
                &size,
                "--set",
                "train.epochs=3",
                "-q",
            ],
        )
    };
    let lines = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(all("4000000000")), lines(all("1000")));
}

#[test]
fn a_run_that_cannot_begin_leaves_the_one_that_is_there() {
    let folder = trained();
    let folder = folder.path();
    let before = output(folder, &["inspect", "runs/two"]);
    for set in [
        "model.layers=[{kind=\"dense\",units=3}]",
        "model.layers=[{kind=\"dense\",units=1000000000000},{kind=\"dense\",units=2}]",
        "train.collective=nccl",
    ] {
        failure(folder, &["train", "two.toml", "--overwrite", "--set", set]);
        assert_eq!(output(folder, &["inspect", "runs/two"]), before, "{set}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let folder = trained();
    let folder = folder.path();
    let full = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args(arguments)
            .current_dir(folder)
            .stderr(
                fs::OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .unwrap(),
            )
            .output()
            .unwrap()
    };
    let run = full(&["train", "two.toml", "--overwrite", "--ranks", "2"]);
    assert!(run.status.success(), "{:?}", run.status);
    assert!(
        String::from_utf8(run.stdout)
            .unwrap()
            .contains("test_accuracy")
    );
    assert_eq!(full(&["train", "none.toml"]).status.code(), Some(1));
}

#[test]
fn a_mistyped_class_is_listed_with_the_others() {
    let folder = trained();
    let folder = folder.path();
    let rows = rows(150, true).replacen(",left,", ",lfet,", 1);
    fs::write(folder.join("train.csv"), rows).unwrap();
    let error = failure(folder, &["train", "two.toml", "--overwrite"]);
    let expected = "it gives 2 outputs [2], but the data and the loss softmax_cross_entropy need 3, the \
                    classes being left, lfet, right";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn quiet_commands_say_what_came_out_and_nothing_else() {
    let folder = trained();
    let folder = folder.path();
    let run = ringstep(folder, &["train", "two.toml", "--overwrite", "-q"]);
    let (said, messages) = (String::from_utf8(run.stdout), String::from_utf8(run.stderr));
    let said = said.unwrap();
    assert!(
        said.contains("test_accuracy") && said.ends_with("runs/two\n"),
        "{said}"
    );
    assert_eq!(messages.unwrap(), "");
}

#[test]
fn a_result_that_cannot_be_kept_is_shown() {
    let folder = trained();
    let folder = folder.path();
    let shown = output(folder, &["evaluate", "runs/two"]);
    // No one can append to a folder, not even root, who may write to what is read-only.
    fs::remove_file(folder.join("runs/two/metrics.jsonl")).unwrap();
    fs::create_dir(folder.join("runs/two/metrics.jsonl")).unwrap();
    let run = ringstep(folder, &["evaluate", "runs/two"]);
    assert!(run.status.success());
    assert_eq!(String::from_utf8(run.stdout).unwrap(), shown);
    let warning = String::from_utf8(run.stderr).unwrap();
    assert!(
        warning.contains("WARN the result is not kept with the run"),
        "{warning}"
    );
}

#[cfg(unix)]
#[test]
fn an_interrupt_says_how_to_go_on() {
    use std::io::{BufRead, BufReader};

    let folder = trained();
    let folder = folder.path();
    let arguments = [
        "train",
        "two.toml",
        "--resume",
        "--set",
        "train.epochs=100000000",
    ];
    let mut run = Command::new(env!("CARGO_BIN_EXE_ringstep"))
        .args(arguments)
        .current_dir(folder)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let begun = lines.any(|line| line.unwrap().starts_with("step "));
    assert!(begun);
    // SAFETY: a signal to the process that was started above and has not been waited for.
    unsafe { libc::kill(run.id() as i32, libc::SIGINT) };
    let said: Vec<_> = lines.map_while(Result::ok).collect();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let how = "train two.toml --run-dir runs/two --resume --set train.epochs=100000000";
    let last = said.last().unwrap();
    assert!(
        last.contains("interrupted; to go on from step") && last.ends_with(how),
        "{said:?}"
    );
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over() {
    let folder = trained();
    let folder = folder.path();
    let checkpoints = folder.join("runs/two/checkpoints");
    let mut steps: Vec<u64> = list(&checkpoints).unwrap();
    let (newest, before) = (steps.pop().unwrap(), steps.pop().unwrap());
    let damaged = checkpoints.join(format!("step-{newest}/model.safetensors"));
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let run = ringstep(folder, &["train", "two.toml", "--resume"]);
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{said}");
    for says in [
        format!("step-{newest} is damaged: model.safetensors"),
        format!("resuming from runs/two/checkpoints/step-{before}"),
    ] {
        assert!(said.contains(&says), "{says} in {said}");
    }
    // What was lost has been computed again, and takes its place.
    let inspected = output(folder, &["inspect", "runs/two"]);
    assert!(inspected.contains(&format!("step-{newest}")), "{inspected}");
    assert!(!inspected.contains("damaged"), "{inspected}");
}

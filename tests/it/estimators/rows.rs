//! What Estimators read of the data, and what they say of classes that are not as many as they have.

use std::fs;
use std::path::Path;

use crate::commands::{failure, output};

/// Trains `kind` for two steps on `rows`.
fn run_file(folder: &Path, rows: &str, estimator: &str) {
    fs::write(folder.join("train.csv"), rows).unwrap();
    let text = format!(
        "[data]\nformat = \"csv\"\ntrain = \"train.csv\"\nlabel = \"y\"\n[estimator]\n{estimator}\n\
         [train]\ndevice = \"cpu\"\nglobal_batch = 2\nsteps = 2\n"
    );
    fs::write(folder.join("one.toml"), text).unwrap();
}

fn refusal(rows: &str, estimator: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    run_file(folder.path(), rows, estimator);
    let said = failure(folder.path(), &["train", "one.toml"]);
    said.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_label_beyond_the_classes_is_named_with_its_line() {
    let more = "mend the label that is wrong, which classes in [data] finds, or raise n_classes in \
                [estimator], or take a loss of softmax_cross_entropy\n";
    let rows = "x,y\n1,yes\n2,no\n3,yes\n4,noo\n";
    let says = |count: usize, classes: &str, label: &str, line: usize| {
        format!(
            "error: train.csv:{line}: column 'y': '{label}' is class {} of {count}; before it came {classes}; \
             {more}",
            count + 1
        )
    };
    let linear = "kind = \"linear_classifier\"";
    assert_eq!(refusal(rows, linear), says(2, "no, yes", "noo", 5));
    let rows = format!("{rows}5,maybe\n");
    let three = format!("{linear}\nn_classes = 3");
    assert_eq!(refusal(&rows, &three), says(3, "no, noo, yes", "maybe", 6));
}

#[test]
fn classes_that_do_not_come_are_to_be_named() {
    let linear = "kind = \"linear_classifier\"";
    let one = refusal("x,y\n1,yes\n2,yes\n", linear);
    assert!(
        one.ends_with(
            "n_classes is 2, but the classes of the training data are 1: yes; name all 2 by classes in \
             [data]\n"
        ),
        "{one}"
    );
    let two = refusal("x,y\n1,yes\n2,no\n", &format!("{linear}\nn_classes = 3"));
    assert!(
        two.ends_with(
            "n_classes is 3, but the classes of the training data are 2: no, yes; set n_classes = 2 in \
             [estimator], or name all 3 by classes in [data]\n"
        ),
        "{two}"
    );
}

#[test]
fn a_baseline_reads_no_column_but_the_label() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Neither texts nor a field that is empty are looked at, and no column need be named.
    let rows = "job,wage,y\nSales,1,yes\nTeacher,,yes\nSales,2,yes\nTeacher,3,no\n";
    let jsonl = "{\"y\": \"no\"}\n{\"job\": \"Sales\"}\n";
    fs::write(folder.join("more.jsonl"), jsonl).unwrap();
    run_file(
        folder,
        rows,
        "kind = \"baseline_classifier\"\noptimizer = { kind = \"sgd\", learning_rate = 0.5 }",
    );
    output(folder, &["train", "one.toml", "--set", "train.steps=200"]);
    let inspected = output(folder, &["inspect", "runs/one"]);
    assert!(inspected.starts_with("layer"), "{inspected}");
    let predict = |input| output(folder, &["predict", "runs/one", "--input", input]);
    let printed = predict("train.csv");
    assert_eq!(printed.lines().count(), 5);
    for row in printed.lines().skip(1) {
        // Class, its number, and the probabilities of both.
        let fields: Vec<_> = row.split(',').collect();
        let probability: f64 = fields[3].parse().unwrap();
        assert!(
            fields[0] == "yes" && (probability - 0.75).abs() < 0.01,
            "{row}"
        );
    }
    assert_eq!(predict("more.jsonl").lines().count(), 3);
}

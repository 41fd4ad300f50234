//! What a run goes on with or is applied with: whole checkpoints, the model that was trained, and
//! probabilities that are made once.

use std::fs;

use crate::commands::{failure, output, ringstep, trained};

#[test]
fn a_run_is_applied_as_it_was_trained_or_not_at_all() {
    let folder = trained();
    let folder = folder.path();
    let path = folder.join("runs/two/config.toml");
    let before = fs::read_to_string(&path).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(before.contains(from), "{before}");
        fs::write(&path, before.replacen(from, to, 1)).unwrap();
    };
    for (from, to, difference) in [
        ("scale = 0.1", "scale = 1.0", "data.scale: was 0.1, is 1.0"),
        (
            "activation = \"softmax\"",
            "activation = \"relu\"",
            "model.layers entry 1.activation: was \"softmax\", is \"relu\"",
        ),
    ] {
        edit(from, to);
        for command in [
            &["evaluate", "runs/two"][..],
            &["predict", "runs/two", "--input", "test.csv"],
            &["export", "runs/two", "--format", "onnx"],
        ] {
            let error = failure(folder, command);
            let expected = format!("{difference}; put back what it said, or train anew");
            assert!(
                error.contains("runs/two/config.toml is not what ") && error.contains(&expected),
                "{error}"
            );
        }
    }
    // How it is trained on from here is another matter.
    edit("micro_batch = 8", "micro_batch = 16");
    output(folder, &["evaluate", "runs/two"]);
}

#[test]
fn probabilities_are_made_once_by_the_layer_or_by_its_loss() {
    let folder = trained();
    let folder = folder.path();
    let train = |loss: &str, units: u32, activation: &str| {
        let sets = [
            format!("model.loss={loss}"),
            format!("model.layers.0.units={units}"),
            format!("model.layers.0.activation={activation}"),
        ];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let train = ["train", "two.toml", "--run-dir", "run", "--overwrite"];
        let arguments: Vec<_> = train.into_iter().chain(sets).collect();
        ringstep(folder, &arguments)
    };
    for (loss, units, activation, other) in [
        ("sigmoid_cross_entropy", 1, "sigmoid", "softmax"),
        ("softmax_cross_entropy", 2, "softmax", "sigmoid"),
    ] {
        let [of_layer, of_loss] = [activation, "linear"].map(|activation| {
            let trained = train(loss, units, activation);
            assert!(trained.status.success(), "{loss}, {activation}");
            output(folder, &["predict", "run", "--input", "test.csv"])
        });
        assert_eq!(of_layer, of_loss, "{loss}");
        let refused = train(loss, units, other);
        let error = String::from_utf8_lossy(&refused.stderr);
        let expected = format!("already makes probabilities, and the loss {loss} would");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_run_with_nothing_whole_left_is_not_begun_anew() {
    let folder = trained();
    let folder = folder.path();
    let checkpoints = folder.join("runs/two/checkpoints");
    let mut count = 0;
    for entry in fs::read_dir(&checkpoints).unwrap() {
        fs::write(entry.unwrap().path().join("model.safetensors"), "cut").unwrap();
        count += 1;
    }
    let error = failure(folder, &["train", "two.toml", "--resume"]);
    let expected = format!("all {count} checkpoints in runs/two/checkpoints are damaged");
    assert!(
        error.contains(&expected) && error.contains("--overwrite"),
        "{error}"
    );
    assert_eq!(fs::read_dir(&checkpoints).unwrap().count(), count);
    let error = failure(folder, &["evaluate", "runs/two"]);
    let expected = format!(
        "no whole checkpoint in runs/two/checkpoints; there: {count} that are damaged; bring one back \
         from a copy"
    );
    assert!(error.contains(&expected), "{error}");
}

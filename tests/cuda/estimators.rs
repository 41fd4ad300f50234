//! A wide and deep run with tables outside of the arena: the losses and metrics of CPU ranks, and equal bits
//! on any number of GPUs.

use std::fs;

use crate::training::{CUDA, STAGED, assert_near, can_sum, train};

/// Rows of a number, two texts and a class of two.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = vec!["x,city,colour,label\n".to_owned()];
    for row in 0..48 {
        let x = (f64::from(row) * 0.37).sin();
        lines.push(format!(
            "{x:.4},city{},c{},{}\n",
            row * 7 % 13,
            row % 3,
            row % 2
        ));
    }
    fs::write(folder.path().join("train.csv"), lines.concat()).unwrap();
    fs::write(folder.path().join("test.csv"), lines[..20].concat()).unwrap();
    let run = r#"
[data]
format = "csv"
train = "train.csv"
test = "test.csv"
label = "label"
[columns]
x = { kind = "numeric", normalize = "standardize" }
colour = "vocabulary"
city = { kind = "hash", buckets = 30000 }
both = { kind = "crossed", keys = ["city", "colour"], buckets = 20000 }
[estimator]
kind = "dnn_linear_combined_classifier"
linear_feature_columns = ["x", "city", "both"]
dnn_feature_columns = ["x", { kind = "indicator", column = "colour" }, { kind = "embedding", column = "city", dimension = 3 }]
dnn_hidden_units = [6]
linear_optimizer = { kind = "ftrl", learning_rate = 0.1 }
dnn_optimizer = { kind = "adagrad", learning_rate = 0.1 }
[train]
global_batch = 8
micro_batch = 3
steps = 20
log_every = 1
evaluate_every = 0
checkpoint_every = 0
loss_reduction = "mean"
"#;
    fs::write(folder.path().join("run.toml"), run).unwrap();
    folder
}

#[test]
fn a_run_with_tables_follows_the_cpu_and_has_equal_bits_on_3_gpus() {
    let folder = folder();
    let folder = folder.path();
    let exact = "train.reduce=exact";
    let cpu = train(folder, 2, &["train.device=cpu", exact]);
    let one = train(folder, 1, &[CUDA, exact]);
    assert_near(&cpu, &one, "one GPU");
    for ranks in [2, 3] {
        let set = match can_sum(ranks, "train.collective=nccl") {
            true => vec![CUDA, exact],
            false => vec![CUDA, exact, STAGED],
        };
        assert_eq!(train(folder, ranks, &set), one, "{ranks} GPUs");
    }
}

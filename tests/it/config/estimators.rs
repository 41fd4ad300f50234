//! What is said about mistakes in `[estimator]`.

use super::*;

const ESTIMATOR: &str = r#"[data]
format = "csv"
train = "train.csv"
label = "y"

[columns]
a = "numeric"
c = { kind = "hash", buckets = 10 }
d = { kind = "hash", buckets = 5 }
w = { kind = "weighted", source = "d", weights = "a" }

[estimator]
kind = "dnn_classifier"
hidden_units = [4]
feature_columns = ["a"]

[train]
global_batch = 32
steps = 10
"#;

#[test]
fn arguments_that_cannot_be_are_named_with_their_remedy() {
    let huge = i64::MAX;
    let most = format!("expected at most 16777216, found {huge}");
    let shared = |columns: &str| {
        format!("[{{ kind = 'shared_embedding', columns = [{columns}], dimension = 2 }}]")
    };
    let unequal = |column: &str| {
        format!(
            "estimator.feature_columns: '{column}' has 5 categories, but 'c', with which it shares an \
             embedding, 10; give them as many, or each an embedding of its own"
        )
    };
    let embedding =
        |dimension: i64| format!("{{ kind = 'embedding', column = 'c', dimension = {dimension} }}");
    let columns = "estimator.feature_columns";
    for (key, value, expected) in [
        (
            "estimator.hidden_units",
            format!("[4, {huge}]"),
            format!("estimator.hidden_units entry 2: {most}"),
        ),
        (
            "estimator.n_classes",
            huge.to_string(),
            format!("estimator.n_classes: {most}"),
        ),
        (
            columns,
            format!("[{}]", embedding(huge)),
            format!("{columns} entry 1.dimension: {most}"),
        ),
        (
            columns,
            "['a', 'a']".to_owned(),
            format!("{columns}: the network has 'a' twice; name each column once"),
        ),
        (
            columns,
            format!("[{}, {}]", embedding(2), embedding(3)),
            format!("{columns}: the network has 'c_embedding' twice; name each column once"),
        ),
        (columns, shared("'c', 'd'"), unequal("d")),
        (columns, shared("'c', 'w'"), unequal("w")),
    ] {
        let set = format!("{key}={value}");
        let error = load(ESTIMATOR, &[&set]).unwrap_err();
        assert_eq!(error, format!("--set {set}: {expected}"));
    }
    let regressor = ["estimator.kind=dnn_regressor", "data.classes=['a', 'b']"];
    assert_eq!(
        load(ESTIMATOR, &regressor).unwrap_err(),
        "--set data.classes=['a', 'b']: data.classes: dnn_regressor is for numbers, which have no classes; \
         leave classes out, or take a classifier: a cross entropy as loss, or an estimator that is one"
    );
    let missing = ESTIMATOR.replace("kind = \"dnn_classifier\"\n", "");
    let missing = load(&missing, &[]).unwrap_err();
    let expected = "run.toml:12: missing key 'kind' in [estimator]: one of linear_classifier, ";
    assert!(missing.starts_with(expected), "{missing}");
    // Whose names are not those of a mistake further on.
    let key = "estimator.feature_columns=[{ kind = 'embedding', dimension = 3 }]";
    let more = "train.optimizer={ kind = 'adm' }";
    let missing = load(ESTIMATOR, &[key, more]).unwrap_err();
    assert!(!missing.contains("one of"), "{missing}");
}

//! `[columns]`: what it means, and what is said about mistakes in it.

use ringstep::columns::{ColumnSpec, Normalize};

use super::*;
use crate::custom_model::example;

/// The error of a run file with these columns; they start at line 8.
fn columns_error(columns: &str) -> String {
    error("[model]", &format!("[columns]\n{columns}\n\n[model]"))
}

#[test]
fn columns_stand_in_the_order_of_the_file() {
    let columns = r#"
[columns]
hours = { kind = "numeric", normalize = { mean = 40, deviation = 12.5 }, default = 40 }
age = "numeric"
"a b" = { kind = "numeric", source = "age", normalize = { scale = 2 } }

[columns.pixels]
kind = "numeric"
shape = 64

[model]"#;
    let run = load(&RUN.replacen("[model]", columns, 1), &[]).unwrap();
    assert_eq!(run.used_columns(), ["hours", "age", "a b", "pixels"]);
    let normalize = |name: &str| match run.columns.as_ref().unwrap().get(name) {
        Some(ColumnSpec::Numeric(spec)) => spec.normalize,
        other => panic!("{other:?}"),
    };
    let (mean, deviation) = (40.0, 12.5);
    assert_eq!(
        normalize("hours"),
        Normalize::Standardized { mean, deviation }
    );
    let (scale, offset) = (2.0, 0.0);
    assert_eq!(normalize("a b"), Normalize::Linear { scale, offset });
    let text = run.to_toml();
    assert_eq!(load(&text, &[]).unwrap(), run, "{text}");
    assert_eq!(load(RUN, &[]).unwrap().columns, None);
}

#[test]
fn models_in_rust_read_every_kind_and_files_lie_beside_the_run_file() {
    let columns = r#"
[columns]
age_bucketized = { kind = "bucketized", source = "age", boundaries = [18, 25] }
rank = { kind = "identity", buckets = 10, default = 0 }
workclass = { kind = "vocabulary", file = "words.txt", oov_buckets = 2 }
words = { kind = "hash", max_values = 4, buckets = 1000 }
crossed = { kind = "crossed", keys = ["age_bucketized", "education"], buckets = 1000 }
weighted = { kind = "weighted", source = "words", weights = "weight" }

[model]"#;
    let layers = &RUN[RUN.find("[[model.layers]]").unwrap()..RUN.find("[train]").unwrap()];
    let text = RUN.replacen("[model]", columns, 1);
    let text = text.replacen(layers, "custom = \"residual\"\n", 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, text).unwrap();
    let run = RunConfig::load_with(&path, &[], &example::models()).unwrap();
    let Some(ColumnSpec::Vocabulary(spec)) = run.columns.as_ref().unwrap().get("workclass") else {
        panic!("{run:?}");
    };
    assert_eq!(spec.file, Some(folder.path().join("words.txt")));
    fs::write(&path, run.to_toml()).unwrap();
    assert_eq!(
        RunConfig::load_with(&path, &[], &example::models()).unwrap(),
        run
    );
}

#[test]
fn kinds_and_keys_are_named_with_line_and_nearest() {
    assert_eq!(
        columns_error("age = \"numerc\""),
        "run.toml:8: columns.age: unknown name 'numerc'; did you mean 'numeric'?"
    );
    assert_eq!(
        columns_error("age = { kind = \"bucketised\", boundaries = [1] }"),
        "run.toml:8: unknown column kind 'bucketised'; did you mean 'bucketized'?"
    );
    assert_eq!(
        columns_error("age = { kind = \"numeric\", shap = 2 }"),
        "run.toml:8: unknown key 'shap' in [columns.age] (numeric); did you mean 'shape'?"
    );
    assert_eq!(
        columns_error("a = \"numeric\"\nage = \"hash\""),
        "run.toml:9: missing key 'buckets' in [columns.age]"
    );
    let expected = "expected \"none\", \"standardize\", a table with mean and deviation, or one \
                    with scale and offset (deviation and scale other than 0)";
    assert_eq!(
        columns_error("age = { kind = \"numeric\", normalize = \"standardise\" }"),
        format!("run.toml:8: columns.age.normalize: {expected}, found 'standardise'")
    );
    assert_eq!(
        columns_error("age = { kind = \"numeric\", normalize = { mean = 1, deviation = 0 } }"),
        format!("run.toml:8: columns.age.normalize: {expected}, found another table")
    );
}

#[test]
fn a_column_that_cannot_be_is_named_with_line() {
    let alone = |column: &str| columns_error(column).replace("run.toml:8: columns.", "");
    assert_eq!(
        columns_error(""),
        "run.toml:7: columns: names no columns; leave it out to learn from the numbers of the data \
         as they are"
    );
    for (column, expected) in [
        (
            "b = { kind = \"bucketized\", boundaries = [1, 3, 3] }",
            "b.boundaries: 3 comes before 3; they must rise",
        ),
        (
            "b = { kind = \"bucketized\", boundaries = [] }",
            "b.boundaries: expected finite numbers, one at least",
        ),
        (
            "h = { kind = \"hash\", buckets = 0 }",
            "h.buckets: must be at least 1",
        ),
        (
            "h = { kind = \"hash\", buckets = 16777217 }",
            "h.buckets: 16777217 ids; single precision tells 16777216 apart: hash into fewer buckets",
        ),
        (
            "h = { kind = \"hash\", buckets = 3, max_values = 9000000000000000000 }",
            "h: 9000000000000000000 numbers in a row; 16777216 are the most",
        ),
        (
            "n = { kind = \"numeric\", default = 1e30, normalize = { scale = 1e30 } }",
            "n.default: expected a finite number, also when normalised",
        ),
        (
            "h = { kind = \"hash\", buckets = 3, max_values = 0 }",
            "h.max_values: must be at least 1",
        ),
        (
            "i = { kind = \"identity\", buckets = 3, default = 3 }",
            "i.default: 3 is no id below buckets = 3",
        ),
        (
            "v = { kind = \"vocabulary\", values = [\"a\", \"b\", \"a\"] }",
            "v.values: 'a' is there twice",
        ),
        (
            "v = { kind = \"vocabulary\", values = [\"a\"], file = \"f\" }",
            "v.file: values are given, too; keep one of them",
        ),
        (
            "v = { kind = \"vocabulary\", default = 0, oov_buckets = 1 }",
            "v.default: oov_buckets is given, too; keep one of them",
        ),
        (
            "v = { kind = \"vocabulary\", values = [\"a\"], default = 1 }",
            "v.default: 1 is no id of 1 texts",
        ),
        (
            "c = { kind = \"crossed\", buckets = 9, keys = [\"u\"] }",
            "c.keys: a cross is of two columns at least",
        ),
        (
            "w = { kind = \"weighted\", source = \"w\", weights = \"x\" }",
            "w.source: 'w' is weighted, not identity or vocabulary or hash",
        ),
        (
            "c = { kind = \"crossed\", buckets = 9, keys = [\"u\", \"digit\"] }",
            "c: 'digit' is the label; learn from other columns, or name another label in [data]",
        ),
        (
            "h = { kind = \"hash\", buckets = 3 }",
            "h: hash is categorical, and layers compute with numbers; wrap it: use an [estimator] \
             that reads it as an indicator or an embedding",
        ),
    ] {
        assert_eq!(alone(column), expected, "{column}");
    }
}

#[test]
fn columns_are_made_of_what_they_can_be_made_of() {
    let cross = |name: &str, keys: &str| {
        format!("{name} = {{ kind = \"crossed\", buckets = 9, keys = {keys} }}\n")
    };
    let kinds = "bucketized or identity or vocabulary or hash";
    assert_eq!(
        columns_error(&("age = \"numeric\"\n".to_owned() + &cross("c", "[\"u\", \"age\"]"))),
        format!(
            "run.toml:9: columns.c.keys: 'age' is numeric, not {kinds}; make a bucketized column of \
             it and take that"
        )
    );
    let pair = cross("c", "[\"u\", \"v\"]");
    assert_eq!(
        columns_error(&(pair.clone() + &cross("d", "[\"c\", \"w\"]"))),
        format!("run.toml:9: columns.d.keys: 'c' is crossed, not {kinds}; take its keys")
    );
    assert_eq!(
        columns_error(&(pair + "b = { kind = \"bucketized\", source = \"c\", boundaries = [1] }")),
        "run.toml:9: columns.b.source: 'c' is crossed, not numeric"
    );
    let words = "words = { kind = \"hash\", buckets = 9 }\n\
                 w = { kind = \"weighted\", source = \"wrods\", weights = \"x\" }";
    assert_eq!(
        columns_error(words),
        "run.toml:9: columns.w.source: [columns] has no 'wrods'; did you mean 'words'?"
    );
}

#[test]
fn other_sections_leave_it_to_columns() {
    let columns = "\n[columns]\nx = \"numeric\"\n";
    let with = |line: &str| {
        let label = "label = \"digit\"\n";
        error(label, &format!("{label}{line}\n{columns}"))
    };
    assert_eq!(
        with("features = [\"a\"]"),
        "run.toml:6: data.features: [columns] says which columns are learned from; keep one of them"
    );
    assert_eq!(
        with("scale = 0.5"),
        "run.toml:6: data.scale: [columns] says what is done to numbers, by normalize; keep one of \
         them"
    );
    let idx = format!("format = \"idx\"\ntrain_images = \"a\"\ntrain_labels = \"b\"\n{columns}");
    let text = RUN.replacen(&RUN[7..RUN.find("\n\n").unwrap() + 1], &idx, 1);
    assert_eq!(
        load(&text, &[]).unwrap_err(),
        "run.toml:6: columns: idx has no named columns; use csv, jsonl, parquet or tfrecord"
    );
}

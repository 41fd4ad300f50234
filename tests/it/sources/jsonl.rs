//! JSON lines: columns by key, lists of numbers, types.

use ringstep::data::Targets;

use super::{Folder, classes, gzip};

const ROWS: &str = "format = \"jsonl\"\ntrain = \"a.jsonl\"\nlabel = \"y\"";

fn rows(text: &str) -> Folder {
    Folder::new(ROWS).with("a.jsonl", text)
}

#[test]
fn columns_are_found_by_key_in_the_order_of_their_names() {
    let folder =
        rows("{\"b\": 2, \"y\": \"u\", \"a\": 1.5}\n\n{\"a\": -1e3, \"b\": true, \"y\": \"v\"}");
    let table = folder.train().unwrap();
    assert_eq!(table.names, ["a", "b"]);
    assert_eq!(table.features, [1.5, 2.0, -1000.0, 1.0]);
    assert_eq!(
        (table.target_kind, table.targets),
        (classes(&["u", "v"]), vec![0.0, 1.0])
    );
}

#[test]
fn lists_are_several_features_and_integers_are_classes() {
    let text = "{\"x\": [[1, 2], [3, 4]], \"y\": 10}\n{\"x\": [5, 6, 7, 8], \"y\": 9}\n";
    let folder = Folder::new(&format!("{ROWS}\nshape = [2, 2, 1]\ntest = \"b.jsonl\""))
        .with("a.jsonl", gzip(text))
        .with(
            "b.jsonl",
            "{\"x\": [1, 1, 1, 1], \"more\": null, \"y\": 10}",
        )
        .with("rows.jsonl", "{\"x\": [1, 0, 0, 0]}\n{\"x\": [2, 0, 0, 0]}");
    let table = folder.train().unwrap();
    assert_eq!(
        (table.names, table.shape),
        (vec!["x".to_owned()], [2, 2, 1].into())
    );
    assert_eq!(table.features, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!(
        (table.target_kind, table.targets),
        (classes(&["9", "10"]), vec![1.0, 0.0])
    );
    assert_eq!(folder.test().unwrap().targets, [1.0]);
    let predicted = folder.features("rows.jsonl").unwrap();
    assert_eq!((predicted.rows, predicted.features[4]), (2, 2.0));
}

#[test]
fn regressions_have_numbers_and_weights() {
    let data = format!("{ROWS}\nweight = \"w\"\nfeatures = [\"a\"]");
    let folder = Folder::regression(&data).with(
        "a.jsonl",
        "{\"a\": 1, \"id\": \"x\", \"w\": 0.5, \"y\": -2}\n{\"a\": 3, \"w\": 2, \"y\": 0.25}",
    );
    let table = folder.train().unwrap();
    assert_eq!(
        (table.target_kind, table.targets),
        (Targets::Numbers(1), vec![-2.0, 0.25])
    );
    assert_eq!(
        (table.features, table.weights),
        (vec![1.0, 3.0], Some(vec![0.5, 2.0]))
    );
    assert_eq!(
        folder
            .with("a.jsonl", "{\"a\": 1, \"w\": -1, \"y\": 2}")
            .train()
            .unwrap_err(),
        "a.jsonl:1: column 'w': a weight of -1 is below 0; mend the row"
    );
}

#[test]
fn mistakes_have_file_line_and_column() {
    let error = |text: &str| rows(text).train().unwrap_err();
    assert_eq!(
        error("{\"a\": 1, \"y\": 0}\n\n{\"a\": 1,"),
        "a.jsonl:3: not a JSON object: EOF while parsing a value at column 8; mend the line"
    );
    assert_eq!(
        error("[1, 2]\n"),
        "a.jsonl:1: not a JSON object: invalid type: sequence, expected an object at column 0; mend the line"
    );
    assert_eq!(
        error("{\"a\": 1, \"y\": 0}\n{\"a\": \"2\", \"y\": 0}"),
        "a.jsonl:2: column 'a': expected a number, found the text '2'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("{\"a\": 1, \"a\": 2, \"y\": 0}"),
        "a.jsonl:1: not a JSON object: two columns are called 'a' at column 15; mend the line"
    );
    assert_eq!(
        error("{\"a\": null, \"y\": 0}"),
        "a.jsonl:1: column 'a': missing; leave the row out, or give the numeric column a default in \
         [columns]"
    );
    assert_eq!(
        error("{\"a\": {\"b\": 1}, \"y\": 0}"),
        "a.jsonl:1: column 'a': expected a number, found an object; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("{\"a\": 1e39, \"y\": 0}").replace('0', ""),
        "a.jsonl:1: column 'a': 1 is too large for a 32-bit number; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("{\"a\": 1, \"y\": 0}\n{\"y\": 0}"),
        "a.jsonl:2: column 'a': missing, but the first row has it; mend the row"
    );
    assert_eq!(
        error("{\"a\": 1, \"y\": 0}\n{\"a\": 1, \"b\": 2, \"y\": 0}"),
        "a.jsonl:2: column 'b': the first row has no such column; choose those to learn from by \
         features in [data]"
    );
    assert_eq!(
        error("{\"a\": [1, 2], \"y\": 0}\n{\"a\": [1], \"y\": 0}"),
        "a.jsonl:2: column 'a': 1 values, but the first row has 2; mend the row"
    );
    assert_eq!(
        error("{\"a\": 1, \"y\": [0, 1]}"),
        "a.jsonl:1: column 'y': 2 values, where one belongs; mend the row"
    );
    assert_eq!(
        error("{\"a\": 1, \"y\": null}"),
        "a.jsonl:1: column 'y': expected a class, found null; mend the row"
    );
    assert_eq!(
        error("{\"a\": 1, \"yy\": 0}"),
        "a.jsonl: no label column 'y'; known are a, yy"
    );
    assert_eq!(
        error("{\"y\": 0}"),
        "a.jsonl: no column is left to learn from; add one beside label and weight"
    );
    assert_eq!(
        error("\n"),
        "a.jsonl: no rows in it; write some, or name another file"
    );
}

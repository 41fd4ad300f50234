//! What is said about values that columns cannot be made of.

use super::*;
use crate::sources::gzip;

fn error(format: &str, rows: &str, columns: &str) -> String {
    folder(format, rows)
        .encoded(columns, Split::Train)
        .unwrap_err()
}

fn csv(columns: &str) -> String {
    error("csv", CSV, columns)
}

#[test]
fn columns_that_are_not_there_are_named() {
    let near = "; did you mean 'wage'?";
    assert_eq!(
        csv("wages = \"numeric\""),
        format!("train: no feature column 'wages'{near}")
    );
    let json = "{\"wage\": 1, \"y\": 2}\n";
    assert_eq!(
        error(
            "jsonl",
            json,
            "wage = \"numeric\"\nwages = { kind = \"hash\", buckets = 3 }"
        ),
        "train: no feature column 'wages'; known are wage, y"
    );
}

#[test]
fn values_are_of_their_columns_kind() {
    assert_eq!(
        csv("age = \"numeric\""),
        "train:3: column 'age': missing; leave the row out, or give the numeric column a default in \
         [columns]"
    );
    assert_eq!(
        csv("job = \"numeric\""),
        "train:2: column 'job': expected a number, found 'Sales'; mend the row, or make it a vocabulary or \
         hash column"
    );
    assert_eq!(
        csv("rank = { kind = \"identity\", buckets = 2 }"),
        "train:2: column 'rank': 2 is no id below buckets = 2; raise buckets, or give a default"
    );
    assert_eq!(
        csv("wages = { kind = \"identity\", source = \"wage\", buckets = 2 }"),
        "train:2: column 'wage': [columns] wages: 0.5 is no id below buckets = 2; raise buckets, or \
         give a default"
    );
    assert_eq!(
        csv("job = { kind = \"vocabulary\", values = [\"Sales\", \"Teacher\"], oov = \"error\" }"),
        "train:3: column 'job': 'Craft-repair' is not in the vocabulary; it has Sales, Teacher; add \
         it, or let oov_buckets or default take it, without oov = \"error\""
    );
    assert_eq!(
        error(
            "jsonl",
            "{\"a\": {}, \"y\": 1}",
            "a = { kind = \"hash\", buckets = 3 }"
        ),
        "train:1: column 'a': expected a text, found an object; mend the row"
    );
    assert_eq!(
        error("csv", "a,y\n,1\n", "a = \"vocabulary\""),
        "[columns] a: no row has a text; leave the column out"
    );
    assert_eq!(
        csv("job = { kind = \"vocabulary\", default = 2 }"),
        "[columns] job.default: 2 is no id of 2 texts"
    );
}

#[test]
fn rows_have_as_many_values_as_is_said() {
    let one = "{\"a\": [\"u\", \"v\"], \"b\": [1], \"y\": 0}";
    assert_eq!(
        error("jsonl", one, "a = { kind = \"hash\", buckets = 3 }"),
        "train:1: column 'a': 2 values, but 1 at most; raise max_values"
    );
    assert_eq!(
        error("jsonl", one, "b = { kind = \"numeric\", shape = 2 }"),
        "train:1: column 'b': 1 values, not 2; mend the row, or shape in [columns]"
    );
    let weighted = "a = { kind = \"hash\", buckets = 3, max_values = 2 }\n\
                    w = { kind = \"weighted\", source = \"a\", weights = \"b\" }";
    assert_eq!(
        error("jsonl", one, weighted),
        "train:1: column 'b': [columns] w: 1 weights for the 2 values of 'a'; mend the row"
    );
    assert_eq!(
        error("jsonl", &one.replace("[1]", "[1, null]"), weighted),
        "train:1: column 'b': [columns] w: value 2 has no weight; mend the row"
    );
}

#[test]
fn vocabulary_files_have_each_text_once() {
    let error_of = |text: &[u8]| {
        let folder = folder("csv", CSV).with("jobs.txt", text);
        let path = folder.folder.path().join("jobs.txt");
        let columns = format!(
            "job = {{ kind = \"vocabulary\", file = \"{}\" }}",
            path.display()
        );
        folder.encoded(&columns, Split::Train).unwrap_err()
    };
    let error = |text: &str| error_of(text.as_bytes());
    let empty = "jobs.txt:2: an empty line; remove it: a vocabulary has a text on each";
    assert_eq!(error("Sales\n\nTeacher\n"), empty);
    assert_eq!(
        error("Sales\nTeacher\nSales\n"),
        "jobs.txt:3: 'Sales' is on line 1 already; remove one of them"
    );
    assert_eq!(error(""), "jobs.txt: no text in it; write one on each line");
    assert_eq!(
        error_of(b"caf\xe9\n"),
        "jobs.txt:1: not UTF-8; write the file as UTF-8"
    );
    let words: String = (0..400)
        .map(|word| format!("{}\n", word * word % 1009))
        .collect();
    let mut packed = gzip(words);
    let middle = packed.len() / 2;
    packed[middle] ^= 16;
    let message = error_of(&packed);
    let start = "jobs.txt: compressed data that are cut off or damaged: ";
    assert!(message.starts_with(start), "{message}");
}

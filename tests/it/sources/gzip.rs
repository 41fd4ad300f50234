//! Compressed files that are damaged: what comes out of them is blamed for nothing.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::tfrecord::{List, example, record};
use super::{Folder, gzip};

/// Formats, the name of a file, and many rows.
fn formats() -> [(&'static str, &'static str, Vec<u8>); 3] {
    let numbers = || (0..400_u32).map(|row| (row * row % 1009, row * 7 % 3));
    let csv = numbers().map(|(x, y)| format!("{x},{y}\n"));
    let jsonl = numbers().map(|(x, y)| format!("{{\"x\": {x}, \"y\": {y}}}\n"));
    let records = numbers().map(|(x, y)| {
        let (x, y) = (
            Box::leak(Box::new([x as f32])),
            Box::leak(Box::new([i64::from(y)])),
        );
        record(&example(&[
            ("x", List::Floats(x)),
            ("y", List::Integers(y)),
        ]))
    });
    [
        (
            "csv",
            "a.csv.gz",
            ("x,y\n".to_owned() + &csv.collect::<String>()).into(),
        ),
        ("jsonl", "a.jsonl.gz", jsonl.collect::<String>().into()),
        ("tfrecord", "a.tfrecord", records.flatten().collect()),
    ]
}

fn error(format: &str, name: &str, bytes: &[u8]) -> String {
    let data = format!("format = \"{format}\"\ntrain = \"{name}\"\nlabel = \"y\"");
    Folder::new(&data).with(name, bytes).train().unwrap_err()
}

#[test]
fn damage_is_said_of_the_file_and_not_of_a_row() {
    for (format, name, text) in formats() {
        let packed = gzip(&text);
        let start = format!("{name}: compressed data that are cut off or damaged: ");
        let end = "; copy or write the file again";
        let check = |bytes: &[u8], what: &str| {
            let error = error(format, name, bytes);
            assert!(
                error.starts_with(&start) && error.ends_with(end),
                "{what}: {error}"
            );
            error
        };
        // Behind the header, which has a name and a time that mean nothing here.
        for at in (10..packed.len()).step_by(packed.len() / 13) {
            let mut flipped = packed.clone();
            flipped[at] ^= 16;
            check(&flipped, &format!("{format}, byte {at}"));
        }
        check(&packed[..packed.len() - 12], format);
        for behind in [&b"more"[..], &[0], b"\x1fmore"] {
            let error = check(&[&packed, behind].concat(), format);
            let is_said = error.contains("bytes that are no gzip follow their end");
            assert!(is_said || behind[0] == 0x1f, "{error}");
        }
    }
}

#[test]
fn damage_of_zlib_is_said_of_the_file() {
    let [_, _, (format, name, text)] = formats();
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&text).unwrap();
    let mut packed = zlib.finish().unwrap();
    let middle = packed.len() / 2;
    packed[middle] ^= 16;
    let message = error(format, name, &packed);
    let start = "compressed data that are cut off or damaged: ";
    assert!(
        message.starts_with(&format!("{name}: {start}")),
        "{message}"
    );
}

#[test]
fn a_file_of_several_members_is_all_of_them() {
    let [(format, name, text), ..] = formats();
    let (first, second) = text.split_at(text.len() / 3);
    let data = format!("format = \"{format}\"\ntrain = \"{name}\"\nlabel = \"y\"");
    let packed = [gzip(first), gzip(""), gzip(second)].concat();
    let table = Folder::new(&data).with(name, packed).train().unwrap();
    assert_eq!(table.rows, 400);
}

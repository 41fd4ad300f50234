//! TFRecord: features by name, checksums, compression.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use ringstep::data::stream::Dataset;

use super::{Folder, classes, gzip};
use crate::commands::ringstep;

const ROWS: &str = "format = \"tfrecord\"\ntrain = \"a.tfrecord\"\nlabel = \"y\"";

/// A `Feature`.
pub(super) enum List {
    Texts(&'static [&'static str]),
    Floats(&'static [f32]),
    Integers(&'static [i64]),
}
use List::{Floats, Integers, Texts};

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

pub(super) fn example(features: &[(&str, List)]) -> Vec<u8> {
    let feature = |list: &List| match list {
        Texts(texts) => {
            let texts: Vec<_> = texts
                .iter()
                .flat_map(|text| field(1, text.as_bytes()))
                .collect();
            field(1, &texts)
        }
        Floats(values) => {
            let packed: Vec<_> = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            field(2, &field(1, &packed))
        }
        Integers(values) => {
            let packed: Vec<_> = values
                .iter()
                .flat_map(|value| varint(*value as u64))
                .collect();
            field(3, &field(1, &packed))
        }
    };
    let entries = features.iter().flat_map(|(key, list)| {
        field(
            1,
            &[field(1, key.as_bytes()), field(2, &feature(list))].concat(),
        )
    });
    field(1, &entries.collect::<Vec<_>>())
}

/// CRC-32C, bit by bit, as TFRecord stores it.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut remainder = !0_u32;
    for &byte in bytes {
        remainder ^= u32::from(byte);
        for _ in 0..8 {
            remainder = (remainder >> 1) ^ if remainder & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    let masked = (!remainder).rotate_right(15).wrapping_add(0xa282_ead8);
    masked.to_le_bytes()
}

pub(super) fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// Two rows of four features.
fn rows() -> Vec<u8> {
    let first = example(&[
        ("x", Floats(&[1.0, -2.5, 0.25])),
        ("a", Integers(&[-7])),
        ("y", Texts(&["v"])),
    ]);
    let second = example(&[
        ("a", Integers(&[300])),
        ("y", Texts(&["u"])),
        ("x", Floats(&[4.0, 5.0, 6.0])),
    ]);
    [record(&first), record(&second)].concat()
}

fn folder(bytes: &[u8]) -> Folder {
    Folder::new(ROWS).with("a.tfrecord", bytes)
}

#[test]
fn features_are_found_by_name_plain_and_compressed() {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&rows()).unwrap();
    for bytes in [rows(), gzip(rows()), zlib.finish().unwrap()] {
        let table = folder(&bytes).train().unwrap();
        assert_eq!(table.names, ["a", "x"]);
        assert_eq!(
            table.features,
            [-7.0, 1.0, -2.5, 0.25, 300.0, 4.0, 5.0, 6.0]
        );
        assert_eq!(
            (table.target_kind, table.targets),
            (classes(&["u", "v"]), vec![1.0, 0.0])
        );
    }
}

#[test]
fn lists_may_be_written_one_value_at_a_time() {
    let float = |value: f32| [&[1 << 3 | 5][..], &value.to_le_bytes()].concat();
    let floats = field(2, &[float(1.5), float(-3.0)].concat());
    let integers = field(3, &[1 << 3, 4, 1 << 3, 2]);
    let entry = |key: &str, feature: &[u8]| {
        field(1, &[field(1, key.as_bytes()), field(2, feature)].concat())
    };
    let y = field(3, &[1 << 3, 1]);
    let features = [entry("x", &floats), entry("z", &integers), entry("y", &y)].concat();
    let table = folder(&record(&field(1, &features))).train().unwrap();
    assert_eq!(table.features, [1.5, -3.0, 4.0, 2.0]);
    assert_eq!(table.target_kind, classes(&["1"]));
}

#[test]
fn damaged_records_are_named_or_skipped() {
    let mut bytes = rows();
    bytes[20] ^= 1;
    let damaged = folder(&bytes);
    assert_eq!(
        damaged.train().unwrap_err(),
        "a.tfrecord: record 1: damaged: its checksum is another; bring back the file, or set \
         skip_damaged = true in [data] to go on without it"
    );
    let skipping = Folder {
        data: format!("{ROWS}\nskip_damaged = true"),
        ..damaged
    };
    let table = skipping.train().unwrap();
    assert_eq!(
        (table.rows, table.features),
        (1, vec![300.0, 4.0, 5.0, 6.0])
    );
    // Predictions stand for rows, so that none may be missing.
    let message = skipping.features("a.tfrecord").unwrap_err();
    assert_eq!(
        message,
        "a.tfrecord: record 1: damaged: its checksum is another; copy or write the file again"
    );
}

#[test]
fn what_is_skipped_is_counted_in_what_train_says() {
    let mut bytes = [rows(), record(b"\xff\xff"), rows()].concat();
    bytes[20] ^= 1;
    let folder = folder(&bytes);
    let text = format!(
        "[data]\n{ROWS}\nskip_damaged = true\n[estimator]\nkind = \"linear_classifier\"\n\
         [train]\ndevice = \"cpu\"\nglobal_batch = 2\nsteps = 1\n"
    );
    let folder = folder.with("run.toml", text);
    let said = ringstep(folder.folder.path(), &["train", "run.toml", "--ranks", "2"]);
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stderr).unwrap();
    let counted =
        "a.tfrecord: skipped 2 of 5 records; the first, record 1: damaged: its checksum is another";
    assert_eq!(said.matches(counted).count(), 1, "{said}");
}

#[test]
fn mistakes_have_file_record_and_column() {
    let error = |bytes: &[u8]| folder(bytes).train().unwrap_err();
    let whole = rows();
    assert_eq!(
        error(&whole[..whole.len() - 1]),
        "a.tfrecord: record 2: cut off; copy or write the file again"
    );
    let first = record(&example(&[("x", Floats(&[1.0])), ("y", Integers(&[1]))]));
    assert_eq!(
        error(&[&first[..], &first[..5]].concat()),
        "a.tfrecord: record 2: cut off; copy or write the file again"
    );
    let mut wrong = [&first[..], &first].concat();
    wrong[first.len()] ^= 4;
    assert_eq!(
        error(&wrong),
        "a.tfrecord: record 2: its length is damaged, or the file is no TFRecord; copy or write \
         the file again"
    );
    assert_eq!(
        error(b"a,b,y\n1,2,3\n4,5,6\n"),
        "a.tfrecord: record 1: its length is damaged, or the file is no TFRecord; copy or write \
         the file again"
    );
    assert_eq!(
        error(&record(b"\xff\xff")),
        "a.tfrecord: record 1: no tf.Example; bring back the file, or set skip_damaged = true in [data] \
         to go on without it"
    );
    let text = example(&[("x", Texts(&["abc"])), ("y", Integers(&[1]))]);
    assert_eq!(
        error(&record(&text)),
        "a.tfrecord: record 1: column 'x': expected a number, found the text 'abc'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    let other = example(&[("x", Floats(&[1.0, 2.0])), ("y", Integers(&[1]))]);
    assert_eq!(
        error(&[first, record(&other)].concat()),
        "a.tfrecord: record 2: column 'x': 2 values, but the first row has 1; mend the row"
    );
    assert_eq!(
        error(b""),
        "a.tfrecord: no rows in it; write some, or name another file"
    );
}

#[test]
fn predictions_need_no_labels() {
    let folder = folder(&rows()).with(
        "more.tfrecord",
        record(&example(&[
            ("x", Floats(&[1.0, 2.0, 3.0])),
            ("a", Integers(&[4])),
        ])),
    );
    assert_eq!(
        folder.features("more.tfrecord").unwrap().features,
        [4.0, 1.0, 2.0, 3.0]
    );
}

#[test]
fn records_are_a_stream() {
    let mut damaged = record(b"damaged");
    damaged[15] ^= 1;
    let folder = folder(&[record(b"one"), damaged, record(b""), vec![1; 20]].concat())
        .with("b.tfrecord", gzip(record(b"two")));
    let records = Dataset::records(&[folder.folder.path().join("*.tfrecord")]).unwrap();
    let shown = |record: Result<Vec<u8>, _>| match record {
        Ok(data) => String::from_utf8(data).unwrap(),
        Err(error) => folder.shown(error),
    };
    let shown: Vec<_> = records.iter(0).map(shown).collect();
    let expected = [
        "one",
        "a.tfrecord: record 2: damaged: its checksum is another; copy or write the file again",
        "",
        "a.tfrecord: record 4: its length is damaged, or the file is no TFRecord; copy or write \
         the file again",
        "two",
    ];
    assert_eq!(shown, expected);
}

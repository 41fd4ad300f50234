//! Parquet: types, codecs, missing values.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{Folder, classes};
use crate::commands::failure;

const ROWS: &str = "format = \"parquet\"\ntrain = \"a.parquet\"\nlabel = \"y\"";

/// The values of one column.
pub(super) enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bool(Vec<bool>),
    Text(Vec<&'static str>),
    /// Of any length, and of five.
    Bytes(Vec<&'static [u8]>),
    FiveBytes(Vec<[u8; 5]>),
    /// The levels say which rows have a value.
    Optional(Vec<i16>, Vec<f64>),
}
use Values::{Bool, Bytes, Double, FiveBytes, Float, Int32, Int64, Optional, Text};

/// A file with the same row group twice.
pub(super) fn file(schema: &str, compression: Compression, columns: &[Values]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(&format!("message rows {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        for values in columns {
            let mut column = group.next_column().unwrap().unwrap();
            let written = match values {
                Int32(values) => column.typed::<Int32Type>().write_batch(values, None, None),
                Int64(values) => column.typed::<Int64Type>().write_batch(values, None, None),
                Float(values) => column.typed::<FloatType>().write_batch(values, None, None),
                Double(values) => column.typed::<DoubleType>().write_batch(values, None, None),
                Bool(values) => column.typed::<BoolType>().write_batch(values, None, None),
                Text(values) => {
                    let values: Vec<ByteArray> = values.iter().map(|&text| text.into()).collect();
                    column
                        .typed::<ByteArrayType>()
                        .write_batch(&values, None, None)
                }
                Bytes(values) => {
                    let values: Vec<_> =
                        values.iter().map(|&bytes| bytes.to_vec().into()).collect();
                    column
                        .typed::<ByteArrayType>()
                        .write_batch(&values, None, None)
                }
                FiveBytes(values) => {
                    let values: Vec<_> = values.iter().map(|bytes| bytes.to_vec().into()).collect();
                    column
                        .typed::<FixedLenByteArrayType>()
                        .write_batch(&values, None, None)
                }
                Optional(levels, values) => {
                    column
                        .typed::<DoubleType>()
                        .write_batch(values, Some(levels), None)
                }
            };
            written.unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

const SCHEMA: &str = "required int32 a; required double b; required binary y (STRING);";

fn small(compression: Compression) -> Vec<u8> {
    let columns = [
        Int32(vec![1, -2]),
        Double(vec![0.5, 0.1]),
        Text(vec!["v", "u"]),
    ];
    file(SCHEMA, compression, &columns)
}

#[test]
fn columns_are_read_by_name_with_every_codec() {
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let table = Folder::new(ROWS)
            .with("a.parquet", small(compression))
            .train()
            .unwrap();
        assert_eq!(
            (table.rows, &table.names[..]),
            (4, &["a".to_owned(), "b".to_owned()][..])
        );
        assert_eq!(table.features, [1.0, 0.5, -2.0, 0.1, 1.0, 0.5, -2.0, 0.1]);
        assert_eq!(table.targets, [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(table.target_kind, classes(&["u", "v"]));
    }
}

#[test]
fn every_type_of_number_is_read() {
    let schema = "required int64 wide; required int32 unsigned (UINT_32); required float single; \
                  required boolean flag; required int32 price (DECIMAL(9, 2)); required int64 y;";
    let columns = [
        Int64(vec![1 << 40]),
        Int32(vec![-1]),
        Float(vec![0.1]),
        Bool(vec![true]),
        Int32(vec![-1250]),
        Int64(vec![10]),
    ];
    let folder = Folder::new(ROWS).with("a.parquet", file(schema, Compression::SNAPPY, &columns));
    let table = folder.train().unwrap();
    assert_eq!(
        table.features[..5],
        [1099511627776.0, 4294967295.0, 0.1, 1.0, -12.5]
    );
    assert_eq!(table.target_kind, classes(&["10"]));
}

#[test]
fn decimals_are_read_from_bytes() {
    let schema = "required fixed_len_byte_array(5) a (DECIMAL(11, 2)); \
                  required binary b (DECIMAL(38, 3)); required int64 y;";
    let read = |fixed: [u8; 5], bytes: &'static [u8]| {
        let columns = [FiveBytes(vec![fixed]), Bytes(vec![bytes]), Int64(vec![10])];
        let file = file(schema, Compression::SNAPPY, &columns);
        let table = Folder::new(ROWS).with("a.parquet", file).train();
        table.map(|table| table.features[..2].to_vec())
    };
    // -12.5 and 65.535, then 2^32 hundredths and -2^64 thousandths.
    let small = read([0xff, 0xff, 0xff, 0xfb, 0x1e], &[0, 0xff, 0xff]);
    assert_eq!(small.unwrap(), [-12.5, 65.535]);
    let large = read([1, 0, 0, 0, 0], &[0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(large.unwrap(), [42949672.96, -18446744073709551.616]);
    assert!(
        read([0; 5], &[0; 17]).unwrap_err().contains(
            "row 1: column 'b': expected a number, found a decimal of more than 16 bytes"
        )
    );
}

#[test]
fn rows_over_many_batches_keep_their_order() {
    let values: Vec<i32> = (0..10_000).collect();
    let labels = values.iter().map(|&value| f64::from(value) / 2.0).collect();
    let bytes = file(
        "required int32 x; required double y;",
        Compression::SNAPPY,
        &[Int32(values), Double(labels)],
    );
    let table = Folder::regression(ROWS)
        .with("a.parquet", bytes)
        .train()
        .unwrap();
    assert_eq!(table.rows, 20_000);
    assert!((0..20_000).all(|row| table.features[row] == (row % 10_000) as f32));
    assert!((0..20_000).all(|row| table.targets[row] == (row % 10_000) as f32 / 2.0));
}

#[test]
fn predictions_read_the_trained_columns_and_several_files_are_one_table() {
    let rows = file(
        "required double b; required int32 a;",
        Compression::SNAPPY,
        &[Double(vec![7.0]), Int32(vec![8])],
    );
    let folder = Folder::new(&ROWS.replace("a.parquet", "*-part.parquet"))
        .with("1-part.parquet", small(Compression::SNAPPY))
        .with("2-part.parquet", small(Compression::UNCOMPRESSED))
        .with("rows.parquet", &rows);
    assert_eq!(folder.train().unwrap().rows, 8);
    assert_eq!(
        folder.features("rows.parquet").unwrap().features,
        [8.0, 7.0, 8.0, 7.0]
    );
    assert_eq!(
        folder.with("2-part.parquet", rows).train().unwrap_err(),
        "2-part.parquet: column 1 is 'b', but 'a' in 1-part.parquet; files that are read together have \
         the same columns"
    );
}

#[test]
fn mistakes_have_file_row_and_column() {
    let error = |bytes: &[u8]| {
        Folder::new(ROWS)
            .with("a.parquet", bytes)
            .train()
            .unwrap_err()
    };
    let whole = small(Compression::SNAPPY);
    for cut in [&whole[..whole.len() - 1], &whole[..10], b"a,y\n1,2\n"] {
        let message = error(cut);
        assert!(
            message.starts_with("a.parquet: not a Parquet file, or cut off: "),
            "{message}"
        );
        assert!(
            message
                .ends_with("; copy or write the file again, or set format in [data] to what it is"),
            "{message}"
        );
    }
    let missing = [
        Optional(vec![1, 0, 1], vec![1.0, 3.0]),
        Int64(vec![0, 0, 0]),
    ];
    assert_eq!(
        error(&file(
            "optional double x; required int64 y;",
            Compression::SNAPPY,
            &missing
        )),
        "a.parquet: row 2: column 'x': missing; leave the row out, or give the numeric column a default in \
         [columns]"
    );
    let text = [Text(vec!["1"]), Int64(vec![0])];
    assert_eq!(
        error(&file(
            "required binary x (STRING); required int64 y;",
            Compression::SNAPPY,
            &text
        )),
        "a.parquet: row 1: column 'x': expected a number, found the text '1'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error(&file(
            "required int64 x; required int64 z;",
            Compression::SNAPPY,
            &[Int64(vec![0]), Int64(vec![0])]
        )),
        "a.parquet: no label column 'y'; known are x, z"
    );
    for (schema, problem) in [
        (
            "required group g { required int64 x; } required int64 y;",
            "column 'g' is nested; learn from columns of single values alone, which features in [data], or [columns], chooses",
        ),
        (
            "required int64 x; required group y { required int64 z; }",
            "column 'y' is nested; write each of its numbers to a column of its own, and name them all, as in label = [\"a\", \"b\"]",
        ),
    ] {
        let columns = [Int64(vec![0]), Int64(vec![0])];
        let nested = file(schema, Compression::SNAPPY, &columns);
        assert_eq!(error(&nested), format!("a.parquet: {problem}"));
    }
    let empty = [Int64(Vec::new()), Int64(Vec::new())];
    assert_eq!(
        error(&file(
            "required int64 x; required int64 y;",
            Compression::SNAPPY,
            &empty
        )),
        "a.parquet: no rows in it; write some, or name another file"
    );
    // Damage to the pages themselves.
    let mut damaged = small(Compression::ZSTD(ZstdLevel::default()));
    damaged[4..60].fill(0xff);
    let message = error(&damaged);
    assert!(
        message.starts_with("a.parquet: column 'a': damaged: "),
        "{message}"
    );
    assert!(
        message.ends_with("; copy or write the file again"),
        "{message}"
    );
}

#[test]
fn damage_anywhere_is_an_error_or_goes_unnoticed_but_stops_nothing() {
    let whole = small(Compression::SNAPPY);
    let mut errors = 0;
    let mut panicked = None;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let folder = Folder::new(ROWS).with("a.parquet", damaged);
        if let Err(message) = folder.train() {
            assert!(message.starts_with("a.parquet: "), "{message}");
            errors += 1;
            if message.contains("its metadata and its pages do not agree") {
                panicked = Some(folder);
            }
        }
    }
    // Only the error is printed where the crate panics.
    let panicked = panicked.unwrap();
    let said = failure(panicked.folder.path(), &["train", "run.toml"]);
    assert!(said.starts_with("error: "), "{said}");
    assert!(errors > whole.len() / 4, "{errors} of {}", whole.len());
}

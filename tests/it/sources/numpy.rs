//! numpy's arrays: types, shapes, archives.

use std::fs::File;
use std::io::{Cursor, Write};

use ringstep::data::Targets;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Folder, classes};

const PAIR: &str = "format = \"numpy\"\ntrain = \"x.npy\"\ntrain_labels = \"y.npy\"";

/// A file as numpy writes it.
fn npy(kind: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    with_header(&header, elements)
}

fn with_header(header: &str, elements: &[u8]) -> Vec<u8> {
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    bytes.extend(elements);
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn pair(x: &[u8], y: &[u8]) -> Folder {
    Folder::new(PAIR).with("x.npy", x).with("y.npy", y)
}

#[test]
fn arrays_are_read_with_their_shape_and_labels_are_indices() {
    let x = npy(
        "<f4",
        "(2, 1, 3)",
        &floats(&[1.0, -2.0, 0.5, 4.0, 5.0, 6.0]),
    );
    let y = npy("<i8", "(2,)", &[2_i64, 0].map(i64::to_le_bytes).concat());
    let table = pair(&x, &y).train().unwrap();
    assert_eq!((table.rows, table.shape), (2, [1, 3].into()));
    assert_eq!(table.features, [1.0, -2.0, 0.5, 4.0, 5.0, 6.0]);
    assert_eq!(table.targets, [2.0, 0.0]);
    assert_eq!(table.target_kind, classes(&["0", "1", "2"]));
}

#[test]
fn every_type_of_number_is_read_in_both_orders_of_bytes() {
    let read = |kind: &str, bytes: &[u8]| {
        let y = npy("|u1", "(1,)", &[0]);
        let table = pair(&npy(kind, "(1, 2)", bytes), &y).train();
        table.unwrap().features
    };
    assert_eq!(read("|u1", &[0, 255]), [0.0, 255.0]);
    assert_eq!(read("|i1", &[0xff, 0x80]), [-1.0, -128.0]);
    assert_eq!(read("|b1", &[0, 1]), [0.0, 1.0]);
    assert_eq!(read("<i2", &[0xfe, 0xff, 1, 0]), [-2.0, 1.0]);
    assert_eq!(read(">i2", &[0xff, 0xfe, 0, 1]), [-2.0, 1.0]);
    assert_eq!(read("<u2", &[0xfe, 0xff, 1, 0]), [65534.0, 1.0]);
    assert_eq!(
        read("<i4", &[-7_i32, 9].map(i32::to_le_bytes).concat()),
        [-7.0, 9.0]
    );
    assert_eq!(
        read(">u4", &[7_u32, 1 << 31].map(u32::to_be_bytes).concat()),
        [7.0, 2147483648.0]
    );
    assert_eq!(
        read("<u8", &[7_u64, 1 << 63].map(u64::to_le_bytes).concat()),
        [7.0, 9223372036854775808.0]
    );
    assert_eq!(read("<f2", &[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
    assert_eq!(
        read(">f4", &[0.1_f32, -3.0].map(f32::to_be_bytes).concat()),
        [0.1, -3.0]
    );
    assert_eq!(
        read("<f8", &[0.1_f64, 1e30].map(f64::to_le_bytes).concat()),
        [0.1, 1e30]
    );
}

#[test]
fn an_archive_is_a_folder_of_arrays() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = |method| SimpleFileOptions::default().compression_method(method);
    let deflated = options(CompressionMethod::Deflated);
    let stored = options(CompressionMethod::Stored);
    for (name, kind, shape, bytes, options) in [
        (
            "x_train",
            "<f4",
            "(2, 2)",
            floats(&[1.0, 2.0, 3.0, 4.0]),
            deflated,
        ),
        ("y_train", "|u1", "(2,)", vec![0, 1], stored),
        ("x_test", "<f4", "(1, 2)", floats(&[5.0, 6.0]), stored),
        ("y_test", "|u1", "(1,)", vec![1], deflated),
    ] {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(&npy(kind, shape, &bytes)).unwrap();
    }
    let archive = zip.finish().unwrap().into_inner();
    let data = "format = \"numpy\"\ntrain = \"all.npz/x_train\"\ntrain_labels = \"all.npz/y_train\"\n\
                test = \"all.npz/x_test\"\ntest_labels = \"all.npz/y_test\"";
    let folder = Folder::new(data).with("all.npz", &archive);
    assert_eq!(folder.train().unwrap().features, [1.0, 2.0, 3.0, 4.0]);
    let test = folder.test().unwrap();
    assert_eq!((test.features, test.targets), (vec![5.0, 6.0], vec![1.0]));
    assert_eq!(
        folder.features("all.npz/x_test").unwrap().features,
        [5.0, 6.0]
    );
    assert_eq!(
        folder.features("all.npz").unwrap_err(),
        "all.npz: 4 arrays in it: x_train, y_train, x_test, y_test; name one behind a slash, as though \
         the file were a folder"
    );
    assert_eq!(
        folder.features("all.npz/x_tset").unwrap_err(),
        "all.npz: no array 'x_tset'; did you mean 'x_test'?"
    );
    let mut damaged = archive.clone();
    // The elements of x_test are stored as they are.
    let at = archive
        .windows(4)
        .position(|bytes| bytes == 6.0_f32.to_le_bytes())
        .unwrap();
    damaged[at] ^= 1;
    let message = folder.with("all.npz", &damaged).test().unwrap_err();
    assert_eq!(
        message,
        "all.npz/x_test: cut off or damaged: Invalid checksum; copy or write the file again"
    );
    let folder = Folder::new(data);
    let message = folder
        .with("all.npz", &archive[..archive.len() - 30])
        .train()
        .unwrap_err();
    assert!(
        message.starts_with("all.npz: not an .npz file, or cut off: "),
        "{message}"
    );
}

#[test]
fn regressions_may_have_several_numbers() {
    let x = npy("<f4", "(2,)", &floats(&[1.0, 2.0]));
    let y = npy("<f4", "(2, 2)", &floats(&[0.5, 1.5, 2.5, 3.5]));
    let folder = Folder::regression(PAIR).with("x.npy", &x).with("y.npy", &y);
    let table = folder.train().unwrap();
    assert_eq!(
        (table.shape, table.target_kind),
        ([1].into(), Targets::Numbers(2))
    );
    assert_eq!(table.targets, [0.5, 1.5, 2.5, 3.5]);
    assert_eq!(
        pair(&x, &y).train().unwrap_err(),
        "y.npy: 2 numbers for each row, but a class is one number, its index; write that, or take a loss of \
         numbers"
    );
}

#[test]
fn mistakes_are_named() {
    let y = npy("|u1", "(2,)", &[0, 1]);
    let x = npy("<f4", "(2, 2)", &floats(&[1.0, 2.0, 3.0, 4.0]));
    let error = |x: &[u8], y: &[u8]| pair(x, y).train().unwrap_err();
    assert_eq!(
        error(&x[..x.len() - 1], &y),
        "x.npy: the header says 2 x 2 elements of 4 bytes, but 15 bytes follow; copy or write the file again"
    );
    let cut = "x.npy: not a .npy file, or cut off within its header; copy or write the file again, or \
               set format in [data] to what it is";
    assert_eq!(error(&x[..40], &y), cut);
    assert_eq!(error(b"a,b\n1,2\n", &y), cut);
    assert_eq!(
        error(&npy("<U5", "(2,)", &[0; 40]), &y),
        "x.npy: elements of type <U5; numbers of up to 8 bytes are read: save it with \
         astype(\"float32\")"
    );
    let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }";
    assert_eq!(
        error(&with_header(fortran, &[0; 16]), &y),
        "x.npy: its elements are in Fortran's order; save numpy.ascontiguousarray(..)"
    );
    assert_eq!(
        error(&npy("<f4", "(2, 1)", &floats(&[1.0, f32::NAN])), &y),
        "x.npy: row 2: NaN is no finite 32-bit number; mend it, or leave the row out"
    );
    assert_eq!(
        error(&npy("<f4", "(0, 2)", &[]), &y),
        "x.npy: no rows in it; write some, or name another file"
    );
    assert_eq!(
        error(&npy("<f4", "()", &floats(&[1.0])), &y),
        "x.npy: a single number, but features have at least 1 dimension (rows); name another file"
    );
    assert_eq!(
        error(&x, &npy("|u1", "(3,)", &[0, 1, 2])),
        "x.npy has 2 rows, but y.npy has 3 labels; name files that belong together"
    );
    assert_eq!(
        error(&x, &npy("<f4", "(2,)", &floats(&[0.0, 0.5]))),
        "y.npy: row 2: 0.5 is no class; mend it: classes are whole numbers from 0 to below 65536"
    );
    let mut two = pair(&x, &y);
    two.data += "\nclasses = [\"only\"]";
    assert_eq!(
        two.train().unwrap_err(),
        "y.npy: row 2: unknown label 1; known are 0 to 0; mend it, or add it to classes in [data]"
    );
    two.data = PAIR.to_owned();
    two.loss = "sigmoid_cross_entropy";
    two = two.with("y.npy", npy("|u1", "(2,)", &[0, 2]));
    assert_eq!(
        two.train().unwrap_err(),
        "y.npy: row 2: unknown label 2; known are 0 to 1; mend it, or raise n_classes in [estimator], or \
         take a loss of softmax_cross_entropy"
    );
    two = Folder::new("").with("x.npy", &x).with("y.npy", &y);
    two.data = format!("{PAIR}\nshape = [3]");
    assert_eq!(
        two.train().unwrap_err(),
        "x.npy: a row has 2 features, but shape = [3] asks for 3; mend the rows, or shape in [data]"
    );
    two.data = PAIR.replace("\"x.npy\"", "[\"x.npy\", \"z.npy\"]");
    assert_eq!(
        two.train().unwrap_err(),
        "run.toml:3: data.train: 2 paths; this format has one"
    );
    two.data = format!("{PAIR}\nlabel = \"y\"");
    assert_eq!(
        two.train().unwrap_err(),
        "run.toml:5: data.label: only csv, jsonl, parquet, tfrecord has it; numpy has train, test, \
         train_labels, test_labels"
    );
    two.data = format!("{PAIR}\nna_value = \"NA\"");
    assert_eq!(
        two.train().unwrap_err(),
        "run.toml:5: data.na_value: only csv has it; numpy has train, test, train_labels, test_labels"
    );
}

#[test]
fn a_header_that_asks_for_more_than_the_machine_has_is_refused() {
    let y = npy("|u1", "(2,)", &[0, 1]);
    let x = npy("|u1", "(4398046511104,)", &[]);
    let folder = pair(&x, &y);
    // A file of 4 TiB of which nothing is stored.
    let file = File::options()
        .write(true)
        .open(folder.folder.path().join("x.npy"));
    file.unwrap().set_len(x.len() as u64 + (1 << 42)).unwrap();
    let message = folder.train().unwrap_err();
    let start = "x.npy: 4398046511104 rows of 1 numbers take more memory than the ";
    assert!(message.starts_with(start), "{message}");
}

//! Sources of data: what they hold, and what is said about mistakes in them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use ringstep::data::{
    ArrayFormat, ArrayPair, ArraySource, ColumnFormat, ColumnSource, DataConfig, Source, Split,
    Table, Targets, Task, load, load_features,
};
use ringstep::layers::Shape;
use tempfile::TempDir;

const CLASSES: Task = Task::Classification { classes: None };

/// A folder with a train.csv and a test.csv, and how they are read.
struct Files {
    folder: TempDir,
    config: DataConfig,
}

impl Files {
    fn csv(train: &str, test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("train.csv"), train).unwrap();
        fs::write(folder.path().join("test.csv"), test).unwrap();
        let source = ColumnSource {
            format: ColumnFormat::Csv,
            train: vec![folder.path().join("train.csv")],
            test: vec![folder.path().join("test.csv")],
            features: None,
            labels: vec!["y".to_owned()],
            weight: None,
            classes: None,
            na_value: None,
        };
        let config = DataConfig::new(Source::Columns(source));
        Self { folder, config }
    }

    fn source(&mut self) -> &mut ColumnSource {
        match &mut self.config.source {
            Source::Columns(source) => source,
            _ => panic!("not columns"),
        }
    }

    /// The training split; errors without the folder.
    fn train(&self, task: Task) -> Result<Table, String> {
        load(&self.config, task, None, Split::Train, None).map_err(|error| self.shown(error))
    }

    fn test(&self, task: Task) -> Result<Table, String> {
        let trained = load(&self.config, task, None, Split::Train, None).unwrap();
        load(
            &self.config,
            task,
            None,
            Split::Test,
            Some(&trained.description()),
        )
        .map_err(|error| self.shown(error))
    }

    fn shown(&self, error: impl std::fmt::Display) -> String {
        let folder = format!("{}/", self.folder.path().display());
        error.to_string().replace(&folder, "")
    }
}

/// The error of a training file.
fn csv_error(text: &str, task: Task) -> String {
    Files::csv(text, "").train(task).unwrap_err()
}

#[test]
fn digits_are_read_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits");
    let mut files = Files::csv("", "");
    files.source().train = vec![folder.join("train.csv")];
    files.source().test = vec![folder.join("test.csv")];
    files.source().labels = vec!["digit".to_owned()];
    files.config.shape = Some([8, 8, 1].into());
    files.config.scale = 0.0625;
    let train = files.train(CLASSES).unwrap();
    let test = files.test(CLASSES).unwrap();
    assert_eq!((train.rows, test.rows), (1437, 360));
    assert_eq!(train.shape, Shape::from([8, 8, 1]));
    assert_eq!(train.features(0..1)[..5], [0.0, 0.0, 0.6875, 0.625, 0.75]);
    assert_eq!(train.targets(0..2), [5.0, 0.0]);
    let names: Vec<_> = (0..10).map(|digit| digit.to_string()).collect();
    assert_eq!(train.target_kind, Targets::Classes(names));
    assert_eq!((&train.names[0], train.names.len()), (&"p0".to_owned(), 64));
    assert_eq!(test.target_kind, train.target_kind);
}

#[test]
fn classes_are_sorted_as_numbers_or_as_text() {
    let numbers = Files::csv("x,y\n1,10\n1,9\n1,-1\n", "")
        .train(CLASSES)
        .unwrap();
    assert_eq!(numbers.target_kind, classes(&["-1", "9", "10"]));
    assert_eq!(numbers.targets, [2.0, 1.0, 0.0]);
    let text = Files::csv("y,x\nb,1\n10,2\n9,3\n", "")
        .train(CLASSES)
        .unwrap();
    assert_eq!(text.target_kind, classes(&["10", "9", "b"]));
    assert_eq!(
        (text.targets, text.features),
        (vec![2.0, 0.0, 1.0], vec![1.0, 2.0, 3.0])
    );
}

fn classes(names: &[&str]) -> Targets {
    Targets::Classes(names.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn the_test_split_has_the_trained_classes_and_columns() {
    let files = Files::csv("a,b,y\n1,2,u\n3,4,v\n", "y,b,more,a\nv,4,0,3\n");
    let test = files.test(CLASSES).unwrap();
    assert_eq!((test.features, test.targets), (vec![3.0, 4.0], vec![1.0]));
    let files = Files::csv("a,y\n1,u\n3,v\n", "a,y\n1,u\n1,w\n");
    assert_eq!(
        files.test(CLASSES).unwrap_err(),
        "test.csv:3: column 'y': unknown label 'w'; known are u, v; mend it, or add it to classes in \
         [data]"
    );
    let mut files = Files::csv("a,y\n1,u\n3,v\n", "");
    files.source().classes = Some(vec!["v".to_owned(), "u".to_owned()]);
    assert_eq!(files.train(CLASSES).unwrap().targets, [1.0, 0.0]);
    files.source().test = Vec::new();
    assert_eq!(
        files.test(CLASSES).unwrap_err(),
        "[data] names no test data; add test"
    );
}

#[test]
fn regressions_have_numbers_and_weights() {
    let mut files = Files::csv("w,a,y\n0.5,1e3,-2.5\n2,-0.1,1e5\n", "");
    files.source().weight = Some("w".to_owned());
    files.config.scale = 0.5;
    let table = files.train(Task::Regression).unwrap();
    assert_eq!(table.target_kind, Targets::Numbers(1));
    assert_eq!(table.features, [500.0, -0.05]);
    assert_eq!(table.targets, [-2.5, 1e5]);
    assert_eq!(table.weights, Some(vec![0.5, 2.0]));
    assert_eq!(
        {
            files.source().weight = Some("a".to_owned());
            files.train(Task::Regression).unwrap_err()
        },
        "train.csv:3: column 'a': a weight of -0.1 is below 0; mend the row"
    );
}

#[test]
fn mistakes_in_csv_files_are_named_with_file_line_and_column() {
    let error = |text: &str| csv_error(text, CLASSES);
    assert_eq!(
        error("a,y\n1,0\n1,2,3\n"),
        "train.csv:3: 3 fields, but the header has 2; mend the row, or put a field that has a comma of its \
         own in quotes"
    );
    assert_eq!(
        error("a,y\n1,0\n\n\"x\",1\n"),
        "train.csv:4: column 'a': expected a number, found 'x'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("a,y\r\n1,0\r\n\r\nx,1\r\n"),
        "train.csv:4: column 'a': expected a number, found 'x'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("a,y\r\n1,0\r\n1\r\n"),
        "train.csv:3: 1 fields, but the header has 2; mend the row, or put a field that has a comma of its \
         own in quotes"
    );
    assert_eq!(
        error("a,y\n,0\n"),
        "train.csv:2: column 'a': missing; leave the row out, or give the numeric column a default in \
         [columns]"
    );
    assert_eq!(
        error("a,y\nNaN,0\n"),
        "train.csv:2: column 'a': expected a number, found 'NaN'; where that is a missing value, leave the row \
         out, or set na_value = \"NaN\" in [data] and give the column a default in [columns]; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("a,y\n-inf,0\n"),
        "train.csv:2: column 'a': expected a finite number, found '-inf'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("a,y\n1e39,0\n"),
        "train.csv:2: column 'a': 1e39 is too large for a 32-bit number; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    assert_eq!(
        error("a,y\n1, \n"),
        "train.csv:2: column 'y': the label is empty; leave the row out"
    );
    assert_eq!(
        error("a,y\n"),
        "train.csv: no rows in it; write some, or name another file"
    );
    assert_eq!(
        error(""),
        "train.csv: the file is empty; its first line names the columns"
    );
    assert_eq!(
        error("a,a,y\n1,2,3\n"),
        "train.csv:1: columns 1 and 2 are both called 'a'; rename one, or leave it out"
    );
    assert_eq!(
        error("y\n1\n"),
        "train.csv: no column is left to learn from; add one beside label and weight"
    );
    assert_eq!(
        csv_error("a,y\n1,red\n", Task::Regression),
        "train.csv:2: column 'y': expected a number, found 'red'; mend the row, or for classes take a \
         classifier or a loss of cross entropy"
    );
    let mut files = Files::csv("pixel,digit\n1,2\n", "");
    files.source().labels = vec!["digt".to_owned()];
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "train.csv: no label column 'digt'; did you mean 'digit'?"
    );
    files.source().labels = vec!["digit".to_owned()];
    files.source().weight = Some("digits".to_owned());
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "train.csv: no weight column 'digits'; known are pixel, digit",
        "what is the label already is not meant"
    );
    let mut files = Files::csv("a,w,y\n1,0,0\n2,0,1\n", "");
    files.source().weight = Some("w".to_owned());
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "train.csv: every weight in column 'w' is 0, so that no row counts; mend them, or leave weight out of [data]"
    );
    let mut files = Files::csv("1,2\n3,4\n", "");
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "train.csv: no label column 'y'; known are 1, 2; if the first line holds values, put one with \
         names above it"
    );
    files.source().train = vec![files.folder.path().join("none.csv")];
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "cannot read none.csv: No such file or directory (os error 2); mend the path, or bring the file back"
    );
    let mut files = Files::csv("a,b,y\n1,2,0\n", "");
    files.config.shape = Some([8, 8, 1].into());
    assert_eq!(
        files.train(CLASSES).unwrap_err(),
        "train.csv: a row has 2 features, but shape = [8, 8, 1] asks for 64; mend the rows, or shape in [data]"
    );
}

#[test]
fn predictions_read_the_trained_columns_by_name() {
    let mut files = Files::csv("a,b,y\n8,9,u\n", "b\n1\n");
    files.config.scale = 2.0;
    files.config.shape = Some([2, 1].into());
    let trained = files.train(CLASSES).unwrap();
    let read = |text: &str, trained: &Table| {
        let path = files.folder.path().join("rows.csv");
        fs::write(&path, text).unwrap();
        load_features(&files.config, &path, &trained.description())
            .map_err(|error| files.shown(error))
    };
    let table = read("y,b,a\nwhatever,2,1\n", &trained).unwrap();
    assert_eq!((table.features, table.rows), (vec![2.0, 4.0], 1));
    assert_eq!((table.shape, table.targets), ([2, 1].into(), vec![]));
    assert_eq!(
        read("A,b\n1,1\n", &trained).unwrap_err(),
        "rows.csv: no feature column 'a'; known are A, b"
    );
    let unnamed = Table {
        names: Vec::new(),
        ..trained
    };
    assert_eq!(read("p,q\n1,2\n", &unnamed).unwrap().features, [2.0, 4.0]);
}

/// An IDX file of bytes.
fn idx(dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    dimensions
        .iter()
        .for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads images and labels as a training split.
fn load_idx(images: &[u8], labels: &[u8]) -> Result<Table, String> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let train = ArrayPair {
        features: write("images", images),
        labels: write("labels", labels),
    };
    let source = Source::Arrays(ArraySource {
        format: ArrayFormat::Idx,
        train,
        test: None,
        classes: None,
    });
    let config = DataConfig {
        scale: 0.5,
        ..DataConfig::new(source)
    };
    load(&config, CLASSES, None, Split::Train, None).map_err(|error| {
        let folder = format!("{}/", folder.path().display());
        error.to_string().replace(&folder, "")
    })
}

#[test]
fn idx_files_are_read_plain_and_compressed() {
    let images = idx(&[2, 1, 3], &[0, 1, 255, 4, 5, 6]);
    let labels = idx(&[2], &[2, 0]);
    let plain = load_idx(&images, &labels).unwrap();
    assert_eq!((plain.rows, &plain.shape), (2, &Shape::from([1, 3, 1])));
    assert_eq!(plain.features, [0.0, 0.5, 127.5, 2.0, 2.5, 3.0]);
    assert_eq!(plain.targets, [2.0, 0.0]);
    assert_eq!(plain.target_kind, classes(&["0", "1", "2"]));
    assert_eq!(load_idx(&gzip(&images), &gzip(&labels)).unwrap(), plain);
}

#[test]
fn mistakes_in_idx_files_are_named() {
    let images = idx(&[2, 1, 3], &[0, 1, 255, 4, 5, 6]);
    let labels = idx(&[2], &[2, 0]);
    let error = |images: &[u8], labels: &[u8]| load_idx(images, labels).unwrap_err();
    assert_eq!(
        error(b"a,b,c", &labels),
        "images: not an IDX file: it starts with [61, 2c, 62, 2c], not 00 00; name another file, or set \
         format in [data] to what it is"
    );
    assert_eq!(
        error(&images[..images.len() - 1], &labels),
        "images: the header says 2 x 1 x 3 elements, but 5 follow; copy or write the file again"
    );
    assert_eq!(
        error(&images[..9], &labels),
        "images: cut off within its header; copy or write the file again"
    );
    assert_eq!(
        error(&images, &idx(&[3], &[1, 2, 3])),
        "images has 2 rows, but labels has 3 labels; name files that belong together"
    );
    assert_eq!(
        error(&labels, &labels),
        "images: 1 dimensions (2), but images have 3 (rows, height, width); name another file, or set \
         format in [data] to what it is"
    );
    assert_eq!(
        error(&images, &images),
        "labels: 3 dimensions (2 x 1 x 3), but labels have 1 (rows); name another file, or set \
         format in [data] to what it is"
    );
    assert_eq!(
        error(&idx(&[0, 1, 3], &[]), &idx(&[0], &[])),
        "images: no rows in it; write some, or name another file"
    );
    let mut floats = images.clone();
    floats[2] = 0x0d;
    assert_eq!(
        error(&floats, &labels),
        "images: elements of type 0x0d; write them as unsigned bytes, 0x08, or as a numpy array"
    );
    let packed = gzip(&images);
    let message = error(&packed[..packed.len() - 9], &labels);
    assert!(
        message.starts_with("images: compressed data that are cut off or damaged: "),
        "{message}"
    );
}

proptest! {
    #[test]
    fn numbers_are_rounded_once(values in prop::collection::vec(any::<f32>(), 1..20)) {
        let values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).collect();
        prop_assume!(!values.is_empty());
        let rows: String = values.iter().map(|value| format!("{value:?},0\n")).collect();
        let table = Files::csv(&format!("a,y\n{rows}"), "").train(CLASSES).unwrap();
        prop_assert_eq!(table.features, values);
    }
}

//! Where a run's data lies and how it is read: the meaning of the run file's `[data]`.

use std::path::{Path, PathBuf};

use super::stream::Remainder;
use super::{Augment, Normalize, Part};
use crate::layers::Shape;
use crate::named::choices;

/// What the targets are for; the loss decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// The label is one of several classes.
    Classification {
        /// How many there are, where the model says it: one more is an error.
        classes: Option<usize>,
    },
    /// The label is a number.
    Regression,
}

/// One of the two parts of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is only evaluated on.
    Test,
}

/// The meaning of the run file's `[data]`. Paths are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct DataConfig {
    /// Files and their format.
    pub source: Source,
    /// Shape of one row; `None` takes the source's own: `[columns]` of named columns, `[height, width,
    /// 1]` of IDX images, the array's of numpy. Folders of images have none: it is the size they get.
    pub shape: Option<Shape>,
    /// Every feature is multiplied by this.
    pub scale: f64,
    /// What becomes of features after that.
    pub normalize: Option<Normalize>,
    /// Which rows of the training split are trained on.
    pub part: Part,
    /// Whether each epoch of training has its own random order, instead of the file's.
    pub shuffle: bool,
    /// Whether an epoch's last, short batch is trained on.
    pub remainder: Remainder,
    /// How images are varied in training.
    pub augment: Option<Augment>,
}

/// Files and their format.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Rows of named columns.
    Columns(ColumnSource),
    /// Rows of features in one file, their labels in another.
    Arrays(ArraySource),
    /// Folders of images.
    Images(ImageSource),
    /// No files: a program has the rows, and hands them over (`train::Session::with_data`).
    Program,
}

choices! {
    /// What files are.
    pub enum Format("format") {
        /// Text with a header row, plain or compressed by gzip.
        Csv = "csv",
        /// An object on each line, plain or compressed by gzip.
        JsonLines = "jsonl",
        /// Columns of numbers and texts.
        Parquet = "parquet",
        /// Records of `tf.Example`, plain or compressed by gzip or zlib.
        TfRecord = "tfrecord",
        /// MNIST's format, plain or compressed by gzip.
        Idx = "idx",
        /// Files of numpy, or arrays in an `.npz`.
        Numpy = "numpy",
        /// A folder for each class, with JPEG or PNG files.
        Images = "images",
        /// Rows that the program has which trains the run.
        Program = "program",
    }
}

/// A format with named columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnFormat {
    /// [`Format::Csv`]
    Csv,
    /// [`Format::JsonLines`]
    JsonLines,
    /// [`Format::Parquet`]
    Parquet,
    /// [`Format::TfRecord`]
    TfRecord {
        /// Whether records whose checksum is wrong or that are no example are passed over and counted.
        skip_damaged: bool,
    },
}

/// A format of arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayFormat {
    /// [`Format::Idx`]
    Idx,
    /// [`Format::Numpy`]
    Numpy,
}

/// Files with named columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSource {
    /// What the files are.
    pub format: ColumnFormat,
    /// Rows to train on: files and patterns that name files.
    pub train: Vec<PathBuf>,
    /// Rows to evaluate on; may be empty.
    pub test: Vec<PathBuf>,
    /// Names of the columns to learn from; `None` takes all that are neither labels nor weight.
    pub features: Option<Vec<String>>,
    /// Names of the columns to predict: one of classes, any of numbers, which follow each other in a target.
    pub labels: Vec<String>,
    /// Name of the column that weighs rows.
    pub weight: Option<String>,
    /// Names of the classes in index order; `None` takes those found in `train`, sorted.
    pub classes: Option<Vec<String>>,
    /// CSV: a field that is missing, beside one that is empty.
    pub na_value: Option<String>,
}

/// A pair of arrays for each split.
#[derive(Debug, Clone, PartialEq)]
pub struct ArraySource {
    /// What the files are.
    pub format: ArrayFormat,
    /// Rows to train on.
    pub train: ArrayPair,
    /// Rows to evaluate on.
    pub test: Option<ArrayPair>,
    /// Names of the classes in index order; `None` calls them by their numbers.
    pub classes: Option<Vec<String>>,
}

/// Features and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayPair {
    /// `[rows, ..]`
    pub features: PathBuf,
    /// `[rows]`, or `[rows, ..]` for several numbers each.
    pub labels: PathBuf,
}

/// A folder for each split, with a folder for each class.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSource {
    /// Images to train on.
    pub train: PathBuf,
    /// Images to evaluate on.
    pub test: Option<PathBuf>,
    /// Names of the classes in index order; `None` takes the folders in `train`, sorted.
    pub classes: Option<Vec<String>>,
    /// Whether damaged files are passed over and counted.
    pub skip_damaged: bool,
}

impl ColumnSource {
    /// Files of a path or a pattern to train on, and the column to predict; the others are learned from.
    /// Relative paths count from the current directory.
    pub fn new(format: ColumnFormat, train: impl AsRef<Path>, label: impl Into<String>) -> Self {
        Self {
            format,
            train: vec![absolute(train.as_ref())],
            test: Vec::new(),
            features: None,
            labels: vec![label.into()],
            weight: None,
            classes: None,
            na_value: None,
        }
    }

    /// Evaluates on the files of a path or a pattern.
    pub fn with_test(mut self, test: impl AsRef<Path>) -> Self {
        self.test = vec![absolute(test.as_ref())];
        self
    }
}

/// The path from the root, so that it means the same to who reads it in the run's folder; an empty one, which
/// has no such, is refused later.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl From<ColumnSource> for Source {
    fn from(source: ColumnSource) -> Self {
        Self::Columns(source)
    }
}

impl Source {
    /// What its files are.
    pub fn format(&self) -> Format {
        match self {
            Self::Columns(columns) => match columns.format {
                ColumnFormat::Csv => Format::Csv,
                ColumnFormat::JsonLines => Format::JsonLines,
                ColumnFormat::Parquet => Format::Parquet,
                ColumnFormat::TfRecord { .. } => Format::TfRecord,
            },
            Self::Arrays(arrays) => match arrays.format {
                ArrayFormat::Idx => Format::Idx,
                ArrayFormat::Numpy => Format::Numpy,
            },
            Self::Images(_) => Format::Images,
            Self::Program => Format::Program,
        }
    }

    /// Paths and patterns of all that both splits are read from.
    pub(crate) fn paths(&self) -> Vec<&PathBuf> {
        match self {
            Self::Columns(columns) => columns.train.iter().chain(&columns.test).collect(),
            Self::Arrays(arrays) => {
                let pairs = std::iter::once(&arrays.train).chain(&arrays.test);
                pairs
                    .flat_map(|pair| [&pair.features, &pair.labels])
                    .collect()
            }
            Self::Images(images) => std::iter::once(&images.train).chain(&images.test).collect(),
            Self::Program => Vec::new(),
        }
    }
}

impl DataConfig {
    /// All of `source` as it is, in random order.
    pub fn new(source: impl Into<Source>) -> Self {
        Self {
            source: source.into(),
            shape: None,
            scale: 1.0,
            normalize: None,
            part: Part::default(),
            shuffle: true,
            remainder: Remainder::Keep,
            augment: None,
        }
    }

    /// What the features of `split` come from, as errors name it: of the training split where there is
    /// no other.
    pub fn features(&self, split: Split) -> PathBuf {
        match &self.source {
            Source::Columns(columns) => {
                let files = match split {
                    Split::Test if !columns.test.is_empty() => &columns.test,
                    _ => &columns.train,
                };
                let files: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
                files.join(", ").into()
            }
            Source::Arrays(arrays) => match (split, &arrays.test) {
                (Split::Test, Some(test)) => test.features.clone(),
                _ => arrays.train.features.clone(),
            },
            Source::Images(images) => match (split, &images.test) {
                (Split::Test, Some(test)) => test.clone(),
                _ => images.train.clone(),
            },
            Source::Program => Format::Program.name().into(),
        }
    }

    /// Names of the classes in index order, where they are given.
    pub fn classes(&self) -> Option<&[String]> {
        let classes = match &self.source {
            Source::Columns(columns) => &columns.classes,
            Source::Arrays(arrays) => &arrays.classes,
            Source::Images(images) => &images.classes,
            Source::Program => &None,
        };
        classes.as_deref()
    }

    /// Whether there is anything to evaluate on, or may be where a program has the rows.
    pub fn has_test(&self) -> bool {
        match &self.source {
            Source::Columns(columns) => !columns.test.is_empty(),
            Source::Arrays(arrays) => arrays.test.is_some(),
            Source::Images(images) => images.test.is_some(),
            Source::Program => true,
        }
    }
}

//! Where a run's data lies and how it is read: the meaning of the run file's `[data]`.

use std::path::{Path, PathBuf};

use crate::layers::Shape;

/// What the targets are for; the loss decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// The label is one of several classes.
    Classification,
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
    /// Shape of one row; `None` takes the source's own: `[columns]` of a CSV file, `[height, width,
    /// 1]` of IDX images.
    pub shape: Option<Shape>,
    /// Every feature is multiplied by this.
    pub scale: f64,
    /// Whether each epoch of training has its own random order, instead of the file's.
    pub shuffle: bool,
}

/// Files and their format.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Text with a header row.
    Csv(CsvSource),
    /// MNIST's format, plain or compressed by gzip.
    Idx(IdxSource),
}

/// Comma-separated files with a header row.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvSource {
    /// Rows to train on.
    pub train: PathBuf,
    /// Rows to evaluate on.
    pub test: Option<PathBuf>,
    /// Name of the column to predict.
    pub label: String,
    /// Name of the column that weighs rows.
    pub weight: Option<String>,
    /// Names of the classes in index order; `None` takes those found in `train`, sorted.
    pub classes: Option<Vec<String>>,
}

/// A pair of IDX files for each split.
#[derive(Debug, Clone, PartialEq)]
pub struct IdxSource {
    /// Images to train on.
    pub train: IdxPair,
    /// Images to evaluate on.
    pub test: Option<IdxPair>,
    /// Names of the classes in index order; `None` calls them by their numbers.
    pub classes: Option<Vec<String>>,
}

/// Images and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct IdxPair {
    /// `[rows, height, width]` bytes.
    pub images: PathBuf,
    /// `[rows]` bytes.
    pub labels: PathBuf,
}

impl DataConfig {
    /// The file that the features of `split` come from; of the training split where there is no other.
    pub fn features(&self, split: Split) -> &Path {
        match &self.source {
            Source::Csv(csv) => match (split, &csv.test) {
                (Split::Test, Some(test)) => test,
                _ => &csv.train,
            },
            Source::Idx(idx) => match (split, &idx.test) {
                (Split::Test, Some(test)) => &test.images,
                _ => &idx.train.images,
            },
        }
    }

    /// Whether there is anything to evaluate on.
    pub fn has_test(&self) -> bool {
        match &self.source {
            Source::Csv(csv) => csv.test.is_some(),
            Source::Idx(idx) => idx.test.is_some(),
        }
    }
}

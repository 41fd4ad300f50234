//! The run file's `[data]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::file::{Problem, invalid, required};
use crate::data::{CsvSource, DataConfig, IdxPair, IdxSource, Source};
use crate::layers::Shape;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataSection {
    format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_images: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_labels: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_images: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test_labels: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shuffle: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    Csv,
    Idx,
}

impl DataSection {
    pub(super) fn check(self) -> Result<DataConfig, Problem> {
        let scale = self.scale.unwrap_or(1.0);
        if !scale.is_finite() || scale == 0.0 {
            return Err(invalid(
                &["data", "scale"],
                "expected a finite number other than 0",
            ));
        }
        if let Some(Shape(dimensions)) = &self.shape
            && (dimensions.is_empty() || dimensions.contains(&0))
        {
            return Err(invalid(
                &["data", "shape"],
                "expected dimensions of at least 1",
            ));
        }
        self.check_paths()?;
        let mut classes = self.classes.iter().flatten().enumerate();
        let named_before = |(index, name): &(usize, &String)| {
            self.classes
                .iter()
                .flatten()
                .take(*index)
                .any(|other| other == *name)
        };
        if let Some((_, name)) = classes.find(named_before) {
            let text = format!("class '{name}' is named twice");
            return Err(invalid(&["data", "classes"], text));
        }
        let shape = self.shape.clone();
        let shuffle = self.shuffle.unwrap_or(true);
        let source = match self.format {
            Format::Csv => Source::Csv(self.csv()?),
            Format::Idx => Source::Idx(self.idx()?),
        };
        Ok(DataConfig {
            source,
            shape,
            scale,
            shuffle,
        })
    }

    fn check_paths(&self) -> Result<(), Problem> {
        let paths: [(&'static [&'static str], _); 6] = [
            (&["data", "train"], &self.train),
            (&["data", "test"], &self.test),
            (&["data", "train_images"], &self.train_images),
            (&["data", "train_labels"], &self.train_labels),
            (&["data", "test_images"], &self.test_images),
            (&["data", "test_labels"], &self.test_labels),
        ];
        let is_empty = |path: &PathBuf| path.as_os_str().is_empty();
        match paths
            .into_iter()
            .find(|(_, path)| path.as_ref().is_some_and(is_empty))
        {
            Some((key, _)) => Err(invalid(
                key,
                "expected the path of a file, found ''; leave the key out where there is no file",
            )),
            None => Ok(()),
        }
    }

    fn csv(self) -> Result<CsvSource, Problem> {
        let foreign: [(&'static [&'static str], _); 4] = [
            (&["data", "train_images"], &self.train_images),
            (&["data", "train_labels"], &self.train_labels),
            (&["data", "test_images"], &self.test_images),
            (&["data", "test_labels"], &self.test_labels),
        ];
        for (key, value) in foreign {
            if value.is_some() {
                return Err(invalid(
                    key,
                    "only format = \"idx\" has it; csv has train and test",
                ));
            }
        }
        Ok(CsvSource {
            train: required(self.train, &["data", "train"], "the CSV file to train on")?,
            test: self.test,
            label: required(self.label, &["data", "label"], "the column to predict")?,
            weight: self.weight,
            classes: self.classes,
        })
    }

    fn idx(self) -> Result<IdxSource, Problem> {
        let foreign: [(&'static [&'static str], _); 4] = [
            (&["data", "train"], self.train.is_some()),
            (&["data", "test"], self.test.is_some()),
            (&["data", "label"], self.label.is_some()),
            (&["data", "weight"], self.weight.is_some()),
        ];
        for (key, present) in foreign {
            if present {
                let text = "only format = \"csv\" has it; idx has train_images and train_labels";
                return Err(invalid(key, text));
            }
        }
        let test = match (self.test_images, self.test_labels) {
            (None, None) => None,
            (images, labels) => Some(IdxPair {
                images: required(images, &["data", "test_images"], "beside test_labels")?,
                labels: required(labels, &["data", "test_labels"], "beside test_images")?,
            }),
        };
        Ok(IdxSource {
            train: IdxPair {
                images: required(
                    self.train_images,
                    &["data", "train_images"],
                    "the IDX file of the images to train on",
                )?,
                labels: required(
                    self.train_labels,
                    &["data", "train_labels"],
                    "the IDX file of their labels",
                )?,
            },
            test,
            classes: self.classes,
        })
    }
}

impl From<DataConfig> for DataSection {
    fn from(data: DataConfig) -> Self {
        Self {
            shape: data.shape,
            scale: Some(data.scale),
            shuffle: Some(data.shuffle),
            ..Self::from(data.source)
        }
    }
}

impl From<Source> for DataSection {
    fn from(source: Source) -> Self {
        let empty = Self {
            format: Format::Csv,
            train: None,
            test: None,
            label: None,
            weight: None,
            train_images: None,
            train_labels: None,
            test_images: None,
            test_labels: None,
            classes: None,
            shape: None,
            scale: None,
            shuffle: None,
        };
        match source {
            Source::Csv(csv) => Self {
                train: Some(csv.train),
                test: csv.test,
                label: Some(csv.label),
                weight: csv.weight,
                classes: csv.classes,
                ..empty
            },
            Source::Idx(idx) => {
                let (test_images, test_labels) =
                    idx.test.map(|pair| (pair.images, pair.labels)).unzip();
                Self {
                    format: Format::Idx,
                    train_images: Some(idx.train.images),
                    train_labels: Some(idx.train.labels),
                    test_images,
                    test_labels,
                    classes: idx.classes,
                    ..empty
                }
            }
        }
    }
}

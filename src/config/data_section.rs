//! The run file's `[data]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::data_rows::{self, Channels};
use super::file::{Problem, invalid, required};
use super::one_or_more::OneOrMore;
use super::paths::Paths;
use crate::data::stream::Remainder;
use crate::data::{
    ArrayFormat, ArrayPair, ArraySource, Augment, ColumnFormat, ColumnSource, DataConfig, Format,
    ImageSource, Shard, Source,
};
use crate::layers::Shape;
use crate::range::is_single;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DataSection {
    format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    train: Option<Paths>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Paths>,
    #[serde(skip_serializing_if = "Option::is_none")]
    features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<OneOrMore<String>>,
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
    na_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip_damaged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean: Option<Channels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    std: Option<Channels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    take: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shuffle: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop_remainder: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    augment: Option<Augment>,
}

const TRAIN: Key = &["data", "train"];
const TEST: Key = &["data", "test"];
const LABEL: Key = &["data", "label"];

/// A key of `[data]` that only some formats have.
type Key = &'static [&'static str; 2];

impl DataSection {
    /// `input` is the shape of a row that the model says it takes, if it does.
    pub(super) fn check(mut self, input: Option<Shape>) -> Result<DataConfig, Problem> {
        if let (Some(shape), Some(input)) = (&self.shape, &input)
            && shape != input
        {
            let text = format!(
                "{shape}, but the model takes {input}; leave shape out to take that, or change the model"
            );
            return Err(invalid(&["data", "shape"], text));
        }
        self.shape = self.shape.or(input);
        if let Some(scale) = self.scale
            && (!is_single(scale) || scale as f32 == 0.0)
        {
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
        self.refuse_foreign()?;
        self.check_paths()?;
        if let Some(text) = &self.na_value
            && (text.is_empty() || text.trim_ascii() != text)
        {
            return Err(invalid(
                &["data", "na_value"],
                "expected a text without space around it; an empty field is missing anyway",
            ));
        }
        if self.classes.as_ref().is_some_and(Vec::is_empty) {
            let text = "names no class; leave it out, or name all of them";
            return Err(invalid(&["data", "classes"], text));
        }
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
        let normalize = data_rows::normalize(self.mean.take(), self.std.take())?;
        let part = data_rows::part(self.skip, self.take, self.shard)?;
        if let Some(augment) = &self.augment {
            data_rows::check_augment(augment)?;
        }
        let (scale, shuffle, augment) = (self.scale, self.shuffle, self.augment.take());
        let (shape, drop_remainder) = (self.shape.clone(), self.drop_remainder);
        let source = match self.format {
            Format::Csv => Source::Columns(self.columns(ColumnFormat::Csv)?),
            Format::JsonLines => Source::Columns(self.columns(ColumnFormat::JsonLines)?),
            Format::Parquet => Source::Columns(self.columns(ColumnFormat::Parquet)?),
            Format::TfRecord => {
                let skip_damaged = self.skip_damaged.unwrap_or(false);
                Source::Columns(self.columns(ColumnFormat::TfRecord { skip_damaged })?)
            }
            Format::Idx => Source::Arrays(self.idx()?),
            Format::Numpy => Source::Arrays(self.numpy()?),
            Format::Images => Source::Images(self.images()?),
            Format::Program => {
                let changes = [
                    ("classes", self.classes.is_some()),
                    ("scale", scale.is_some_and(|scale| scale != 1.0)),
                    ("mean", normalize.is_some()),
                    ("skip", part.skip > 0),
                    ("take", part.take.is_some()),
                    ("shard", part.shard.is_some()),
                ];
                if let Some((key, _)) = changes.iter().find(|(_, is_there)| *is_there) {
                    let text = "a program's rows are taken as they are; change them there";
                    return Err(invalid(&["data", key], text));
                }
                Source::Program
            }
        };
        let default = DataConfig::new(source);
        Ok(DataConfig {
            shape,
            scale: scale.unwrap_or(default.scale),
            normalize,
            part,
            shuffle: shuffle.unwrap_or(default.shuffle),
            remainder: match drop_remainder {
                Some(true) => Remainder::Drop,
                Some(false) => Remainder::Keep,
                None => default.remainder,
            },
            augment,
            source: default.source,
        })
    }

    /// Refuses keys that another format has.
    fn refuse_foreign(&self) -> Result<(), Problem> {
        use Format::{Csv, Idx, Images, JsonLines, Numpy, Parquet, TfRecord};
        let rows = &[Csv, JsonLines, Parquet, TfRecord, Numpy, Images][..];
        let columns = &[Csv, JsonLines, Parquet, TfRecord][..];
        let keys: [(Key, bool, &[Format]); 11] = [
            (&["data", "train"], self.train.is_some(), rows),
            (&["data", "test"], self.test.is_some(), rows),
            (&["data", "features"], self.features.is_some(), columns),
            (LABEL, self.label.is_some(), columns),
            (&["data", "weight"], self.weight.is_some(), columns),
            (&["data", "na_value"], self.na_value.is_some(), &[Csv]),
            (
                &["data", "train_images"],
                self.train_images.is_some(),
                &[Idx],
            ),
            (
                &["data", "train_labels"],
                self.train_labels.is_some(),
                &[Idx, Numpy],
            ),
            (&["data", "test_images"], self.test_images.is_some(), &[Idx]),
            (
                &["data", "test_labels"],
                self.test_labels.is_some(),
                &[Idx, Numpy],
            ),
            (
                &["data", "skip_damaged"],
                self.skip_damaged.is_some(),
                &[TfRecord, Images],
            ),
        ];
        for (key, is_there, formats) in keys {
            if is_there && !formats.contains(&self.format) {
                let others: Vec<_> = formats.iter().map(|format| format.name()).collect();
                let has = keys
                    .iter()
                    .filter(|(_, _, formats)| formats.contains(&self.format));
                let has: Vec<_> = has.map(|(key, _, _)| key[1]).collect();
                let has = match &has[..] {
                    [] => "none such".to_owned(),
                    has => has.join(", "),
                };
                let text = format!(
                    "only {} has it; {} has {has}",
                    others.join(", "),
                    self.format
                );
                return Err(invalid(key, text));
            }
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), Problem> {
        let single = |path: &Option<PathBuf>| path.clone().map(Paths::from);
        let paths: [(Key, _); 6] = [
            (TRAIN, self.train.clone()),
            (TEST, self.test.clone()),
            (&["data", "train_images"], single(&self.train_images)),
            (&["data", "train_labels"], single(&self.train_labels)),
            (&["data", "test_images"], single(&self.test_images)),
            (&["data", "test_labels"], single(&self.test_labels)),
        ];
        for (key, paths) in paths {
            let problem = match paths {
                Some(OneOrMore(paths)) if paths.is_empty() => "names no files",
                Some(OneOrMore(paths)) if paths.iter().any(|path| path.as_os_str().is_empty()) => {
                    "expected the path of a file, found ''; leave the key out where there is no file"
                }
                _ => continue,
            };
            return Err(invalid(key, problem));
        }
        Ok(())
    }

    fn columns(self, format: ColumnFormat) -> Result<ColumnSource, Problem> {
        let train = required(self.train, TRAIN, "the files to train on")?;
        let OneOrMore(labels) = required(self.label, LABEL, "the column to predict")?;
        if labels.is_empty() {
            return Err(invalid(LABEL, "names no columns; name the one to predict"));
        }
        check_names(&labels, &[(self.weight.as_slice(), "the weight")])
            .map_err(|problem| invalid(LABEL, problem))?;
        if let Some(features) = &self.features {
            if features.is_empty() {
                let text = "names no columns; leave it out to learn from all but the label";
                return Err(invalid(&["data", "features"], text));
            }
            let others = [
                (&labels[..], "the label"),
                (self.weight.as_slice(), "the weight"),
            ];
            check_names(features, &others)
                .map_err(|problem| invalid(&["data", "features"], problem))?;
        }
        Ok(ColumnSource {
            format,
            train: train.0,
            test: self.test.map_or_else(Vec::new, |paths| paths.0),
            features: self.features,
            labels,
            weight: self.weight,
            classes: self.classes,
            na_value: self.na_value,
        })
    }

    fn idx(self) -> Result<ArraySource, Problem> {
        let test = match (self.test_images, self.test_labels) {
            (None, None) => None,
            (images, labels) => Some(ArrayPair {
                features: required(images, &["data", "test_images"], "beside test_labels")?,
                labels: required(labels, &["data", "test_labels"], "beside test_images")?,
            }),
        };
        Ok(ArraySource {
            format: ArrayFormat::Idx,
            train: ArrayPair {
                features: required(
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

    fn numpy(self) -> Result<ArraySource, Problem> {
        let what = "the array to train on, a .npy file or ARCHIVE.npz/NAME";
        let train = required(self.train, TRAIN, what)?;
        let labels = required(
            self.train_labels,
            &["data", "train_labels"],
            "the array of their labels",
        )?;
        let test = match (self.test, self.test_labels) {
            (None, None) => None,
            (features, labels) => Some(ArrayPair {
                features: required(features, TEST, "beside test_labels")?.single(TEST)?,
                labels: required(labels, &["data", "test_labels"], "beside test")?,
            }),
        };
        Ok(ArraySource {
            format: ArrayFormat::Numpy,
            train: ArrayPair {
                features: train.single(TRAIN)?,
                labels,
            },
            test,
            classes: self.classes,
        })
    }

    fn images(self) -> Result<ImageSource, Problem> {
        let problem = match self.shape.as_ref().map(|shape| &shape.0[..]) {
            Some([_, _, 1 | 3 | 4]) => None,
            _ => Some(
                "images need [height, width, channels], with 1 channel (grey), 3 (colours) or 4 (and opacity)",
            ),
        };
        if let Some(problem) = problem {
            return Err(invalid(&["data", "shape"], problem));
        }
        let what = "the folder to train on, with a folder for each class";
        let test = self.test.map(|test| test.single(TEST)).transpose()?;
        Ok(ImageSource {
            train: required(self.train, TRAIN, what)?.single(TRAIN)?,
            test,
            classes: self.classes,
            skip_damaged: self.skip_damaged.unwrap_or(false),
        })
    }
}

/// Refuses columns that are named twice, or that have one of the `others`' roles.
fn check_names(names: &[String], others: &[(&[String], &str)]) -> Result<(), String> {
    for (index, name) in names.iter().enumerate() {
        let other = others.iter().find(|(names, _)| names.contains(name));
        let role = match other {
            _ if names[..index].contains(name) => "named twice",
            Some((_, role)) => role,
            None => continue,
        };
        return Err(format!("'{name}' is {role}"));
    }
    Ok(())
}

impl From<DataConfig> for DataSection {
    fn from(data: DataConfig) -> Self {
        let (mean, std) = data.normalize.map(|it| (it.mean, it.std)).unzip();
        let (mean, std) = (mean.map(Channels::Each), std.map(Channels::Each));
        Self {
            shape: data.shape,
            scale: Some(data.scale),
            mean,
            std,
            skip: Some(data.part.skip),
            take: data.part.take,
            shard: data.part.shard,
            shuffle: Some(data.shuffle),
            drop_remainder: Some(data.remainder == Remainder::Drop),
            augment: data.augment,
            ..Self::from(data.source)
        }
    }
}

impl From<Source> for DataSection {
    fn from(source: Source) -> Self {
        let empty = Self {
            format: source.format(),
            train: None,
            test: None,
            features: None,
            label: None,
            weight: None,
            train_images: None,
            train_labels: None,
            test_images: None,
            test_labels: None,
            classes: None,
            na_value: None,
            skip_damaged: None,
            shape: None,
            scale: None,
            mean: None,
            std: None,
            skip: None,
            take: None,
            shard: None,
            shuffle: None,
            drop_remainder: None,
            augment: None,
        };
        match source {
            Source::Columns(columns) => Self {
                train: Some(OneOrMore(columns.train)),
                test: (!columns.test.is_empty()).then_some(OneOrMore(columns.test)),
                features: columns.features,
                label: Some(OneOrMore(columns.labels)),
                weight: columns.weight,
                classes: columns.classes,
                na_value: columns.na_value,
                skip_damaged: match columns.format {
                    ColumnFormat::TfRecord { skip_damaged } => Some(skip_damaged),
                    _ => None,
                },
                ..empty
            },
            Source::Arrays(arrays) => {
                let (test, test_labels) =
                    arrays.test.map(|pair| (pair.features, pair.labels)).unzip();
                let empty = Self {
                    train_labels: Some(arrays.train.labels),
                    test_labels,
                    classes: arrays.classes,
                    ..empty
                };
                match arrays.format {
                    ArrayFormat::Idx => Self {
                        train_images: Some(arrays.train.features),
                        test_images: test,
                        ..empty
                    },
                    ArrayFormat::Numpy => Self {
                        train: Some(arrays.train.features.into()),
                        test: test.map(Paths::from),
                        ..empty
                    },
                }
            }
            Source::Images(images) => Self {
                train: Some(images.train.into()),
                test: images.test.map(Paths::from),
                classes: images.classes,
                skip_damaged: Some(images.skip_damaged),
                ..empty
            },
            Source::Program => empty,
        }
    }
}

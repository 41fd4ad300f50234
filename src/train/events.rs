//! TensorBoard's event files: what `metrics.jsonl` says of steps and evaluations, as scalars.
//!
//! A file is a TFRecord of messages `Event`, of which only what is written stands here, under the names and
//! numbers of TensorFlow's `event.proto` and `summary.proto`. TensorBoard draws every folder of such files
//! as a curve of its own: `train` beside `test`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::Record;
use crate::checkpoint::FileError;
use crate::data::framed;

/// What the names of files begin with; TensorBoard finds them by it.
const PREFIX: &str = "events.out.tfevents.";
/// What is first in a file.
const VERSION: &str = "brain.Event:2";
/// `SessionLog.SessionStatus`: drops what earlier files say of this step and later ones.
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // One of several that a value can be: written even where it is 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Writes a run's event files as its metrics come.
#[derive(Debug)]
pub(super) struct Events {
    train: Curves,
    test: Curves,
}

/// The file in one folder.
#[derive(Debug)]
struct Curves {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins files under `folder` for a run that has taken `step` steps.
    pub(super) fn begin(folder: &Path, step: u64) -> Result<Self, FileError> {
        Ok(Self {
            train: Curves::begin(&folder.join(TRAIN), step)?,
            test: Curves::begin(&folder.join(TEST), step)?,
        })
    }

    /// Writes what a line of the metrics says.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), FileError> {
        match record {
            Record::Train(record) => {
                let scalars = [
                    ("loss", Some(record.loss)),
                    ("learning_rate", Some(record.rate)),
                    ("samples_per_second", Some(record.samples_per_second)),
                    // As TensorFlow's estimators call it.
                    ("global_step/sec", Some(record.steps_per_second)),
                    ("exposed_comm_ms", Some(record.exposed_comm_ms)),
                    ("input_wait_ms", Some(record.input_wait_ms)),
                    ("gradient_norm", record.gradient_norm),
                    ("loss_scale", record.loss_scale),
                ];
                let scalars = scalars.into_iter();
                let scalars = scalars.filter_map(|(name, value)| Some((name, value?)));
                self.train.write(record.step, scalars)
            }
            Record::Evaluate(record) => {
                let metrics = record.metrics.iter();
                let scalars = metrics.map(|(name, &value)| (name.as_str(), value));
                self.test.write(record.step, scalars)
            }
            Record::Start(_) | Record::Matmul(_) | Record::Unknown => Ok(()),
        }
    }
}

/// Folders of what is drawn as a curve of its own.
pub(super) const TRAIN: &str = "train";
/// As [`TRAIN`].
pub(super) const TEST: &str = "test";

/// Whether a file of this name is one of events.
pub(super) fn is_of_events(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Curves {
    fn begin(folder: &Path, step: u64) -> Result<Self, FileError> {
        fs::create_dir_all(folder).map_err(FileError::of("create", folder))?;
        // Files are read in the order of their names.
        let now = now();
        let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
        let path = folder.join(format!("{PREFIX}{seconds:010}.{nanoseconds:09}"));
        let file = File::create(&path).map_err(FileError::of("create", &path))?;
        let mut curves = Self { path, file };
        curves.append(Event {
            file_version: Some(VERSION.to_owned()),
            ..Event::default()
        })?;
        curves.append(Event {
            step: step as i64 + 1,
            session_log: Some(SessionLog { status: START }),
            ..Event::default()
        })?;
        Ok(curves)
    }

    fn write<'a>(
        &mut self,
        step: u64,
        scalars: impl Iterator<Item = (&'a str, f64)>,
    ) -> Result<(), FileError> {
        let value = |(name, value): (&str, f64)| Value {
            tag: name.to_owned(),
            simple_value: Some(value as f32),
        };
        self.append(Event {
            step: step as i64,
            summary: Some(Summary {
                value: scalars.map(value).collect(),
            }),
            ..Event::default()
        })
    }

    fn append(&mut self, mut event: Event) -> Result<(), FileError> {
        event.wall_time = now().as_secs_f64();
        self.file
            .write_all(&framed(&event.encode_to_vec()))
            .map_err(FileError::of("write", &self.path))
    }
}

fn now() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::EvaluateRecord;

    #[test]
    fn files_hold_what_tensorboard_reads() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::begin(folder.path(), 40).unwrap();
        let record = EvaluateRecord {
            step: 50,
            epoch: 1,
            data: "test".to_owned(),
            rows: 9,
            metrics: [("loss".to_owned(), 0.0)].into(),
        };
        events.write(&Record::Evaluate(record)).unwrap();
        let mut test = fs::read_dir(folder.path().join(TEST)).unwrap();
        let path = test.next().unwrap().unwrap().path();
        assert!(is_of_events(path.file_name().unwrap().to_str().unwrap()));
        let contents = fs::read(path).unwrap();
        // Version, start and evaluation: each a length with checksum, the message, and its checksum. The
        // first is a time and the version.
        let first = 9 + 2 + VERSION.len();
        assert_eq!(contents[..8], (first as u64).to_le_bytes());
        assert_eq!(&contents[12 + 11..12 + first], VERSION.as_bytes());
        let last = 9 + 2 + 2 + 2 + 6 + 5;
        let message = &contents[contents.len() - 4 - last..contents.len() - 4];
        assert_eq!(message[0], 0o11);
        // Step 50; a summary of 13 bytes, a value of 11: its tag, and 0 as a float.
        let rest = [
            0x10, 50, 0x2a, 13, 0x0a, 11, 0x0a, 4, b'l', b'o', b's', b's', 0x15,
        ];
        assert_eq!(message[9..], [&rest[..], &[0; 4]].concat());
        let start = &contents[12 + first + 4 + 12..contents.len() - 4 - last - 12 - 4];
        assert_eq!(start[9..], [0x10, 41, 0x3a, 2, 8, START as u8]);
    }
}

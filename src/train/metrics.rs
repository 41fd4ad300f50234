//! `metrics.jsonl`: one JSON object per line for each logged step and each evaluation.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::backend::{MatmulChoice, Precision, TimedMatmul};
use crate::checkpoint::{FileError, write_atomically};
use crate::comm::{Algorithm, ReduceMode};

/// One line of the file.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// Training began or went on.
    Start(StartRecord),
    /// What computes products of matrices, as timed.
    Matmul(MatmulRecord),
    /// A logged step.
    Train(TrainRecord),
    /// An evaluation.
    Evaluate(EvaluateRecord),
    /// Of a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// How training began or went on.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StartRecord {
    /// Global steps taken before.
    pub step: u64,
    /// Number of ranks.
    pub world: usize,
    /// What sums over ranks.
    pub collective: Algorithm,
    /// Whether it sums in the host's memory what GPUs compute.
    #[serde(default)]
    pub staged: bool,
    /// What computes: kind of device, instruction set, compiler.
    #[serde(default)]
    pub device: String,
    /// How gradients are added.
    #[serde(default)]
    pub reduce: ReduceMode,
    /// What operands of products are rounded to.
    #[serde(default)]
    pub precision: Precision,
    /// What multiplies matrices on GPUs.
    #[serde(default)]
    pub matmul: MatmulChoice,
}

/// What computes products of matrices from here on, where that is chosen by timing them.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MatmulRecord {
    /// Global steps taken before.
    pub step: u64,
    /// Each product that the steps before asked for; any other is computed by own kernels.
    pub products: Vec<TimedMatmul>,
}

/// A logged step. Times are those of one step, averaged since the line before.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TrainRecord {
    /// Global steps taken, this one included.
    pub step: u64,
    /// Whole passes over the data taken before this step.
    pub epoch: u64,
    /// The loss of the step's global batch; `null` where it is not finite.
    #[serde(with = "number")]
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Rows per second over all ranks.
    pub samples_per_second: f64,
    /// Steps per second.
    #[serde(default)]
    pub steps_per_second: f64,
    /// Milliseconds that rank 0's compute waited for the sums over ranks.
    pub exposed_comm_ms: f64,
    /// Milliseconds that rank 0's compute waited for data.
    pub input_wait_ms: f64,
    /// Global norm of the gradient before clipping, where clipping asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// What the loss was multiplied by in backward, under `f16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Steps since the line before that were not applied because that was too much, under `f16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u32>,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EvaluateRecord {
    /// Global steps taken before it.
    pub step: u64,
    /// Whole passes over the training data taken before it.
    pub epoch: u64,
    /// What it was evaluated on: `test`.
    pub data: String,
    /// Number of rows.
    pub rows: u64,
    /// What came out, by name, at the top of the object: `loss`, `accuracy`. Finite ones only.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

/// Writes a run's metrics as they come.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Adds to the file at `path`, or begins it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(path: &Path) -> Result<Self, FileError> {
        let open = || {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).read(true).open(path)?;
            if !ends_a_line(&mut file)? {
                // The process before was killed in mid-line; what follows must not join it.
                file.write_all(b"\n")?;
            }
            Ok(file)
        };
        Ok(Self {
            file: open().map_err(FileError::of("write", path))?,
            path: path.to_owned(),
        })
    }

    /// Goes on from the checkpoint of `step`: lines of later steps are dropped first.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<Self, FileError> {
        /// What every kind of line has.
        #[derive(serde::Deserialize)]
        struct Line {
            step: u64,
        }
        let text = read_text(path)?;
        let belongs = |line: &&str| {
            serde_json::from_str(line).is_ok_and(|Line { step: logged }| logged <= step)
        };
        let kept: String = text
            .lines()
            .filter(belongs)
            .flat_map(|line| [line, "\n"])
            .collect();
        if kept != text {
            write_atomically(path, kept.as_bytes())?;
        }
        Self::append(path)
    }

    /// Writes one line, whole or not at all as far as readers can see.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), FileError> {
        let mut record = record.clone();
        if let Record::Evaluate(evaluation) = &mut record {
            evaluation.metrics.retain(|_, value| value.is_finite());
        }
        let write = |file: &mut File| {
            let mut line = serde_json::to_string(&record)?;
            line.push('\n');
            file.write_all(line.as_bytes())
        };
        write(&mut self.file).map_err(FileError::of("write", &self.path))
    }
}

/// The records of the file at `path`, in order; none if there is no file. Lines that are not whole
/// are left out.
///
/// # Errors
/// If the file cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>, FileError> {
    let parse = |line| serde_json::from_str(line).ok();
    Ok(read_text(path)?.lines().filter_map(parse).collect())
}

fn read_text(path: &Path) -> Result<String, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

/// Whether the file is empty or its last byte ends a line.
fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// JSON has no word for NaN and infinity: they are written as `null`, which is read as NaN.
mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(step: u64, loss: f64) -> Record {
        Record::Train(TrainRecord {
            step,
            epoch: 1,
            loss,
            rate: 0.001,
            samples_per_second: 1234.5,
            steps_per_second: 12.5,
            exposed_comm_ms: 0.25,
            input_wait_ms: 0.0,
            gradient_norm: None,
            loss_scale: None,
            skipped: None,
        })
    }

    fn evaluate(step: u64) -> Record {
        Record::Evaluate(EvaluateRecord {
            step,
            epoch: 2,
            data: "test".to_owned(),
            rows: 360,
            metrics: [("loss".to_owned(), 0.1), ("accuracy".to_owned(), 0.975)].into(),
        })
    }

    #[test]
    fn what_is_written_is_read_one_object_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let start = Record::Start(StartRecord {
            step: 0,
            world: 4,
            collective: Algorithm::Direct,
            staged: false,
            device: "cpu avx2".to_owned(),
            reduce: ReduceMode::F32,
            precision: Precision::Bf16,
            matmul: MatmulChoice::Kernels,
        });
        let records = [start, train(10, 0.5), evaluate(10)];
        let mut writer = MetricsWriter::append(&path).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        assert_eq!(read_metrics(&path).unwrap(), records);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let expected = r#"{"kind":"train","step":10,"epoch":1,"loss":0.5,"rate":0.001,"samples_per_second":1234.5,"steps_per_second":12.5,"exposed_comm_ms":0.25,"input_wait_ms":0.0}"#;
        assert_eq!(lines[1], expected);
        let expected = r#"{"kind":"evaluate","step":10,"epoch":2,"data":"test","rows":360,"accuracy":0.975,"loss":0.1}"#;
        assert_eq!(lines[2], expected);
    }

    #[test]
    fn lines_behind_the_resumed_step_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::append(&path).unwrap();
        for step in [10, 20, 30] {
            writer.write(&train(step, 1.0)).unwrap();
            writer.write(&evaluate(step)).unwrap();
        }
        // Of a later version, and cut off by a kill.
        writer
            .file
            .write_all(b"{\"kind\":\"new\",\"step\":20}\n{\"kind\":\"train\",\"st")
            .unwrap();
        let mut writer = MetricsWriter::resume(&path, 20).unwrap();
        writer.write(&train(21, 0.5)).unwrap();
        let expected = [
            train(10, 1.0),
            evaluate(10),
            train(20, 1.0),
            evaluate(20),
            Record::Unknown,
            train(21, 0.5),
        ];
        assert_eq!(read_metrics(&path).unwrap(), expected);
    }

    #[test]
    fn a_line_cut_off_by_a_kill_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsWriter::append(&path)
            .unwrap()
            .write(&train(1, 1.0))
            .unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"kind\":\"tr").unwrap();
        MetricsWriter::append(&path)
            .unwrap()
            .write(&evaluate(2))
            .unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [train(1, 1.0), evaluate(2)]);
    }

    #[test]
    fn numbers_that_are_not_finite_leave_the_file_readable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::append(&path).unwrap();
        writer.write(&train(1, f64::INFINITY)).unwrap();
        let mut evaluation = evaluate(1);
        if let Record::Evaluate(record) = &mut evaluation {
            record.metrics.insert("loss".to_owned(), f64::NAN);
        }
        writer.write(&evaluation).unwrap();
        let records = read_metrics(&path).unwrap();
        let [Record::Train(train), Record::Evaluate(evaluate)] = &records[..] else {
            panic!("{records:?}");
        };
        assert!(train.loss.is_nan());
        assert_eq!(evaluate.metrics.keys().collect::<Vec<_>>(), ["accuracy"]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut writer = MetricsWriter {
            path: "/dev/full".into(),
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
        };
        let error = writer.write(&train(1, 1.0)).unwrap_err().to_string();
        assert!(
            error.contains("/dev/full") && error.contains("free space"),
            "{error}"
        );
    }
}

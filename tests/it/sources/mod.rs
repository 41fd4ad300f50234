//! Formats of data: what they hold, and what is said about mistakes in them.

mod columns;
mod csv;
mod gzip;
mod images;
mod jsonl;
mod labels;
mod numpy;
mod parquet;
mod rows;
mod tfrecord;

use std::fs;
use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use ringstep::config::RunConfig;
use ringstep::data::{Split, Table, Targets};
use tempfile::TempDir;

/// A folder of files and what a run file says of them.
struct Folder {
    folder: TempDir,
    data: String,
    loss: &'static str,
}

impl Folder {
    /// A run of classes whose `[data]` has these lines.
    fn new(data: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            data: data.to_owned(),
            loss: "softmax_cross_entropy",
        }
    }

    /// A run of numbers.
    fn regression(data: &str) -> Self {
        Self {
            loss: "squared_error",
            ..Self::new(data)
        }
    }

    fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn config(&self) -> Result<RunConfig, String> {
        let text = format!(
            "[data]\n{}\n[model]\nloss = \"{}\"\nlayers = [\"flatten\"]\n[train]\nglobal_batch = 2\n\
             steps = 1\noptimizer = \"sgd\"\n",
            self.data, self.loss
        );
        let path = self.folder.path().join("run.toml");
        fs::write(&path, text).unwrap();
        let config = RunConfig::load(&path, &[]).map_err(|error| self.shown(error))?;
        // The resolved file is the same run.
        fs::write(&path, config.to_toml()).unwrap();
        assert_eq!(RunConfig::load(&path, &[]).unwrap(), config);
        Ok(config)
    }

    fn train(&self) -> Result<Table, String> {
        let config = self.config()?;
        let table = config.load_data(Split::Train, None);
        table.map_err(|error| self.shown(error))
    }

    fn test(&self) -> Result<Table, String> {
        let config = self.config()?;
        let trained = config.load_data(Split::Train, None).unwrap().description();
        let table = config.load_data(Split::Test, Some(&trained));
        table.map_err(|error| self.shown(error))
    }

    /// The rows of `input` as `predict` reads them.
    fn features(&self, input: &str) -> Result<Table, String> {
        let config = self.config()?;
        let trained = config.load_data(Split::Train, None).unwrap().description();
        let table = config.load_features(&self.folder.path().join(input), &trained);
        table.map_err(|error| self.shown(error))
    }

    /// The message without the folder.
    fn shown(&self, error: impl std::fmt::Display) -> String {
        let folder = format!("{}/", self.folder.path().display());
        error.to_string().replace(&folder, "")
    }
}

fn classes(names: &[&str]) -> Targets {
    Targets::Classes(names.iter().map(|&name| name.to_owned()).collect())
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

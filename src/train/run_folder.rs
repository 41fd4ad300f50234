//! The folder a run lives in.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound};
use std::path::{Path, PathBuf};

use super::events;
use super::exports::is_exported;
use crate::checkpoint::{FileError, names, remove_checkpoints, write_atomically};

/// What becomes of a run that is in the way of a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays: an error.
    Keep,
    /// Its configuration, metrics, checkpoints, exports and event files are removed.
    Replace,
}

/// A run's folder: `config.toml`, `metrics.jsonl`, `checkpoints/`, `exports/` and `tensorboard/`.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held while training, so that no second process trains in the same folder.
    _lock: Option<File>,
}

/// A folder that cannot be trained in or read from.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// Something cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a run already.
    #[error(
        "{} holds a run already; continue it with --resume, start it anew with --overwrite (its \
         checkpoints are lost), or choose another folder with --run-dir",
        path.display()
    )]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// There is none.
    #[error("no run in {}: it has no {CONFIG}; `ringstep train RUN_FILE` makes one", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains there.
    #[error(
        "another process trains in {}; wait for it, stop it, or choose another folder with \
         --run-dir",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const EXPORTS: &str = "exports";
const EVENTS: &str = "tensorboard";
/// Name of the folder of checkpoints within a run's.
pub const CHECKPOINTS: &str = "checkpoints";

impl RunFolder {
    /// Makes the folder of a new run and writes its resolved configuration there.
    ///
    /// # Errors
    /// If there is a run already that is to be kept or is being trained, or nothing can be written.
    pub fn create(path: &Path, existing: Existing, config: &str) -> Result<Self, RunFolderError> {
        let folder = Self::at(path);
        fs::create_dir_all(path).map_err(FileError::of("create", path))?;
        let parts = [
            folder.config_path(),
            folder.metrics_path(),
            folder.checkpoints(),
            folder.exports(),
            folder.events(),
        ];
        let folder = folder.lock()?;
        // Looked at with the lock: another process may just have made it.
        if existing == Existing::Keep && parts.iter().any(|part| part.exists()) {
            return Err(RunFolderError::Exists {
                path: path.to_owned(),
            });
        }
        // Nothing but what a run consists of: the folders may be such that hold other things, too.
        // The configuration goes last, so that a folder cut off halfway is still known as a run.
        remove_checkpoints(&folder.checkpoints())?;
        remove_files(&folder.exports(), is_exported)?;
        for curves in [events::TRAIN, events::TEST] {
            remove_files(&folder.events().join(curves), events::is_of_events)?;
        }
        remove_files(&folder.events(), |_| false)?;
        remove(&folder.metrics_path())?;
        remove(&folder.config_path())?;
        folder.write_config(config)?;
        Ok(folder)
    }

    /// Replaces the resolved configuration.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, config: &str) -> Result<(), FileError> {
        write_atomically(&self.config_path(), config.as_bytes())
    }

    /// A run, to read.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<Self, RunFolderError> {
        let folder = Self::at(path);
        if !folder.config_path().is_file() {
            return Err(RunFolderError::NotARun {
                path: path.to_owned(),
            });
        }
        Ok(folder)
    }

    /// A run, to train it further.
    ///
    /// # Errors
    /// If there is none, or another process trains it.
    pub fn resume(path: &Path) -> Result<Self, RunFolderError> {
        Self::open(path)?.lock()
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration, a run file.
    pub fn config_path(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// A line per logged step and evaluation.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// Where the checkpoints lie.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join(CHECKPOINTS)
    }

    /// Where TensorBoard's event files lie.
    pub fn events(&self) -> PathBuf {
        self.path.join(EVENTS)
    }

    /// Where the models lie that were exported on the way.
    pub fn exports(&self) -> PathBuf {
        self.path.join(EXPORTS)
    }

    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            _lock: None,
        }
    }

    fn lock(self) -> Result<Self, RunFolderError> {
        let file = File::open(&self.path).map_err(FileError::of("open", &self.path))?;
        // A file system without locks is no reason not to train.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(RunFolderError::InUse { path: self.path });
        }
        Ok(Self {
            _lock: Some(file),
            ..self
        })
    }
}

/// Removes the files of `folder` that are ours, and then the folder, unless it holds something else.
fn remove_files(folder: &Path, is_ours: impl Fn(&str) -> bool) -> Result<(), FileError> {
    for name in names(folder)?.iter().filter(|name| is_ours(name)) {
        remove(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        Err(error) if ![NotFound, DirectoryNotEmpty, NotADirectory].contains(&error.kind()) => {
            Err(FileError::of("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a file; one that is not there is fine.
fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == NotFound => Ok(()),
        removed => removed.map_err(FileError::of("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_run_is_kept_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/a");
        let run = RunFolder::create(&path, Existing::Keep, "a = 1\n").unwrap();
        fs::create_dir_all(run.checkpoints().join("step-1")).unwrap();
        fs::write(run.metrics_path(), "{}\n").unwrap();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        let ours = [
            run.exports().join("best-1.onnx"),
            run.events().join("train/events.out.tfevents.1"),
            run.events().join("test/events.out.tfevents.1"),
        ];
        for file in &ours {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        fs::write(run.exports().join("notes.txt"), "mine").unwrap();
        drop(run);
        // Nor is what it exported taken for nothing, where somebody kept that alone.
        let exported = folder.path().join("runs/b/exports");
        fs::create_dir_all(&exported).unwrap();
        fs::write(exported.join("best-1.onnx"), "").unwrap();
        let kept = RunFolder::create(&folder.path().join("runs/b"), Existing::Keep, "");
        assert!(matches!(kept, Err(RunFolderError::Exists { .. })));
        assert!(exported.join("best-1.onnx").exists());
        let error = RunFolder::create(&path, Existing::Keep, "a = 2\n").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("--resume") && error.contains("--overwrite"),
            "{error}"
        );
        assert_eq!(fs::read(path.join("config.toml")).unwrap(), b"a = 1\n");
        assert!(path.join("checkpoints/step-1").exists());

        let run = RunFolder::create(&path, Existing::Replace, "a = 2\n").unwrap();
        assert_eq!(fs::read(run.config_path()).unwrap(), b"a = 2\n");
        assert!(!run.checkpoints().exists() && !run.metrics_path().exists());
        assert!(!run.events().exists() && !ours[0].exists());
        assert_eq!(fs::read(run.exports().join("notes.txt")).unwrap(), b"mine");
        assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"mine");
        let mine = run.checkpoints().join("step-1.kept");
        drop(run);

        for folder in [&mine, &path.join("checkpoints/.step-2.partial")] {
            fs::create_dir_all(folder).unwrap();
        }
        let run = RunFolder::create(&path, Existing::Replace, "a = 3\n").unwrap();
        let left = fs::read_dir(run.checkpoints()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [mine]);
    }

    #[test]
    fn two_processes_do_not_train_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path(), Existing::Keep, "").unwrap();
        let error = RunFolder::resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another process trains in"), "{error}");
        assert!(RunFolder::create(folder.path(), Existing::Replace, "").is_err());
        RunFolder::open(folder.path()).unwrap();
        drop(run);
        RunFolder::resume(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_no_run_says_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = RunFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ringstep train"), "{error}");
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunFolder::create(&file.join("a"), Existing::Keep, "").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("file/a") && error.contains("choose another folder"),
            "{error}"
        );
    }
}

//! What can go wrong with files and checkpoints.

use std::io;
use std::path::{Path, PathBuf};

/// A file or folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
pub struct FileError {
    /// What was tried: "write", "rename".
    pub action: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: the failed `action` on `path`.
    pub fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// What to do about it, as the end of a sentence; nothing where the system's words say it.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there, or choose a folder on another disk; what was saved earlier is whole"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; make it writable and readable for this user, or choose another folder"
        }
        io::ErrorKind::NotADirectory => "; part of the path is a file: choose another folder",
        _ => "",
    }
}

/// A checkpoint that cannot be written, found or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file of it cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what was written.
    #[error("checkpoint {} is damaged: {problem}", folder.display())]
    Damaged {
        /// The checkpoint.
        folder: PathBuf,
        /// The file, and what is wrong with it.
        problem: String,
    },
    /// Another version of the program wrote it.
    #[error(
        "checkpoint {} has format {found}, but this program reads format {known}; use the program \
         that wrote it",
        folder.display()
    )]
    Format {
        /// The checkpoint.
        folder: PathBuf,
        /// Its format.
        found: u32,
        /// The only format this program reads.
        known: u32,
    },
    /// It belongs to another model or optimizer.
    #[error(
        "checkpoint {} does not fit: {problems}; use the run file it was written with, or start \
         anew in another run folder",
        folder.display()
    )]
    Mismatch {
        /// The checkpoint.
        folder: PathBuf,
        /// What is missing, in excess or of another shape.
        problems: String,
    },
    /// There is none, or not the one asked for.
    #[error("no {wanted} in {}; there: {present}", checkpoints.display())]
    NotFound {
        /// What was asked for.
        wanted: String,
        /// Where it was looked for.
        checkpoints: PathBuf,
        /// What is there.
        present: String,
    },
    /// A rank did not write what it holds.
    #[error(
        "checkpoint of step {step}: rank {rank} of {parts} wrote no optimizer state to {}; every \
         rank must see the run folder",
        folder.display()
    )]
    MissingPart {
        /// The step.
        step: u64,
        /// The rank.
        rank: usize,
        /// Ranks that hold state.
        parts: usize,
        /// Where rank 0 looked.
        folder: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::FileError;
    use std::io;
    use std::path::Path;

    #[test]
    fn a_full_disk_is_named_with_its_remedy() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = FileError::of("write", Path::new("runs/a/model.safetensors"))(full).to_string();
        assert!(error.starts_with("cannot write runs/a/model.safetensors: No space left"));
        assert!(error.contains("free space there"), "{error}");
    }

    #[test]
    fn an_unwritable_folder_is_named_with_its_remedy() {
        for code in [libc::EACCES, libc::EROFS] {
            let error = io::Error::from_raw_os_error(code);
            let error = FileError::of("create", Path::new("runs"))(error).to_string();
            assert!(error.contains("make it writable"), "{error}");
        }
    }
}

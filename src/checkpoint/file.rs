//! Files that are whole or not there: hashed while they are written, flushed, renamed into place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::FileError;

/// Size and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileRecord {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl FileRecord {
    /// Of these contents.
    pub(crate) fn of(contents: &[u8]) -> Self {
        Self {
            bytes: contents.len() as u64,
            sha256: hex(&Sha256::digest(contents)),
        }
    }
}

/// Replaces the file at `path` by `contents` in one step: readers see the old file or the new one,
/// also after a power failure. A link stays, and what it leads to is replaced. What is no file of its
/// own (a device, a pipe, `/dev/stdout` wherever that goes) is written to as it is.
///
/// # Errors
/// If it cannot be written; the old file is untouched.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    if is_stream(path) {
        return File::options()
            .append(true)
            .open(path)
            .and_then(|mut open| open.write_all(contents))
            .map_err(FileError::of("write", path));
    }
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let path = target.as_path();
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    let partial = path.with_file_name(name);
    // Whoever reads the error has named the file, not what it is written as.
    write_durably(&partial, |file| file.write_all(contents)).map_err(|error| FileError {
        path: path.to_owned(),
        ..error
    })?;
    fs::rename(&partial, path).map_err(|error| {
        // What could not take its place is of no use.
        let _ = fs::remove_file(&partial);
        FileError::of("write", path)(error)
    })?;
    sync_folder(parent(path))
}

/// Whether bytes written there are on their way to somebody, instead of lying there afterwards.
fn is_stream(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    let of_system = ["/dev", "/proc"].iter().any(|root| path.starts_with(root));
    let is_other = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
    is_other || (is_link && of_system)
}

/// Writes a file through `body` and flushes it to the disk; nothing is left of a failed one.
pub(super) fn write_durably(
    path: &Path,
    body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<FileRecord, FileError> {
    let write = || {
        let mut file = Hashing {
            file: BufWriter::with_capacity(1 << 18, File::create(path)?),
            hash: Sha256::new(),
            bytes: 0,
        };
        body(&mut file)?;
        file.file.into_inner()?.sync_all()?;
        Ok(FileRecord {
            bytes: file.bytes,
            sha256: hex(&file.hash.finalize()),
        })
    };
    write().map_err(|error| {
        if fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
            // What is there is of no use, and takes the place a full disk lacks.
            let _ = fs::remove_file(path);
        }
        FileError::of("write", path)(error)
    })
}

/// Flushes a folder's list of names to the disk.
pub(super) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(FileError::of("flush", folder))
}

/// Gives each of two folders the other's name in one step; `false` where the file system cannot.
pub(super) fn exchange(a: &Path, b: &Path) -> Result<bool, FileError> {
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(FileError::of("replace", b)(error.into())),
    }
}

/// Removes a folder and what is in it; one that is not there is fine.
pub(super) fn remove_folder(folder: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::of("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// The folder a path lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// The names of what lies in `folder`; empty if there is no such folder.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::of("list", folder)(error)),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    entries
        .map(name)
        .collect::<io::Result<_>>()
        .map_err(FileError::of("list", folder))
}

/// `folder/name`, made with what is missing above it.
pub(super) fn make_folder(folder: PathBuf) -> Result<PathBuf, FileError> {
    fs::create_dir_all(&folder).map_err(FileError::of("create", &folder))?;
    Ok(folder)
}

struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_that_of_the_bytes_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let record = write_durably(&path, |file| {
            file.write_all(b"ab")?;
            file.write_all(b"c")
        })
        .unwrap();
        // FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((record.bytes, record.sha256.as_str()), (3, known));
        assert_eq!(FileRecord::of(&fs::read(&path).unwrap()), record);
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let error = write_durably(Path::new("/dev/full"), |file| file.write_all(&[0; 1 << 20]));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("cannot write /dev/full"), "{error}");
        assert!(error.contains("free space"), "{error}");
    }

    #[test]
    fn replacing_a_file_leaves_nothing_else_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()).unwrap(), ["a.txt"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        fs::create_dir(folder.path().join(".a.txt.partial")).unwrap();
        assert!(write_atomically(&path, b"new").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}

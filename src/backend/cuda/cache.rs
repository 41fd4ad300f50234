//! Compiled kernels on disk: `kernels/<key>.cubin` or `.ptx` in the user's cache folder.
//!
//! An entry is the SHA-256 of its code followed by the code, written under another name and renamed:
//! what is there is whole, or is found damaged and built again. A folder that cannot be written
//! costs time, not the run.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Length of the checksum before the code.
const CHECKSUM_BYTES: usize = 32;

/// All that decides what a compiler makes.
pub(super) struct Key(Sha256);

/// Where code with one key lies, if there is a cache.
pub(super) struct Entry(Option<PathBuf>);

impl Key {
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a part, its length first, so that parts cannot run into each other.
    pub(super) fn add(&mut self, part: &str) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    pub(super) fn entry(self, extension: &str) -> Entry {
        let hex: String = self
            .0
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Entry(folder().map(|folder| folder.join(format!("{hex}.{extension}"))))
    }
}

impl Entry {
    /// The code, where it is there and whole.
    pub(super) fn read(&self) -> Option<Vec<u8>> {
        let path = self.0.as_ref()?;
        let mut content = fs::read(path).ok()?;
        let whole = content.len() > CHECKSUM_BYTES
            && Sha256::digest(&content[CHECKSUM_BYTES..])[..] == content[..CHECKSUM_BYTES];
        if !whole {
            tracing::warn!("{} is damaged; it is built again", path.display());
            return None;
        }
        content.drain(..CHECKSUM_BYTES);
        Some(content)
    }

    pub(super) fn write(&self, code: &[u8]) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = write(path, code) {
            tracing::warn!(
                "cannot keep {}: {error}; the next start compiles it again",
                path.display()
            );
        }
    }
}

fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let mut content = Sha256::digest(code).to_vec();
    content.extend_from_slice(code);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Other processes may write the same entry: each to a file of its own.
    let mut draft: OsString = path.into();
    draft.push(format!(".{}", std::process::id()));
    fs::write(&draft, content)?;
    fs::rename(&draft, path)
}

/// The folder of compiled kernels; `None` for a user without a home.
pub(super) fn folder() -> Option<PathBuf> {
    let from = |variable| std::env::var_os(variable).filter(|value: &OsString| !value.is_empty());
    let caches = from("XDG_CACHE_HOME").map(PathBuf::from);
    let caches = caches.or_else(|| from("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(caches.join("ringstep").join("kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_entry_is_as_good_as_none_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels").join("a.ptx");
        let entry = Entry(Some(path.clone()));
        assert_eq!(entry.read(), None);
        entry.write(b"code");
        assert_eq!(entry.read().as_deref(), Some(&b"code"[..]));
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&flipped[..], &whole[..whole.len() - 1], &whole[..10], &[]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(entry.read(), None);
        }
        entry.write(b"code");
        assert_eq!(entry.read().as_deref(), Some(&b"code"[..]));
        // Nothing but the entry is left behind.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let name = |parts: &[&str]| {
            let mut key = Key::new();
            parts.iter().for_each(|part| key.add(part));
            key.0.finalize()
        };
        assert_eq!(name(&["a", "bc"]), name(&["a", "bc"]));
        assert_ne!(name(&["a", "bc"]), name(&["ab", "c"]));
    }
}

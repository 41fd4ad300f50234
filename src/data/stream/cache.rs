//! Elements that are made once.
//!
//! What is kept are the elements of epoch 0, whichever epoch is read first, and they are kept once a pass has
//! come to its end without an error.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Boxed, Dataset, Size, Stage, opened, replay, sources};
use crate::data::{DataError, Place};

impl<T: Clone + Send + Sync + 'static> Dataset<T> {
    /// The same elements in every epoch, kept in memory by the first whole pass.
    #[must_use]
    pub fn cache(self) -> Self {
        Self::new(Memory {
            from: self,
            kept: Arc::default(),
        })
    }
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Dataset<T> {
    /// The same elements in every epoch, kept in a file by the first whole pass, an element on each line
    /// as JSON (where numbers are finite). A file that is there already is what is read.
    #[must_use]
    pub fn cache_file(self, path: impl Into<PathBuf>) -> Self {
        Self::new(OnDisk {
            from: self,
            path: path.into(),
        })
    }
}

struct Memory<T> {
    from: Dataset<T>,
    kept: Arc<OnceLock<Vec<T>>>,
}

impl<T: Clone + Send + Sync + 'static> Stage<T> for Memory<T> {
    fn size(&self) -> Size {
        match self.kept.get() {
            Some(elements) => Size::Known(elements.len() as u64),
            None => self.from.size(),
        }
    }

    fn seeks(&self) -> bool {
        self.kept.get().is_some()
    }

    fn open(&self, _: u64, start: u64) -> Boxed<T> {
        let kept = Arc::clone(&self.kept);
        if let Some(elements) = kept.get() {
            let end = elements.len() as u64;
            let element = move |place: u64| Some(Ok(kept.get()?[place as usize].clone()));
            return Box::new((start..end).filter_map(element));
        }
        let mut elements = self.from.stage.open(0, 0);
        let mut all = Some(Vec::new());
        let kept = iter::from_fn(move || {
            let element = elements.next();
            match (&element, &mut all) {
                (Some(Ok(element)), Some(all)) => all.push(element.clone()),
                (Some(Err(_)), _) => all = None,
                // Another pass may have been quicker.
                (None, _) => drop(all.take().map(|all| kept.set(all))),
                (Some(Ok(_)), None) => {}
            }
            element
        });
        Box::new(replay(kept, start))
    }
}

struct OnDisk<T> {
    from: Dataset<T>,
    path: PathBuf,
}

impl<T: Serialize + DeserializeOwned + Send + 'static> Stage<T> for OnDisk<T> {
    fn size(&self) -> Size {
        self.from.size()
    }

    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, _: u64, start: u64) -> Boxed<T> {
        let elements: Result<Boxed<T>, DataError> = match self.path.exists() {
            true => read(&self.path),
            false => write(&self.path, self.from.stage.open(0, 0)),
        };
        opened(elements.map(|elements| replay(elements, start)))
    }
}

fn read<T: DeserializeOwned + Send + 'static>(path: &Path) -> Result<Boxed<T>, DataError> {
    let lines = sources::lines(path)?;
    let path = path.to_owned();
    Ok(Box::new((1..).zip(lines).map(move |(number, line)| {
        serde_json::from_str(&line?).map_err(|error| DataError::Row {
            path: path.clone(),
            place: Place::Line(number),
            problem: format!(
                "no element of this stream ({error}); remove the file to make it again"
            ),
        })
    })))
}

/// A file that takes its name when it is whole.
struct Unfinished {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Unfinished {
    fn create(path: &Path) -> std::io::Result<Self> {
        /// Passes that go on at the same time write files of their own.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{count}", std::process::id()));
        let path = path.with_file_name(name);
        let file = Some(BufWriter::new(File::create(&path)?));
        Ok(Self { path, file })
    }

    /// Adds a line, where nothing has gone wrong before.
    fn push(&mut self, line: &[u8]) -> std::io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(line).and_then(|()| file.write_all(b"\n")),
            None => Ok(()),
        }
    }

    fn finish(&mut self, path: &Path) -> std::io::Result<()> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        file.into_inner()
            .map_err(|error| error.into_error())?
            .sync_all()?;
        fs::rename(&self.path, path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Where it took its name, there is none of this one.
        let _ = fs::remove_file(&self.path);
    }
}

fn write<T: Serialize + Send + 'static>(
    path: &Path,
    mut elements: Boxed<T>,
) -> Result<Boxed<T>, DataError> {
    let path = path.to_owned();
    let failed = |path: &Path, error: &dyn std::fmt::Display| {
        DataError::format(path, format!("elements cannot be kept in it: {error}"))
    };
    let mut file = Unfinished::create(&path).map_err(|error| failed(&path, &error))?;
    Ok(Box::new(iter::from_fn(move || {
        let element = elements.next();
        let kept = match &element {
            Some(Ok(element)) => match serde_json::to_vec(element) {
                Ok(line) => file.push(&line).map_err(|error| failed(&path, &error)),
                Err(error) => Err(failed(&path, &error)),
            },
            // What has an error in it is not kept.
            Some(Err(_)) => {
                file.file = None;
                Ok(())
            }
            None => file.finish(&path).map_err(|error| failed(&path, &error)),
        };
        match kept {
            Ok(()) => element,
            Err(error) => {
                file.file = None;
                Some(Err(error))
            }
        }
    })))
}

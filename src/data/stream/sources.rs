//! Where elements come from.

use std::io::{BufRead, BufReader};
use std::iter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Boxed, Dataset, Size, Stage, opened, replay};
use crate::data::{DataError, Place, files, tfrecord};

impl<T: Send + 'static> Dataset<T> {
    /// `size` elements, each a function of its place.
    pub fn from_fn(
        size: u64,
        element: impl Fn(u64) -> Result<T, DataError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Indexed {
            size,
            element: Arc::new(element),
        })
    }

    /// What an iterator gives, which is made anew for each pass.
    pub fn generate<I>(elements: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: Iterator<Item = Result<T, DataError>> + Send + 'static,
    {
        Self::new(Generated { elements })
    }
}

/// The elements of a list, in order.
impl<T: Clone + Send + Sync + 'static> From<Vec<T>> for Dataset<T> {
    fn from(list: Vec<T>) -> Self {
        Self::from_fn(list.len() as u64, move |index| {
            Ok(list[index as usize].clone())
        })
    }
}

impl Dataset<u64> {
    /// The numbers of a range.
    pub fn range(range: Range<u64>) -> Self {
        let size = range.end.saturating_sub(range.start);
        Self::from_fn(size, move |index| Ok(range.start + index))
    }
}

impl Dataset<String> {
    /// The lines of text files, plain or gzip, without their ends. Patterns name files as in a run file.
    ///
    /// # Errors
    /// If a pattern names none. What cannot be read is an error among the elements.
    pub fn lines(patterns: &[PathBuf]) -> Result<Self, DataError> {
        of_files(patterns, |path| opened(lines(&path)))
    }
}

impl Dataset<Vec<u8>> {
    /// The records of TFRecord files, plain, gzip or zlib, their checksums verified. Patterns name files as
    /// in a run file.
    ///
    /// # Errors
    /// If a pattern names none. What cannot be read is an error among the elements.
    pub fn records(patterns: &[PathBuf]) -> Result<Self, DataError> {
        of_files(patterns, |path| opened(tfrecord::records(&path)))
    }
}

/// What `open` finds in each file, one file after the other.
fn of_files<T: Send + 'static>(
    patterns: &[PathBuf],
    open: fn(PathBuf) -> Boxed<T>,
) -> Result<Dataset<T>, DataError> {
    let paths = files::find(patterns)?;
    Ok(Dataset::generate(move || {
        paths.clone().into_iter().flat_map(open)
    }))
}

/// The lines of a file without their ends; what cannot be read ends them.
pub(super) fn lines(
    path: &Path,
) -> Result<impl Iterator<Item = Result<String, DataError>> + use<>, DataError> {
    let path = path.to_owned();
    let mut reader = BufReader::with_capacity(files::BUFFER, files::open(&path)?);
    let mut number = 0;
    let mut is_broken = false;
    Ok(iter::from_fn(move || {
        if is_broken {
            return None;
        }
        let mut line = Vec::new();
        number += 1;
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                if line.ends_with(b"\n") {
                    line.pop();
                }
                if line.ends_with(b"\r") {
                    line.pop();
                }
                Some(String::from_utf8(line).map_err(|_| DataError::Row {
                    path: path.clone(),
                    place: Place::Line(number),
                    problem: "not UTF-8; write the file as UTF-8".to_owned(),
                }))
            }
            Err(error) => {
                is_broken = true;
                Some(Err(files::unreadable(&path, error)))
            }
        }
    }))
}

struct Indexed<F> {
    size: u64,
    element: Arc<F>,
}

impl<T, F> Stage<T> for Indexed<F>
where
    T: 'static,
    F: Fn(u64) -> Result<T, DataError> + Send + Sync + 'static,
{
    fn size(&self) -> Size {
        Size::Known(self.size)
    }

    fn seeks(&self) -> bool {
        true
    }

    fn open(&self, _: u64, start: u64) -> Boxed<T> {
        let element = Arc::clone(&self.element);
        Box::new((start..self.size).map(move |index| element(index)))
    }
}

struct Generated<F> {
    elements: F,
}

impl<T, I, F> Stage<T> for Generated<F>
where
    T: 'static,
    I: Iterator<Item = Result<T, DataError>> + Send + 'static,
    F: Fn() -> I + Send + Sync + 'static,
{
    fn size(&self) -> Size {
        Size::Unknown
    }

    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, _: u64, start: u64) -> Boxed<T> {
        Box::new(replay((self.elements)(), start))
    }
}

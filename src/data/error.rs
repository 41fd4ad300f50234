//! What can be wrong with data.

use std::path::{Path, PathBuf};

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the parser said.
        problem: String,
    },
    /// One row is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A column is named that is not there.
    #[error("{} has no column '{column}'; it has {found}", path.display())]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The missing one.
        column: String,
        /// Those in the header.
        found: String,
    },
    /// There is nothing to learn from.
    #[error("{} has a header but no rows", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The rows do not have the shape the run file says.
    #[error("{} has {found} features a row, but data.shape {shape} has {wanted}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Numbers in a row.
        found: usize,
        /// The shape in the run file.
        shape: crate::layers::Shape,
        /// Numbers it has.
        wanted: usize,
    },
}

impl DataError {
    pub(super) fn row(path: &Path, line: u64, problem: String) -> Self {
        Self::Row {
            path: path.to_owned(),
            line,
            problem,
        }
    }
}

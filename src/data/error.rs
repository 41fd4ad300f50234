//! What can be wrong with data.

use std::path::PathBuf;

use crate::layers::Shape;

/// Data that cannot be read. Messages start with the file and, for text, the line.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The run file names no such files.
    #[error("[data] names no test data; add {keys}")]
    NoTest {
        /// Keys of `[data]` that would.
        keys: &'static str,
    },
    /// No rows.
    #[error("{}: no rows after the header", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no row.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A field that cannot be used.
    #[error("{}:{line}: column '{column}': {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// Name of the column.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// A feature that the model looks up, and no index.
    #[error(
        "{}: row {row} of the data, feature {feature}: {value} is no index below {count}, which the \
         model's embedding has as input_dim; make that larger, or number the values from 0",
        path.display()
    )]
    Index {
        /// The file.
        path: PathBuf,
        /// Its row, from 1, the header apart.
        row: usize,
        /// Name of the column, or place in the row.
        feature: String,
        /// What is there.
        value: f32,
        /// How many there are.
        count: usize,
    },
    /// A column that is needed is not there.
    #[error("{}: no {role} column '{column}'{hint}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// What it is needed for.
        role: &'static str,
        /// Its name.
        column: String,
        /// The nearest column there is, or all.
        hint: String,
    },
    /// A file that is not what its format asks for.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Rows have another size than the run file says.
    #[error(
        "{}: a row has {found} features, but [data] shape = {shape} asks for {}",
        path.display(), shape.elements()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// What the file has.
        found: usize,
        /// What the run file says.
        shape: Shape,
    },
    /// Images and labels do not belong together.
    #[error(
        "{} has {image_rows} images, but {} has {label_rows} labels",
        images.display(), labels.display()
    )]
    Pair {
        /// The file of images.
        images: PathBuf,
        /// The file of labels.
        labels: PathBuf,
        /// Rows of the one.
        image_rows: usize,
        /// Rows of the other.
        label_rows: usize,
    },
}

//! What can be wrong with data.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::columns::ColumnError;
use crate::layers::Shape;

/// Where in a file something is, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of text.
    Line(u64),
    /// A row of numbers.
    Row(u64),
    /// A record of TFRecord.
    Record(u64),
}

/// As it stands behind the file's name.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, ":{line}"),
            Self::Row(row) => write!(f, ": row {row}"),
            Self::Record(record) => write!(f, ": record {record}"),
        }
    }
}

/// Data that cannot be read. Messages start with the file and, for text, the line.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}{}", path.display(), remedy(source))]
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
    /// The run file names no files.
    #[error(
        "[data] has format = \"program\": the program that trained the run has its rows; train and evaluate \
         there, with Session::with_data and Run::evaluate"
    )]
    Program,
    /// No rows.
    #[error("{}: no rows in it; write some, or name another file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Something that is no row.
    #[error("{}{place}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Where it is.
        place: Place,
        /// What is wrong.
        problem: String,
    },
    /// A value that cannot be used.
    #[error("{}{place}: column '{column}': {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Where its row is.
        place: Place,
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
        "{}: a row has {found} features, but shape = {shape} asks for {}; mend the rows, or shape in [data]",
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
    /// Images whose size is not said.
    #[error(
        "{}: images need a size; add shape = [height, width, channels] to [data], with 1 channel \
         (grey), 3 (colours) or 4 (and opacity)",
        path.display()
    )]
    NoSize {
        /// Where they lie.
        path: PathBuf,
    },
    /// Feature columns that cannot be, or not of these data.
    #[error(transparent)]
    Columns(#[from] ColumnError),
    /// An element of a stream that cannot be made or used.
    #[error("{problem}")]
    Element {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Features and labels do not belong together.
    #[error(
        "{} has {feature_rows} rows, but {} has {label_rows} labels; name files that belong together",
        features.display(), labels.display()
    )]
    Pair {
        /// The file of features.
        features: PathBuf,
        /// The file of labels.
        labels: PathBuf,
        /// Rows of the one.
        feature_rows: usize,
        /// Rows of the other.
        label_rows: usize,
    },
}

impl DataError {
    /// The file in which something is wrong, where it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::Row { path, .. }
            | Self::Field { path, .. }
            | Self::Index { path, .. }
            | Self::Column { path, .. }
            | Self::Format { path, .. }
            | Self::Shape { path, .. }
            | Self::NoSize { path } => Some(path),
            Self::NoTest { .. }
            | Self::Program
            | Self::Columns(_)
            | Self::Element { .. }
            | Self::Pair { .. } => None,
        }
    }

    /// [`DataError::Format`] of the file at `path`.
    pub(crate) fn format(path: &Path, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// What to do about a file that cannot be read, as the end of a sentence; nothing where the system's words say
/// it.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "; mend the path, or bring the file back",
        ErrorKind::PermissionDenied => "; make it readable for this user",
        ErrorKind::IsADirectory => "; name the files in it, as by a pattern with *",
        _ => "",
    }
}

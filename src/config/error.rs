//! What can be wrong with a configuration.

use std::path::PathBuf;

/// A configuration that cannot be used. Messages start with where the mistake is: `run.toml:12:` or
/// `--set train.steps=x:`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The run file cannot be read.
    #[error("cannot read run file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{at}: {problem}")]
    Syntax {
        /// Where.
        at: String,
        /// What the parser expected.
        problem: String,
    },
    /// A key that nothing reads.
    #[error("{at}: unknown key '{key}' in {table}{hint}")]
    UnknownKey {
        /// Where.
        at: String,
        /// The key.
        key: String,
        /// The table it stands in.
        table: String,
        /// The nearest known key, or all of them.
        hint: String,
    },
    /// A name that is none of those a key can have.
    #[error("{at}: {subject} '{name}'{hint}")]
    UnknownName {
        /// Where.
        at: String,
        /// What is unknown: "unknown layer kind", "train.reduce: unknown name".
        subject: String,
        /// The name.
        name: String,
        /// The nearest known name, or all of them.
        hint: String,
    },
    /// A value that cannot be, for its type or its size.
    #[error("{at}: {key}: {problem}")]
    Value {
        /// Where.
        at: String,
        /// The key, with its tables.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Something that must be there is not.
    #[error("{at}: {problem}")]
    Missing {
        /// The file, and the line of the table it is missing in.
        at: String,
        /// What is missing.
        problem: String,
    },
}

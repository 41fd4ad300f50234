//! Data: sources read into tables, and the pipeline that turns a table into micro-batches.

mod config;
mod csv;
mod error;
mod idx;
mod load;
mod pipeline;
mod table;

pub use config::{CsvSource, DataConfig, IdxPair, IdxSource, Source, Split, Task};
pub use error::DataError;
pub use load::{load, load_features};
pub use pipeline::{Prefetch, Rows, Sampler, Share};
pub use table::{Description, Table, Targets};

//! Data: sources read into tables, and the pipeline that turns a table into micro-batches.

mod arrays;
mod augment;
mod config;
mod csv;
mod error;
pub(crate) mod files;
mod idx;
pub(crate) mod images;
mod jsonl;
mod keyed;
mod load;
mod memory;
mod normalize;
mod numpy;
mod parquet;
mod part;
mod pipeline;
mod quotes;
mod rows;
mod scalar;
pub mod stream;
mod table;
mod tfrecord;
mod vocabulary;

pub use augment::{Augment, Augmentation, Flip};
pub use config::{
    ArrayFormat, ArrayPair, ArraySource, ColumnFormat, ColumnSource, DataConfig, Format,
    ImageSource, Source, Split, Task,
};
pub use error::{DataError, Place};
pub use load::{load, load_features};
pub use normalize::Normalize;
pub(crate) use numpy::to_npy;
pub use part::{Part, Shard};
pub use pipeline::{Prefetch, Rows, Sampler, Share};
pub use table::{Description, Table, Targets};
pub(crate) use tfrecord::framed;

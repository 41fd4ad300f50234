//! Data: sources read into tables, and the pipeline that turns a table into micro-batches.

mod pipeline;
mod table;

pub use pipeline::{Prefetch, Rows, Sampler, Share};
pub use table::{Table, Targets};

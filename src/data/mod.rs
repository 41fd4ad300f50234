//! Data: sources read into tables, and the pipeline that turns a table into micro-batches.

mod table;

pub use table::{Table, Targets};

//! Rows of a table by index.

use super::Memory;

/// Rows of a table by index.
pub trait Lookup: Memory {}

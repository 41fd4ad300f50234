//! Batch and layer normalisation.

use super::Memory;

/// Batch and layer normalisation.
pub trait Normalize: Memory {}

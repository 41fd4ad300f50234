//! Losses with their gradient in one pass.

use super::Memory;

/// Losses with their gradient in one pass.
pub trait Losses: Memory {}

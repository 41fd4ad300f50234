//! The optimizers' update rules on flat slices, and the block sums that norms are made of.

use super::Memory;

/// The optimizers' update rules on flat slices, and the block sums that norms are made of.
pub trait Update: Memory {}

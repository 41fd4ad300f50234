//! Element-wise functions, softmax, dropout, sums over rows, and additions.

use super::Memory;

/// Element-wise functions, softmax, dropout, sums over rows, and additions.
pub trait Activate: Memory {}

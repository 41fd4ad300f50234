//! Two-dimensional convolution, channels last.

use super::Memory;

/// Two-dimensional convolution, channels last.
pub trait Convolve: Memory {}

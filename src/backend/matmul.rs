//! Matrix products, the heart of dense and convolution layers.

use super::Memory;

/// Matrix products, the heart of dense and convolution layers.
pub trait Matmul: Memory {}

//! Floats to 64-bit fixed point and back, and to 16-bit floats and back, for the reduction.

use super::Memory;

/// Floats to 64-bit fixed point and back, and to 16-bit floats and back, for the reduction.
pub trait FixedPoint: Memory {}

//! Floats to 64-bit fixed point and back, and to 16-bit floats and back, for the reduction.

use super::Cpu;
use crate::backend::FixedPoint;

impl FixedPoint for Cpu {}

//! Batch and layer normalisation.

use super::Cpu;
use crate::backend::Normalize;

impl Normalize for Cpu {}

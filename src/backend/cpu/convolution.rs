//! Two-dimensional convolution, channels last.

use super::Cpu;
use crate::backend::Convolve;

impl Convolve for Cpu {}

//! Matrix products, the heart of dense and convolution layers.

use super::Cpu;
use crate::backend::Matmul;

impl Matmul for Cpu {}

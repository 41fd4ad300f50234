//! Element-wise functions, softmax, dropout, sums over rows, and additions.

use super::Cpu;
use crate::backend::Activate;

impl Activate for Cpu {}

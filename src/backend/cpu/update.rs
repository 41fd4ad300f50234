//! The optimizers' update rules on flat slices, and the block sums that norms are made of.

use super::Cpu;
use crate::backend::Update;

impl Update for Cpu {}

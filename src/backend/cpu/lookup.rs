//! Rows of a table by index.

use super::Cpu;
use crate::backend::Lookup;

impl Lookup for Cpu {}

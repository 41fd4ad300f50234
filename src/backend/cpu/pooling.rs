//! Windows and whole planes reduced to their maximum or average.

use super::Cpu;
use crate::backend::Pool;

impl Pool for Cpu {}

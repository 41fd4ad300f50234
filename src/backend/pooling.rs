//! Windows and whole planes reduced to their maximum or average.

use super::Memory;

/// Windows and whole planes reduced to their maximum or average.
pub trait Pool: Memory {}

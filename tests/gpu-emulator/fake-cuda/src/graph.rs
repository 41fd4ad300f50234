//! CUDA graphs: a recorded list of operations.
//!
//! The operations of a capture are kept in the order of the calls, which respects all dependencies,
//! and are replayed in that order on the launch stream. Ordering mistakes *inside* a graph are
//! therefore not found.

use crate::queue::Operation;
use crate::state::Handle;

#[derive(Default)]
pub(crate) struct Graph {
    pub operations: Vec<Operation>,
    /// Stream on which the capture began, while it lasts.
    pub origin: Option<Handle>,
}

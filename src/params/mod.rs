//! Flat arenas: how parameters lie in them, how they are cut, and how a finished gradient leaves.

mod bucket;
mod layout;
mod partition;
mod sink;

pub use bucket::buckets;
pub use layout::{ALIGNMENT, Group, Layout, Tensor};
pub use partition::partition;
pub use sink::{GradSink, Grads};

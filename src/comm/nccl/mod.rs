//! Sums by NCCL, between the memories of devices.

mod communicator;
mod handle;
mod loader;
mod survey;

pub use communicator::Nccl;
pub use loader::{CallError, Library, LoadError, Version, load};
pub(crate) use survey::survey;

use crate::named::choices;

choices! {
    /// Which algorithm NCCL is asked for.
    #[derive(Default)]
    pub enum NcclAlgorithm ("algorithm of NCCL") {
        /// Whatever it takes for the best, by size and machine.
        #[default]
        Auto = "auto",
        /// A ring through all devices.
        Ring = "ring",
        /// Two trees, of which each carries half, for sums; a ring for all else.
        Tree = "tree",
        /// Sums in the switch between the devices of a host; a ring for all else.
        Nvls = "nvls",
    }
}

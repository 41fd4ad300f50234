//! Sums by NCCL, between the memories of devices.

mod communicator;
mod handle;
mod loader;

use std::str::FromStr;

pub use communicator::{Nccl, ranks_on_one_gpu};
pub use loader::{CallError, Library, LoadError, Version, load};

/// Which algorithm NCCL is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NcclAlgorithm {
    /// Whatever it takes for the best, by size and machine.
    #[default]
    Auto,
    /// A ring through all devices.
    Ring,
    /// Two trees, of which each carries half, for sums; a ring for all else.
    Tree,
    /// Sums in the switch between the devices of a host; a ring for all else.
    Nvls,
}

impl FromStr for NcclAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ring" => Ok(Self::Ring),
            "tree" => Ok(Self::Tree),
            "nvls" => Ok(Self::Nvls),
            _ => Err(format!(
                "unknown algorithm of NCCL '{text}': choose auto, ring, tree or nvls"
            )),
        }
    }
}

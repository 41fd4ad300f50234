//! Where arithmetic happens: memory, one queue of work, and the kernels that layers call.
//!
//! A backend is one trait per kernel family; [`Backend`] is all of them together. Kernels return
//! nothing: a device that can fail keeps its first error and hands it out at the next
//! [`Memory::synchronize`], so that layers read as arithmetic.

pub mod cpu;
pub mod cuda;

mod activation;
mod choice;
mod convolution;
mod fixed_point;
mod lookup;
mod loss;
mod matmul;
mod memory;
mod normalization;
mod pooling;
mod precision;
mod update;

pub use activation::{Activate, Activation, DropoutKey, Saved};
pub use choice::DeviceChoice;
pub use convolution::{ConvGeometry, Convolution, Convolve, Padding};
pub use fixed_point::FixedPoint;
pub use lookup::{Bag, COLUMN, Column, Combiner, Field, Lookup};
pub use loss::{Compared, Loss, Losses};
pub use matmul::{Form, Matmul, MatmulCall, MatmulChoice, MatmulShape, TimedMatmul};
pub use memory::{BackendError, Download, Element, Fence, Memory, Region, RegionOwner};
pub use normalization::{Affine, Normalize, Normalized};
pub use pooling::{Pool, PoolGeometry, Pooling};
pub use precision::Precision;
pub use update::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SUM_LANES, SgdRule, TrustRule, Update, Weights,
};

/// Every kernel family; what layers, models, optimizers and the trainer are generic over.
pub trait Backend:
    Memory + Matmul + Activate + Convolve + Pool + Normalize + Lookup + Losses + Update + FixedPoint
{
}

impl<B> Backend for B where
    B: Memory
        + Matmul
        + Activate
        + Convolve
        + Pool
        + Normalize
        + Lookup
        + Losses
        + Update
        + FixedPoint
{
}

/// How a kernel writes an output that other contributions may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulate {
    /// `output = value`
    Set,
    /// `output += value`
    Add,
}

/// A read-only `f32` slice of backend `B`.
pub type View<'a, B> = <B as Memory>::View<'a, f32>;

/// An exclusive `f32` slice of backend `B`.
pub type ViewMut<'a, B> = <B as Memory>::ViewMut<'a, f32>;

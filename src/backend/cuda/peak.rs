//! Multiply-adds without memory, as fast as they go, on the units that products in a precision use.

use std::fmt;

use super::kernels::Kernel;
use super::launch::Grid;
use super::packed::Multiplier;
use super::{Cuda, View};
use crate::backend::Precision;

/// Threads of a block, and its warps.
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;

/// What multiplies and adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Fused multiply-adds of `f32`.
    Scalar,
    /// Tensor cores by the instruction that all of them have, operands rounded so.
    MmaSync(Precision),
    /// Tensor cores by the one of compute capability 9.0.
    Wgmma(Precision),
}

impl Units {
    /// Multiply-adds of a block in a round: of `peak.cu`'s `Chains` those of each thread, or tables of 16 x 8
    /// sums of each warp, with so many terms as an instruction takes; of `hopper.cu` two tables of 64 x 128 sums
    /// with 64 terms.
    fn of_a_block(self) -> usize {
        let tables = WARPS * 8 * 16 * 8;
        match self {
            Self::Scalar => THREADS * 16,
            Self::MmaSync(Precision::Tf32) => tables * 8,
            Self::MmaSync(_) => tables * 16,
            Self::Wgmma(_) => 2 * 64 * 128 * 64,
        }
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar => f.write_str("f32 multiply-adds"),
            Self::MmaSync(precision) => write!(f, "{precision} mma.sync"),
            Self::Wgmma(precision) => write!(f, "{precision} wgmma"),
        }
    }
}

/// Enough blocks of 256 threads for every multiprocessor of the largest GPUs, several times.
const BLOCKS: usize = 132 * 8 * 4;

/// Rounds below which blocks are fewer: only devices that are emulated are given so few.
const FEW_ROUNDS: usize = 128;

impl Cuda {
    /// The quickest units for products of many terms.
    pub fn units(&self) -> Units {
        match (self.precision, self.takes_packed(usize::MAX)) {
            (Precision::F32, _) => Units::Scalar,
            (precision, Some(Multiplier::Wgmma)) => Units::Wgmma(precision),
            (precision, _) => Units::MmaSync(precision),
        }
    }

    /// Queues `rounds` rounds of multiply-adds on [`Cuda::units`], and returns how many floating-point operations
    /// those are.
    pub fn multiply_add(&mut self, rounds: usize) -> f64 {
        let units = self.units();
        let kernel = match units {
            Units::Wgmma(_) => Kernel::MultiplyAddGrouped,
            Units::Scalar | Units::MmaSync(_) => Kernel::MultiplyAdd,
        };
        let never = View::<f32>::or_null(None);
        let arguments = [(&rounds).into(), (&never).into()];
        let blocks = (BLOCKS * rounds.min(FEW_ROUNDS)).div_ceil(FEW_ROUNDS);
        let grid = Grid::new([blocks as u32, 1, 1], [THREADS as u32, 1, 1]);
        self.launch(kernel, grid, &arguments);
        2.0 * (blocks * units.of_a_block() * rounds) as f64
    }
}

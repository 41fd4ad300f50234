//! Multiply-adds in registers, as fast as they go, on the units that products in a precision use.

use super::kernels::Kernel;
use super::launch::Grid;
use super::{Cuda, View};
use crate::backend::Precision;

/// Threads of a block, and its warps.
const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;

/// Multiply-adds of a block in a round, as `Chains` of `peak.cu` has them: of each thread, or tables of
/// 16 x 8 sums of each warp, with so many terms as an instruction takes.
fn of_a_block(precision: Precision) -> usize {
    let tables = WARPS * 8 * 16 * 8;
    match precision {
        Precision::F32 => THREADS * 16,
        Precision::Tf32 => tables * 8,
        Precision::Bf16 | Precision::F16 => tables * 16,
    }
}

/// Enough blocks of 256 threads for every multiprocessor of the largest GPUs, several times.
const BLOCKS: usize = 132 * 8 * 4;

/// Rounds below which blocks are fewer: only devices that are emulated are given so few.
const FEW_ROUNDS: usize = 128;

impl Cuda {
    /// Queues `rounds` rounds of multiply-adds that touch no memory, of `f32` or in rounded precisions by
    /// tensor cores, and returns how many floating-point operations those are. Tensor cores are given
    /// `mma.sync`, beside which Hopper has quicker ones.
    pub fn multiply_add(&mut self, rounds: usize) -> f64 {
        let never = View::<f32>::or_null(None);
        let arguments = [(&rounds).into(), (&never).into()];
        let blocks = (BLOCKS * rounds.min(FEW_ROUNDS)).div_ceil(FEW_ROUNDS);
        let grid = Grid::new([blocks as u32, 1, 1], [THREADS as u32, 1, 1]);
        self.launch(Kernel::MultiplyAdd, grid, &arguments);
        2.0 * (blocks * of_a_block(self.precision) * rounds) as f64
    }
}

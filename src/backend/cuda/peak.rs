//! Multiply-adds in registers, as fast as they go.

use super::kernels::Kernel;
use super::launch::Grid;
use super::{Cuda, View};

/// `CHAINS` of `peak.cu`.
const CHAINS: usize = 16;

/// Enough blocks of 256 threads for every multiprocessor of the largest GPUs, several times.
const BLOCKS: u32 = 132 * 8 * 4;

impl Cuda {
    /// Queues `rounds` rounds of multiply-adds of `f32` that touch no memory, and returns how many
    /// floating-point operations those are.
    pub fn multiply_add(&mut self, rounds: usize) -> f64 {
        let never = View::<f32>::or_null(None);
        let arguments = [(&rounds).into(), (&never).into()];
        let grid = Grid::new([BLOCKS, 1, 1], [256, 1, 1]);
        self.launch(Kernel::MultiplyAdd, grid, &arguments);
        2.0 * f64::from(BLOCKS) * 256.0 * (CHAINS * rounds) as f64
    }
}

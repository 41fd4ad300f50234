//! How many blocks of a kernel run on a multiprocessor at a time.
//!
//! The limits are those of "Technical Specifications per Compute Capability" in the CUDA C++
//! Programming Guide, and the units of allocation those of CUDA's occupancy calculator.

use ringstep::backend::cuda::Capability;

use crate::ptxas::Usage;

const WARP: u32 = 32;
/// Registers are given to a warp in runs of so many.
const REGISTER_RUN: u32 = 256;
/// A multiprocessor has so many parts with registers of their own, and a warp is in one.
const PARTS: u32 = 4;
/// What a multiprocessor has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Multiprocessor {
    blocks: u32,
    warps: u32,
    registers: u32,
    /// Bytes.
    shared: u32,
    /// It is given to a block in runs of so many bytes, of which the system takes some.
    shared_run: u32,
    shared_of_system: u32,
}

impl Multiprocessor {
    /// That of GPUs of this capability.
    pub(crate) fn of(capability: Capability) -> Self {
        let shared = match capability {
            Capability { major: 7, minor: 5 } => {
                return Self {
                    blocks: 16,
                    warps: 32,
                    registers: 64 << 10,
                    shared: 64 << 10,
                    shared_run: 256,
                    shared_of_system: 0,
                };
            }
            Capability { major: 8, minor: 0 } => 164 << 10,
            Capability {
                major: 9 | 10,
                minor: 0,
            } => 228 << 10,
            _ => panic!("no limits are noted for compute capability {capability}"),
        };
        Self {
            blocks: 32,
            warps: 64,
            registers: 64 << 10,
            shared,
            shared_run: 128,
            shared_of_system: 1024,
        }
    }

    /// Blocks of `threads` threads, and warps, that run at a time.
    pub(crate) fn occupancy(self, usage: Usage, threads: u32) -> (u32, u32) {
        let warps = threads.div_ceil(WARP);
        let registers = (usage.registers * WARP).next_multiple_of(REGISTER_RUN);
        let by_registers = match registers {
            0 => self.blocks,
            _ => self.registers / PARTS / registers * PARTS / warps,
        };
        let shared = (usage.shared + self.shared_of_system).next_multiple_of(self.shared_run);
        let by_shared = self.shared.checked_div(shared).unwrap_or(self.blocks);
        let blocks = self
            .blocks
            .min(self.warps / warps)
            .min(by_registers)
            .min(by_shared);
        (blocks, blocks * warps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against NVIDIA's calculator.
    #[test]
    fn the_scarcest_resource_decides() {
        let hopper = Multiprocessor::of(Capability { major: 9, minor: 0 });
        let occupancy = |registers, shared, threads| {
            let usage = Usage {
                registers,
                shared,
                ..Usage::default()
            };
            hopper.occupancy(usage, threads)
        };
        assert_eq!(occupancy(32, 0, 256), (8, 64));
        assert_eq!(occupancy(32, 0, 32), (32, 32));
        // 33 registers are given as 40: 12 warps in each part, 48 in all.
        assert_eq!(occupancy(33, 0, 256), (6, 48));
        assert_eq!(occupancy(255, 0, 256), (1, 8));
        assert_eq!(occupancy(168, 0, 128), (3, 12));
        assert_eq!(occupancy(32, 48 << 10, 256), (4, 32));
        assert_eq!(occupancy(32, 227 << 10, 128), (1, 4));
        assert_eq!(occupancy(255, 0, 512), (0, 0));
    }
}

//! Multiply-adds in registers, as fast as they go.

use std::hint::black_box;

use super::{Cpu, InstructionSet};

/// Sums that do not wait for each other: as many as keep the units busy, and as registers hold.
const CHAINS: usize = 10;

/// Elements of a sum: those of a vector of 512 bits.
const LANES: usize = 16;

impl Cpu {
    /// Computes `rounds` rounds of multiply-adds of `f32` that touch no memory, on this thread, and
    /// returns how many floating-point operations those are.
    pub fn multiply_add(&mut self, rounds: usize) -> f64 {
        match self.instructions() {
            // SAFETY: the processor has the instructions that it was asked for.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => unsafe { avx512(rounds) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { avx2(rounds) },
            _ => chains::<LANES>(rounds),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: usize) -> f64 {
    chains::<LANES>(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: usize) -> f64 {
    chains::<{ LANES / 2 }>(rounds)
}

#[inline(always)]
fn chains<const LANES: usize>(rounds: usize) -> f64 {
    let (factor, addend) = (black_box([0.5; LANES]), black_box([1.0; LANES]));
    let mut sums = black_box([[1.0_f32; LANES]; CHAINS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in 0..LANES {
                sum[lane] = sum[lane].mul_add(factor[lane], addend[lane]);
            }
        }
    }
    black_box(sums);
    2.0 * (rounds * CHAINS * LANES) as f64
}

//! Sums of floats in fixed point, where ranks see each other's memory.
//!
//! Two ranks hold 0.3 and 0.1, to be summed with exponent 4: both are rounded to multiples of 1/16,
//! 5/16 and 2/16, added as integers, and 7/16 is stored on both. That is what
//! [`crate::backend::FixedPoint`] makes of them in three passes over memory, with the same bits;
//! here nothing but floats is read and written.

use super::cells::Cells;
use crate::backend::BLOCK;
use crate::backend::cpu::power_of_two;

/// Stores the sums of `sources` in all `targets`, which may be sources. They begin at element
/// `start` of a region; `exponents` has one for each [`BLOCK`] of it.
pub(super) fn sum(
    sources: &[Cells<f32>],
    targets: &[Cells<f32>],
    start: usize,
    exponents: Cells<i64>,
) {
    let len = sources.first().map_or(0, |cells| cells.len());
    let same = sources
        .iter()
        .chain(targets)
        .all(|cells| cells.len() == len);
    assert!(same, "sum of cells of different lengths");
    let mut at = 0;
    while at < len {
        // As far as the exponent is the same: a whole tensor, mostly.
        let mut block = (start + at) / BLOCK;
        let exponent = exponents.get(block);
        while (block + 1) * BLOCK < start + len && exponents.get(block + 1) == exponent {
            block += 1;
        }
        let end = len.min((block + 1) * BLOCK - start);
        // SAFETY: all cells hold `len` elements.
        unsafe { sum_run(sources, targets, at..end, exponent as i32) };
        at = end;
    }
}

/// The elements of `range`, which share an exponent.
///
/// # Safety
/// All cells hold `range.end` elements.
unsafe fn sum_run(
    sources: &[Cells<f32>],
    targets: &[Cells<f32>],
    range: std::ops::Range<usize>,
    exponent: i32,
) {
    #[cfg(target_arch = "x86_64")]
    if crate::backend::cpu::has_avx512() {
        // SAFETY: the caller's promise, and the processor has the features.
        return unsafe { avx512::sum_run(sources, targets, range, exponent) };
    }
    // SAFETY: the caller's promise.
    unsafe { sum_run_portable(sources, targets, range, exponent) }
}

/// # Safety
/// As [`sum_run`].
unsafe fn sum_run_portable(
    sources: &[Cells<f32>],
    targets: &[Cells<f32>],
    range: std::ops::Range<usize>,
    exponent: i32,
) {
    let (scale, unit) = (power_of_two(exponent) as f32, power_of_two(-exponent));
    for at in range {
        let mut sum = 0_i64;
        for source in sources {
            // SAFETY: in bounds by the caller's promise.
            let value = unsafe { source.start().add(at).read() };
            sum = sum.wrapping_add((value * scale).round_ties_even() as i64);
        }
        for target in targets {
            // SAFETY: in bounds by the caller's promise.
            unsafe { target.start().add(at).write((sum as f64 * unit) as f32) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Cells, power_of_two, sum_run_portable};

    /// Registers of eight sums that are filled before any is stored: four cache lines of each
    /// source, so that lines of other processors are on their way together.
    const REGISTERS: usize = 8;

    /// Whole blocks of registers; the rest as the portable loop does it, whose every operation is
    /// the same one. (Values that do not fit become other integers there; a step with such a value
    /// is computed again.)
    ///
    /// # Safety
    /// As [`super::sum_run`], and the processor has the features.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) unsafe fn sum_run(
        sources: &[Cells<f32>],
        targets: &[Cells<f32>],
        range: std::ops::Range<usize>,
        exponent: i32,
    ) {
        let scale = _mm256_set1_ps(power_of_two(exponent) as f32);
        let unit = _mm512_set1_pd(power_of_two(-exponent));
        let whole = range.end - range.len() % (8 * REGISTERS);
        for at in (range.start..whole).step_by(8 * REGISTERS) {
            let mut sums = [_mm512_setzero_si512(); REGISTERS];
            for source in sources {
                for (index, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: within the block, which is in bounds; unaligned access is asked for.
                    let value = unsafe { _mm256_loadu_ps(source.start().add(at + 8 * index)) };
                    let fixed = _mm512_cvtps_epi64(_mm256_mul_ps(value, scale));
                    *sum = _mm512_add_epi64(*sum, fixed);
                }
            }
            let values =
                sums.map(|sum| _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtepi64_pd(sum), unit)));
            for target in targets {
                for (index, value) in values.into_iter().enumerate() {
                    // SAFETY: as for the load.
                    unsafe { _mm256_storeu_ps(target.start().add(at + 8 * index), value) };
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { sum_run_portable(sources, targets, whole..range.end, exponent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::backend::{Accumulate, FixedPoint};

    #[test]
    fn sums_have_the_bits_of_fixed_point_in_three_passes() {
        let value = |seed: usize, at: usize| {
            ((at * 31 + seed * 17) as f32).sin() * 2f32.powi((at % 40) as i32 - 20)
        };
        let exponents_of_blocks = [20_i64, 20, -3, 40, 40, 7];
        for (start, len) in [(0, 384), (5, 200), (63, 2), (64, 0), (130, 251)] {
            let mut sources: Vec<Vec<f32>> = (0..3)
                .map(|seed| (start..start + len).map(|at| value(seed, at)).collect())
                .collect();
            let expected: Vec<f32> = (0..len)
                .map(|at| {
                    let exponent = exponents_of_blocks[(start + at) / BLOCK] as i32;
                    let (mut sum, mut result) = ([0], [0.0]);
                    for source in &sources {
                        let value = &source[at..=at];
                        Cpu::new().quantize(value, exponent, &mut sum, Accumulate::Add, &mut [0]);
                    }
                    Cpu::new().dequantize(&sum, exponent, &mut result);
                    result[0]
                })
                .collect();
            let mut table = exponents_of_blocks;
            // SAFETY: the cells are used while the arrays they come from live, by one thread.
            let (cells, table): (Vec<_>, _) = unsafe {
                let cells = sources.iter_mut();
                let cells = cells.map(|source| Cells::new(source.as_mut_ptr(), source.len()));
                (cells.collect(), Cells::new(table.as_mut_ptr(), table.len()))
            };
            sum(&cells, &cells[1..], start, table);
            for (at, expected) in expected.iter().enumerate() {
                assert_eq!(sources[0][at], value(0, start + at));
                assert_eq!(sources[1][at].to_bits(), expected.to_bits(), "{start} {at}");
                assert_eq!(sources[2][at].to_bits(), expected.to_bits());
            }
        }
    }
}

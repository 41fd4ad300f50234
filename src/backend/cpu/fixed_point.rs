//! Conversions around the reduction. The AVX-512 paths give the bits of the portable ones.

use half::bf16;

use super::Cpu;
use crate::backend::{Accumulate, FixedPoint};

/// `2^exponent` for an exponent of a normal double.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

impl FixedPoint for Cpu {
    fn quantize(
        &mut self,
        values: &[f32],
        exponent: i32,
        sums: &mut [i64],
        write: Accumulate,
        magnitude: &mut [u32],
    ) {
        assert_eq!(values.len(), sums.len(), "quantize: lengths differ");
        let largest = quantize(values, exponent, sums, write);
        magnitude[0] = magnitude[0].max(largest);
    }

    fn magnitude(&mut self, values: &[f32], magnitude: &mut [u32]) {
        magnitude[0] = magnitude[0].max(largest(values));
    }

    fn dequantize(&mut self, sums: &[i64], exponent: i32, values: &mut [f32]) {
        assert_eq!(values.len(), sums.len(), "dequantize: lengths differ");
        dequantize(sums, power_of_two(-exponent), values);
    }

    fn narrow(&mut self, values: &[f32], narrow: &mut [bf16]) {
        use half::slice::HalfFloatSliceExt;
        narrow.convert_from_f32_slice(values);
    }

    fn widen(&mut self, narrow: &[bf16], values: &mut [f32]) {
        use half::slice::HalfFloatSliceExt;
        narrow.convert_to_f32_slice(values);
    }

    fn move_average(
        &mut self,
        average: &mut [f32],
        momentum: f32,
        sums: &[i64],
        exponent: i32,
        count: u64,
    ) {
        let unit = power_of_two(-exponent) / count as f64;
        for (average, &sum) in average.iter_mut().zip(sums) {
            let target = (sum as f64 * unit) as f32;
            *average = momentum * *average + (1.0 - momentum) * target;
        }
    }
}

/// Whether the processor converts between floats and 64-bit integers, in registers of all widths.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

fn quantize(values: &[f32], exponent: i32, sums: &mut [i64], write: Accumulate) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the features are there.
        return unsafe { avx512::quantize(values, exponent, sums, write) };
    }
    quantize_portable(values, exponent, sums, write)
}

fn largest(values: &[f32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the features are there.
        return unsafe { avx512::largest(values) };
    }
    largest_portable(values)
}

/// Inlined, so that each caller compiles it for the instructions it has.
#[inline(always)]
fn largest_portable(values: &[f32]) -> u32 {
    let bits = values.iter().map(|value| value.abs().to_bits());
    bits.fold(0, u32::max)
}

fn dequantize(sums: &[i64], unit: f64, values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the features are there.
        return unsafe { avx512::dequantize(sums, unit, values) };
    }
    dequantize_portable(sums, unit, values);
}

fn quantize_portable(values: &[f32], exponent: i32, sums: &mut [i64], write: Accumulate) -> u32 {
    let scale = power_of_two(exponent) as f32;
    let mut largest = 0;
    for (sum, &value) in sums.iter_mut().zip(values) {
        largest = largest.max(value.abs().to_bits());
        let fixed = (value * scale).round_ties_even() as i64;
        *sum = match write {
            Accumulate::Set => fixed,
            Accumulate::Add => sum.wrapping_add(fixed),
        };
    }
    largest
}

fn dequantize_portable(sums: &[i64], unit: f64, values: &mut [f32]) {
    for (value, &sum) in values.iter_mut().zip(sums) {
        *value = (sum as f64 * unit) as f32;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{
        Accumulate, dequantize_portable, largest_portable, power_of_two, quantize_portable,
    };

    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) fn largest(values: &[f32]) -> u32 {
        largest_portable(values)
    }

    /// Eight lanes at a time; the rest as the portable loop does it, whose every operation is the
    /// same one.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) fn quantize(
        values: &[f32],
        exponent: i32,
        sums: &mut [i64],
        write: Accumulate,
    ) -> u32 {
        let scale = _mm256_set1_ps(power_of_two(exponent) as f32);
        let sign = _mm256_set1_epi32(i32::MAX);
        let mut largest = _mm256_setzero_si256();
        let (value_lanes, value_rest) = values.as_chunks::<8>();
        let (sum_lanes, sum_rest) = sums.as_chunks_mut::<8>();
        for (value, sum) in value_lanes.iter().zip(sum_lanes) {
            // SAFETY: both chunks are eight elements; unaligned access is asked for.
            unsafe {
                let value = _mm256_loadu_ps(value.as_ptr());
                let bits = _mm256_and_si256(_mm256_castps_si256(value), sign);
                largest = _mm256_max_epu32(largest, bits);
                let mut fixed = _mm512_cvtps_epi64(_mm256_mul_ps(value, scale));
                if write == Accumulate::Add {
                    fixed = _mm512_add_epi64(fixed, _mm512_loadu_epi64(sum.as_ptr()));
                }
                _mm512_storeu_epi64(sum.as_mut_ptr(), fixed);
            }
        }
        let mut lanes = [0u32; 8];
        // SAFETY: eight lanes of four bytes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
        let rest = quantize_portable(value_rest, exponent, sum_rest, write);
        lanes.into_iter().fold(rest, u32::max)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    pub(super) fn dequantize(sums: &[i64], unit: f64, values: &mut [f32]) {
        let scale = _mm512_set1_pd(unit);
        let (sum_lanes, sum_rest) = sums.as_chunks::<8>();
        let (value_lanes, value_rest) = values.as_chunks_mut::<8>();
        for (sum, value) in sum_lanes.iter().zip(value_lanes) {
            // SAFETY: both chunks are eight elements; unaligned access is asked for.
            unsafe {
                let sum = _mm512_cvtepi64_pd(_mm512_loadu_epi64(sum.as_ptr()));
                _mm256_storeu_ps(
                    value.as_mut_ptr(),
                    _mm512_cvtpd_ps(_mm512_mul_pd(sum, scale)),
                );
            }
        }
        dequantize_portable(sum_rest, unit, value_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| (i as f32 * 0.7).sin() * 3f32.powi(i as i32 % 40 - 20))
            .collect()
    }

    #[test]
    fn a_round_trip_loses_less_than_one_unit() {
        let values = values(103);
        let (mut sums, mut magnitude, mut back) = (vec![0; 103], [0], vec![0.0; 103]);
        let mut cpu = Cpu::new();
        cpu.quantize(&values, 20, &mut sums, Accumulate::Set, &mut magnitude);
        cpu.dequantize(&sums, 20, &mut back);
        for (&before, &after) in values.iter().zip(&back) {
            assert!((f64::from(before) - f64::from(after)).abs() <= 2f64.powi(-20));
        }
        let largest = values
            .iter()
            .fold(0f32, |largest, value| largest.max(value.abs()));
        assert_eq!(magnitude[0], largest.to_bits());
    }

    #[test]
    fn wide_and_portable_paths_agree_bit_for_bit() {
        let values = values(77);
        for offset in 0..64 {
            let part = &values[offset..];
            for write in [Accumulate::Set, Accumulate::Add] {
                let (mut wide, mut portable) = (vec![5; part.len()], vec![5; part.len()]);
                let a = quantize(part, 30, &mut wide, write);
                let b = quantize_portable(part, 30, &mut portable, write);
                assert_eq!((a, &wide), (b, &portable));
                assert_eq!(largest(part), a);
                let (mut x, mut y) = (vec![0.0; part.len()], vec![0.0; part.len()]);
                dequantize(&wide, power_of_two(-30), &mut x);
                dequantize_portable(&wide, power_of_two(-30), &mut y);
                assert_eq!(x, y);
            }
        }
    }

    #[test]
    fn not_finite_is_larger_than_everything() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut magnitude = [0];
            let mut values = values(20);
            values[13] = bad;
            Cpu::new().magnitude(&values, &mut magnitude);
            assert!(magnitude[0] >= f32::INFINITY.to_bits());
            magnitude = [0];
            let mut sums = vec![0; 20];
            Cpu::new().quantize(&values, 0, &mut sums, Accumulate::Set, &mut magnitude);
            assert!(magnitude[0] >= f32::INFINITY.to_bits());
        }
    }

    #[test]
    fn a_moving_average_moves_towards_the_mean() {
        let mut average = [1.0, 2.0];
        Cpu::new().move_average(&mut average, 0.75, &[40 << 8, -8 << 8], 8, 8);
        assert_eq!(average, [0.75 + 0.25 * 5.0, 1.5 - 0.25]);
    }
}

//! Operands of products, rounded to a precision.

use super::simd::vectorized;
use crate::backend::Precision;

/// Bits of the largest finite `f16`.
const LARGEST_F16: u32 = 65504_f32.to_bits();

/// Bits of the smallest `f16` with a full fraction, 2^-14.
const SMALLEST_NORMAL_F16: u32 = 0x3880_0000;

/// `values`, or a copy of them in `scratch` that is rounded: of [`scratch_elements`].
pub(super) fn rounded<'a>(
    precision: Precision,
    values: &'a [f32],
    scratch: &'a mut [f32],
) -> &'a [f32] {
    if precision == Precision::F32 {
        return values;
    }
    let copy = &mut scratch[..values.len()];
    copy.copy_from_slice(values);
    round(precision, copy);
    copy
}

/// Scratch memory that [`rounded`] needs for so many values.
pub(super) fn scratch_elements(precision: Precision, values: usize) -> usize {
    match precision {
        Precision::F32 => 0,
        Precision::Tf32 | Precision::Bf16 | Precision::F16 => values,
    }
}

/// Rounds to the nearest number of `precision`: halfway to the even one, or for `tf32` away from zero
/// (as `cvt.rna.tf32.f32` does). What is too large becomes infinite; NaN stays.
pub(super) fn round(precision: Precision, values: &mut [f32]) {
    match precision {
        Precision::F32 => {}
        Precision::Tf32 => round_to_tf32(values),
        Precision::Bf16 => round_to_bf16(values),
        Precision::F16 => round_to_f16(values),
    }
}

vectorized! {
    fn round_to_tf32(values: &mut [f32]) {
        for value in values {
            *value = by_magnitude(*value, |bits| (bits + (1 << 12)) >> 13 << 13);
        }
    }

    fn round_to_bf16(values: &mut [f32]) {
        for value in values {
            *value = by_magnitude(*value, |bits| nearest_even(bits, 16));
        }
    }

    fn round_to_f16(values: &mut [f32]) {
        for value in values {
            *value = by_magnitude(*value, |bits| {
                // Numbers from 1/2 to 1 are 2^-24 apart, as the smallest of `f16` are.
                let small = f32::from_bits(bits) + 0.5 - 0.5;
                let normal = nearest_even(bits, 13);
                match normal {
                    _ if bits < SMALLEST_NORMAL_F16 => small.to_bits(),
                    _ if normal > LARGEST_F16 => f32::INFINITY.to_bits(),
                    _ => normal,
                }
            });
        }
    }
}

/// The number with the sign of `value` and the rounded bits of its magnitude.
#[inline(always)]
fn by_magnitude(value: f32, round: impl Fn(u32) -> u32) -> f32 {
    let rounded = f32::from_bits(round(value.abs().to_bits())).copysign(value);
    if value.is_nan() { value } else { rounded }
}

/// Without the last `dropped` bits of its fraction; a carry runs into the exponent.
#[inline(always)]
fn nearest_even(bits: u32, dropped: u32) -> u32 {
    let below_half = (1 << (dropped - 1)) - 1;
    (bits + below_half + (bits >> dropped & 1)) >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn one(precision: Precision, value: f32) -> f32 {
        let mut value = [value];
        round(precision, &mut value);
        value[0]
    }

    /// Every sign and exponent with fractions at, beside and between all places where one is halfway.
    fn patterns() -> impl Iterator<Item = f32> {
        let near = |bit: u32| {
            let half = 1u32 << bit;
            (0..6).flat_map(move |i| {
                let kept = i * 2 * half;
                [kept, kept + half - 1, kept + half, kept + half + 1]
            })
        };
        let fractions: Vec<u32> = (0..23)
            .flat_map(near)
            .map(|fraction| fraction & 0x7f_ffff)
            .chain((0..500).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 9))
            .chain([0x7f_ffff])
            .collect();
        (0..512u32).flat_map(move |exponent| {
            let number = move |fraction: &u32| f32::from_bits(exponent << 23 | fraction);
            fractions.iter().map(number).collect::<Vec<_>>()
        })
    }

    #[test]
    fn every_kind_of_number_is_rounded_as_other_software_does() {
        for value in patterns() {
            for (precision, expected) in [
                (Precision::F32, value),
                (Precision::Bf16, bf16::from_f32(value).to_f32()),
                (Precision::F16, f16::from_f32(value).to_f32()),
            ] {
                let got = one(precision, value);
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{value:e} to {precision}: {got:e}, not {expected:e}");
            }
        }
    }

    #[test]
    fn tf32_is_the_nearest_with_ten_bits_of_fraction_and_halfway_the_larger() {
        for value in patterns().filter(|value| !value.is_nan()) {
            let got = one(Precision::Tf32, value);
            assert_eq!(got.to_bits() & 0x1fff, 0, "{value:e}");
            assert_eq!(got.is_sign_negative(), value.is_sign_negative());
            let below = f32::from_bits(value.abs().to_bits() & !0x1fff);
            let above = f32::from_bits(below.to_bits() + 0x2000);
            let gap = |end: f32| (f64::from(value.abs()) - f64::from(end)).abs();
            let expected = match (below.is_infinite(), above.is_infinite()) {
                (true, _) => below,
                // Beyond the last number the next would be 2^128.
                (_, true) if 2f64.powi(128) - f64::from(value.abs()) <= gap(below) => above,
                (_, true) => below,
                _ if gap(above) <= gap(below) => above,
                _ => below,
            };
            assert_eq!(got.abs(), expected, "{value:e}");
        }
        assert!(one(Precision::Tf32, f32::from_bits(0x7fff_ffff)).is_nan());
        assert!(one(Precision::Tf32, f32::from_bits(0xffff_ffff)).is_nan());
    }

    #[test]
    fn values_are_rounded_alike_wherever_they_stand() {
        let values: Vec<f32> = patterns().step_by(97).collect();
        for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
            for start in 0..40 {
                let mut many = values[start..].to_vec();
                round(precision, &mut many);
                for (&many, &value) in many.iter().zip(&values[start..]) {
                    assert_eq!(many.to_bits(), one(precision, value).to_bits());
                }
            }
        }
    }
}

//! Elementary functions in plain arithmetic, so that loops over them vectorise.
//!
//! Errors are measured against double precision by the tests below.

/// `e^x`: `x = n ln 2 + r` with `|r| <= ln 2 / 2`, then a polynomial for `e^r` (Cephes' `expf`).
/// 0 below -87.3, infinity above 88.7, NaN for NaN.
#[inline(always)]
pub(in crate::backend::cpu) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits: no conversion,
    // which would keep loops from vectorising.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.72);
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    // n, shifted to where the exponent stands.
    let y = f32::from_bits(y.to_bits().wrapping_add(rounded.to_bits() << 23));
    // Not `x > 88.72`, which NaN would pass.
    let y = if x <= 88.72 { y } else { x + f32::INFINITY };
    if x < -87.3 { 0.0 } else { y }
}

/// `tanh(x)`: a polynomial near 0, else by `exp` (Cephes' `tanhf`).
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * z + 2.063_909e-2;
    p = p * z - 5.373_971_6e-2;
    p = p * z + 1.333_144_2e-1;
    p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(in crate::backend::cpu) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The normal distribution's Φ, and `exp(-x^2 / 2)`, which its slope needs.
///
/// For negative x, `Φ(x) = exp(-x^2 / 2) t p(t) / 2` with `t = 1 / (1 + |x| / sqrt(8))`, where the
/// polynomial, a Chebyshev fit of `exp(z^2) erfc(z) / t` at `z = |x| / sqrt(2)`, is within 6e-8 of
/// it: a product keeps its relative precision in the tail.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const ROOT_OF_EIGHTH: f32 = 0.353_553_4;
    let t = 1.0 / (1.0 + ROOT_OF_EIGHTH * x.abs());
    let mut p = -0.059_548_39;
    p = p * t + 0.286_980_34;
    p = p * t - 0.492_289_1;
    p = p * t + 0.283_969_37;
    p = p * t - 0.030_707_02;
    p = p * t + 0.204_399_5;
    p = p * t + 0.242_680_6;
    p = p * t + 0.282_431_26;
    p = p * t + 0.282_083_4;
    let bell = exp(-0.5 * x * x);
    let tail = 0.5 * (p * t) * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// `x Φ(x)`
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// `Φ(x) + x φ(x)`
#[inline(always)]
pub(super) fn gelu_slope(x: f32) -> f32 {
    const FACTOR: f32 = 0.398_942_3;
    let (probability, bell) = normal(x);
    probability + x * (FACTOR * bell)
}

const TANH_FACTOR: f32 = 0.797_884_6;
const TANH_CUBIC: f32 = 0.044_715;

/// `x (1 + tanh(sqrt(2 / π) (x + 0.044715 x^3))) / 2`
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(TANH_FACTOR * (x + TANH_CUBIC * x * x * x)))
}

/// The derivative of [`gelu_tanh`].
#[inline(always)]
pub(super) fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(TANH_FACTOR * (x + TANH_CUBIC * x * x * x));
    let inner = TANH_FACTOR * (1.0 + 3.0 * TANH_CUBIC * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

/// The derivative of `x sigmoid(x)`.
#[inline(always)]
pub(super) fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: fn(f32) -> f32, exact: impl Fn(f64) -> f64, from: f32, to: f32) -> f64 {
        let error = |i: i32| {
            let x = from + (to - from) * (i as f32 / 200_000.0);
            let want = exact(f64::from(x));
            (f64::from(f(x)) - want).abs() / want.abs().max(1e-30)
        };
        (0..=200_000).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn relative_errors_against_double_precision() {
        assert!(worst(exp, f64::exp, -87.0, 88.7) < 2.5e-7);
        assert!(worst(tanh, f64::tanh, -10.0, 10.0) < 3e-7);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0) < 3e-7);
    }

    #[test]
    fn edges() {
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
        assert_eq!((tanh(50.0), tanh(-50.0), tanh(0.0)), (1.0, -1.0, 0.0));
        assert!(
            exp(f32::from_bits(0x7fc0_0001)).is_nan(),
            "a NaN with a payload"
        );
        assert!(exp(88.72).is_finite() && exp(-87.3) > 0.0);
    }

    #[test]
    fn the_normal_distribution_keeps_its_relative_precision_in_the_tail() {
        for (x, probability) in [
            (-8.0, 6.220_960_574_271_784e-16),
            (-5.0, 2.866_515_718_791_939e-7),
            (-3.0, 1.349_898_031_630_094_6e-3),
            (-1.0, 0.158_655_253_931_457_05),
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (4.0, 0.999_968_328_758_166_9),
        ] {
            let error = f64::from(normal(x).0) / probability - 1.0;
            // The exponent x^2 / 2 is rounded to single precision.
            let allowed = 2e-7 + 1e-7 * f64::from(x * x) / 2.0;
            assert!(error.abs() < allowed, "{error:e} at {x}");
        }
    }
}

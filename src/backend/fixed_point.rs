//! Floats to 64-bit fixed point and back, for sums that do not depend on their order, and to 16-bit
//! floats and back, for sums that travel at half the size.

use half::bf16;

use super::{Accumulate, Memory};

/// Conversions around the reduction of gradients.
///
/// A fixed-point number stands for `integer * 2^-exponent`; multiplying by a power of two is exact,
/// so a value loses only what lies below one unit.
pub trait FixedPoint: Memory {
    /// `sums = ` or `sums += round(values * 2^exponent)`, ties to even, and
    /// `magnitude[0] = max(magnitude[0], bits of |values|)`.
    ///
    /// The bit patterns of non-negative floats are ordered like the floats, infinities and NaNs
    /// above all finite ones, so one integer tells both the largest magnitude and whether anything
    /// is not finite. Values that do not fit give an unspecified integer; the caller sees it by the
    /// magnitude. `exponent` is within -126..=127.
    fn quantize(
        &mut self,
        values: Self::View<'_, f32>,
        exponent: i32,
        sums: Self::ViewMut<'_, i64>,
        write: Accumulate,
        magnitude: Self::ViewMut<'_, u32>,
    );

    /// `magnitude[0] = max(magnitude[0], bits of |values|)`, as `quantize` does.
    fn magnitude(&mut self, values: Self::View<'_, f32>, magnitude: Self::ViewMut<'_, u32>);

    /// `values = sums * 2^-exponent`, rounded to nearest.
    fn dequantize(
        &mut self,
        sums: Self::View<'_, i64>,
        exponent: i32,
        values: Self::ViewMut<'_, f32>,
    );

    /// `narrow = values`, rounded to nearest even.
    fn narrow(&mut self, values: Self::View<'_, f32>, narrow: Self::ViewMut<'_, bf16>);

    /// `values = narrow`, exactly.
    fn widen(&mut self, narrow: Self::View<'_, bf16>, values: Self::ViewMut<'_, f32>);

    /// `average = momentum * average + (1 - momentum) * sum / count`, with `sum` in fixed point.
    fn move_average(
        &mut self,
        average: Self::ViewMut<'_, f32>,
        momentum: f32,
        sums: Self::View<'_, i64>,
        exponent: i32,
        count: u64,
    );
}

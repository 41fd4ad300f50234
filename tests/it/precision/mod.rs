//! Products of rounded operands, and training with them.

mod loss_scale;
mod products;
mod runs;

use half::{bf16, f16};
use ringstep::backend::Precision;

/// The precisions that round.
const ROUNDING: [Precision; 3] = [Precision::Tf32, Precision::Bf16, Precision::F16];

/// `value` as an operand of a product.
fn rounded(precision: Precision, value: f32) -> f32 {
    match precision {
        Precision::F32 => value,
        // Half of the last bit that is kept is added, whatever the sign.
        Precision::Tf32 => f32::from_bits((value.to_bits() + 0x1000) & !0x1fff),
        Precision::Bf16 => bf16::from_f32(value).to_f32(),
        Precision::F16 => f16::from_f32(value).to_f32(),
    }
}

//! How precisely products are taken.

use crate::named::choices;

choices! {
    /// What the operands of matrix products and convolutions are rounded to. Everything is stored in
    /// `f32`, and products are added in `f32`; all other kernels compute in `f32`.
    #[derive(Default)]
    pub enum Precision ("precision") {
        /// Not at all.
        #[default]
        F32 = "f32",
        /// 8 bits of exponent and 10 of fraction, as tensor cores take `f32`.
        Tf32 = "tf32",
        /// 8 bits of exponent and 7 of fraction.
        Bf16 = "bf16",
        /// 5 bits of exponent and 10 of fraction: numbers from 6e-8 to 65504.
        F16 = "f16",
    }
}

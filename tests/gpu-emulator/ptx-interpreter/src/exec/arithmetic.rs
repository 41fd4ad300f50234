//! `add sub mul mad fma div rem min max neg abs`.
//!
//! PTX ISA: "Integer Arithmetic Instructions", "Floating Point Instructions", "Half Precision
//! Floating Point Instructions". Half-precision results are computed in f32 and rounded once.

use super::Context;
use crate::error::Fault;
use crate::ir::Opcode;
use crate::numeric::{f32_to_half, half_to_f32, round_to_f32, sign_extend, zero_extend, Rounding};
use crate::types::PtxType;

/// How f32 values are treated by the modifiers of an instruction.
#[derive(Clone, Copy)]
pub(super) struct FloatMode {
    ftz: bool,
    sat: bool,
    relu: bool,
}

impl FloatMode {
    pub(super) fn input(self, value: f32) -> f32 {
        if self.ftz && value.is_subnormal() {
            0f32.copysign(value)
        } else {
            value
        }
    }

    pub(super) fn output(self, value: f32) -> f32 {
        let value = self.input(value);
        if self.sat {
            // NaN becomes +0.
            return if value.is_nan() {
                0.0
            } else {
                value.clamp(0.0, 1.0)
            };
        }
        if self.relu && value < 0.0 {
            return 0.0;
        }
        value
    }
}

/// Applies `f` to both halves of a packed register.
pub(super) fn packed(ty: PtxType, x: u64, y: u64, z: u64, f: impl Fn(f32, f32, f32) -> f32) -> u64 {
    let half = |shift: u32| {
        let get = |v: u64| half_to_f32(ty, (v >> shift) as u16);
        u64::from(f32_to_half(ty, f(get(x), get(y), get(z))))
    };
    half(0) | half(16) << 16
}

impl Context<'_, '_> {
    pub(super) fn float_mode(&self) -> FloatMode {
        let mods = &self.ins.mods;
        FloatMode {
            ftz: mods.ftz,
            sat: mods.sat,
            relu: mods.relu,
        }
    }

    pub(crate) fn arithmetic(&mut self) -> Result<(), Fault> {
        let ty = self.ins.ty;
        if ty.is_float() || ty.is_packed() {
            self.float_arithmetic()
        } else {
            self.integer_arithmetic()
        }
    }

    fn float_arithmetic(&mut self) -> Result<(), Fault> {
        let nan = self.ins.mods.nan;
        match self.ins.opcode {
            Opcode::Add => self.float2(|x, y| x + y, |x, y| x + y),
            Opcode::Sub => self.float2(|x, y| x - y, |x, y| x - y),
            Opcode::Mul => self.float2(|x, y| x * y, |x, y| x * y),
            Opcode::Div => self.float2(|x, y| x / y, |x, y| x / y),
            Opcode::Min | Opcode::Max => {
                let larger = self.ins.opcode == Opcode::Max;
                let pick = move |x: f64, y: f64| match (x.is_nan(), y.is_nan()) {
                    (true, true) => f64::NAN,
                    (true, false) | (false, true) if nan => f64::NAN,
                    (true, false) => y,
                    (false, true) => x,
                    // -0 is less than +0.
                    _ if x == y && x.is_sign_negative() != larger => x,
                    _ if x == y => y,
                    _ if (x > y) == larger => x,
                    _ => y,
                };
                self.float2(move |x, y| pick(x.into(), y.into()) as f32, pick)
            }
            Opcode::Fma | Opcode::Mad => self.float_fma(),
            Opcode::Neg | Opcode::Abs => {
                let sign = if self.ins.ty.is_packed() {
                    0x8000_8000
                } else {
                    1 << (self.ins.ty.bits - 1)
                };
                let negate = self.ins.opcode == Opcode::Neg;
                self.map1(move |x| if negate { x ^ sign } else { x & !sign })
            }
            _ => Err(Fault::unsupported(
                "floating-point form of this instruction",
            )),
        }
    }

    /// A two-operand float operation in any precision.
    fn float2(
        &mut self,
        single: impl Fn(f32, f32) -> f32,
        double: impl Fn(f64, f64) -> f64,
    ) -> Result<(), Fault> {
        let (ty, mode) = (self.ins.ty, self.float_mode());
        let rounding = self.ins.mods.rounding;
        if ty.is_packed() {
            self.map2(|x, y| packed(ty, x, y, 0, |x, y, _| mode.output(single(x, y))))
        } else if ty.bits == 64 {
            self.map2(|x, y| double(f64::from_bits(x), f64::from_bits(y)).to_bits())
        } else if ty.bits == 16 {
            self.map2(|x, y| {
                let (x, y) = (half_to_f32(ty, x as u16), half_to_f32(ty, y as u16));
                u64::from(f32_to_half(ty, mode.output(single(x, y))))
            })
        } else {
            self.map2(|x, y| {
                let x = mode.input(f32::from_bits(x as u32));
                let y = mode.input(f32::from_bits(y as u32));
                let result = if rounding == Rounding::Nearest {
                    single(x, y)
                } else {
                    round_to_f32(double(x.into(), y.into()), rounding)
                };
                u64::from(mode.output(result).to_bits())
            })
        }
    }

    fn float_fma(&mut self) -> Result<(), Fault> {
        let (ty, mode) = (self.ins.ty, self.float_mode());
        let rounding = self.ins.mods.rounding;
        if ty.is_packed() {
            self.map3(|x, y, z| packed(ty, x, y, z, |x, y, z| mode.output(x.mul_add(y, z))))
        } else if ty.bits == 64 {
            self.map3(|x, y, z| {
                let (x, y, z) = (f64::from_bits(x), f64::from_bits(y), f64::from_bits(z));
                x.mul_add(y, z).to_bits()
            })
        } else if ty.bits == 16 {
            self.map3(|x, y, z| {
                let get = |v: u64| half_to_f32(ty, v as u16);
                u64::from(f32_to_half(ty, mode.output(get(x).mul_add(get(y), get(z)))))
            })
        } else {
            self.map3(|x, y, z| {
                let get = |v: u64| mode.input(f32::from_bits(v as u32));
                let (x, y, z) = (get(x), get(y), get(z));
                let result = if rounding == Rounding::Nearest {
                    x.mul_add(y, z)
                } else {
                    round_to_f32(f64::from(x).mul_add(y.into(), z.into()), rounding)
                };
                u64::from(mode.output(result).to_bits())
            })
        }
    }

    fn integer_arithmetic(&mut self) -> Result<(), Fault> {
        let (ty, n) = (self.ins.ty, self.ins.ty.bits);
        let signed = ty.is_signed();
        let saturate = self.ins.mods.sat;
        match self.ins.opcode {
            Opcode::Add | Opcode::Sub if saturate => {
                let subtract = self.ins.opcode == Opcode::Sub;
                self.map2(move |x, y| {
                    let (x, y) = (x as i32, y as i32);
                    let value = if subtract {
                        x.saturating_sub(y)
                    } else {
                        x.saturating_add(y)
                    };
                    u64::from(value as u32)
                })
            }
            Opcode::Add => self.map2(|x, y| zero_extend(x.wrapping_add(y), n)),
            Opcode::Sub => self.map2(|x, y| zero_extend(x.wrapping_sub(y), n)),
            Opcode::Neg => self.map1(|x| zero_extend(x.wrapping_neg(), n)),
            Opcode::Abs => self.map1(|x| zero_extend(sign_extend(x, n).unsigned_abs(), n)),
            Opcode::Mul | Opcode::Mad => self.multiply(),
            Opcode::Div | Opcode::Rem => {
                let remainder = self.ins.opcode == Opcode::Rem;
                self.map2(move |x, y| divide(x, y, n, signed, remainder))
            }
            Opcode::Min if signed => {
                self.map2(|x, y| zero_extend(sign_extend(x, n).min(sign_extend(y, n)) as u64, n))
            }
            Opcode::Max if signed => {
                self.map2(|x, y| zero_extend(sign_extend(x, n).max(sign_extend(y, n)) as u64, n))
            }
            Opcode::Min => self.map2(|x, y| zero_extend(x, n).min(zero_extend(y, n))),
            Opcode::Max => self.map2(|x, y| zero_extend(x, n).max(zero_extend(y, n))),
            _ => Err(Fault::unsupported("integer form of this instruction")),
        }
    }

    /// `mul`/`mad` with `.lo`, `.hi` or `.wide`.
    fn multiply(&mut self) -> Result<(), Fault> {
        let (ty, n) = (self.ins.ty, self.ins.ty.bits);
        let (wide, hi) = (self.ins.mods.wide, self.ins.mods.hi);
        let result_bits = if wide { 2 * n } else { n };
        let product = move |x: u64, y: u64| {
            let product = if ty.is_signed() {
                i128::from(sign_extend(x, n)) * i128::from(sign_extend(y, n))
            } else {
                (u128::from(zero_extend(x, n)) * u128::from(zero_extend(y, n))) as i128
            };
            (if hi { product >> n } else { product }) as u64
        };
        if self.ins.opcode == Opcode::Mad {
            self.map3(|x, y, z| zero_extend(product(x, y).wrapping_add(z), result_bits))
        } else {
            self.map2(|x, y| zero_extend(product(x, y), result_bits))
        }
    }
}

/// Integer division; by zero it gives all ones (unspecified by the ISA).
fn divide(x: u64, y: u64, bits: u32, signed: bool, remainder: bool) -> u64 {
    let value = if signed {
        let (x, y) = (sign_extend(x, bits), sign_extend(y, bits));
        match (y, remainder) {
            (0, _) => u64::MAX,
            (_, true) => x.wrapping_rem(y) as u64,
            (_, false) => x.wrapping_div(y) as u64,
        }
    } else {
        let (x, y) = (zero_extend(x, bits), zero_extend(y, bits));
        match (y, remainder) {
            (0, _) => u64::MAX,
            (_, true) => x % y,
            (_, false) => x / y,
        }
    };
    zero_extend(value, bits)
}

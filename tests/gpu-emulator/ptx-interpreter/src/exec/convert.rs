//! `cvt`.
//!
//! PTX ISA: "Data Movement and Conversion Instructions: cvt".

use super::Context;
use crate::error::Fault;
use crate::numeric::*;
use crate::types::{Kind, PtxType};
use crate::warp::WARP;

impl Context<'_, '_> {
    pub(crate) fn convert(&mut self) -> Result<(), Fault> {
        let (from, to) = (self.ins.ty, self.ins.dest_ty);
        if self
            .ins
            .mods
            .list
            .iter()
            .any(|m| m.starts_with("e4m3") || m.starts_with("e5m2"))
        {
            return Err(Fault::unsupported("FP8 conversions"));
        }
        if to.is_packed() {
            return self.convert_packed(to);
        }
        let to_integer = ["rni", "rzi", "rmi", "rpi"]
            .iter()
            .any(|m| self.ins.mods.has(m));
        let a = self.value(1)?;
        let mut d = [0; WARP];
        for lane in 0..WARP {
            d[lane] = match (from.is_float(), to.is_float()) {
                (false, false) => self.integer_to_integer(a[lane], from, to),
                (false, true) => self.integer_to_float(a[lane], from, to),
                (true, false) => {
                    let value = self.to_integral(self.flushed(from, a[lane]));
                    float_to_integer(value, to)
                }
                (true, true) => {
                    let mut value = self.flushed(from, a[lane]);
                    if to_integer {
                        value = self.to_integral(value);
                    }
                    self.float_to_float(value, to)
                }
            };
        }
        self.write_result(&d);
        Ok(())
    }

    /// `cvt.rn.bf16x2.f32 d, high, low`
    fn convert_packed(&mut self, to: PtxType) -> Result<(), Fault> {
        if self.ins.operands.len() < 3 {
            return Err(Fault::unsupported("this packed conversion"));
        }
        let (relu, rounding) = (self.ins.mods.relu, self.ins.mods.rounding);
        self.map2(|high, low| {
            let half = |bits: u64| {
                let mut value = f32::from_bits(bits as u32);
                if relu && value < 0.0 {
                    value = 0.0;
                }
                u64::from(round_half(to, value.into(), rounding))
            };
            half(high) << 16 | half(low)
        })
    }

    /// The source as f64, subnormals flushed when `.ftz` says so.
    fn flushed(&self, from: PtxType, bits: u64) -> f64 {
        let value = float_bits_to_f64(from, bits);
        if from.bits == 32 && self.ins.mods.ftz && (value as f32).is_subnormal() {
            return 0f64.copysign(value);
        }
        value
    }

    fn to_integral(&self, value: f64) -> f64 {
        match self.ins.mods.rounding {
            Rounding::Nearest => value.round_ties_even(),
            Rounding::Zero => value.trunc(),
            Rounding::Down => value.floor(),
            Rounding::Up => value.ceil(),
        }
    }

    fn integer_to_integer(&self, bits: u64, from: PtxType, to: PtxType) -> u64 {
        let mut value = integer(bits, from);
        if self.ins.mods.sat {
            value = if to.is_signed() {
                let limit = 1i128 << (to.bits - 1);
                value.clamp(-limit, limit - 1)
            } else {
                value.clamp(0, (1i128 << to.bits) - 1)
            };
        }
        zero_extend(value as u64, to.bits)
    }

    fn integer_to_float(&self, bits: u64, from: PtxType, to: PtxType) -> u64 {
        let value = integer(bits, from);
        let rounding = self.ins.mods.rounding;
        match (to.kind, to.bits) {
            (_, 64) => (value as f64).to_bits(),
            (_, 32) if rounding == Rounding::Nearest => u64::from((value as f32).to_bits()),
            (_, 32) => u64::from(round_to_f32(value as f64, rounding).to_bits()),
            _ => u64::from(round_half(to, value as f64, rounding)),
        }
    }

    fn float_to_float(&self, value: f64, to: PtxType) -> u64 {
        let mods = &self.ins.mods;
        let mut value = value;
        if mods.sat {
            value = if value.is_nan() {
                0.0
            } else {
                value.clamp(0.0, 1.0)
            };
        } else if mods.relu && value < 0.0 {
            value = 0.0;
        }
        match (to.kind, to.bits) {
            (Kind::Tf32, _) => u64::from(f32_to_tf32(value as f32).to_bits()),
            (_, 64) => value.to_bits(),
            (_, 32) => {
                let rounded = round_to_f32(value, mods.rounding);
                let flushed = if mods.ftz && rounded.is_subnormal() {
                    0f32.copysign(rounded)
                } else {
                    rounded
                };
                u64::from(flushed.to_bits())
            }
            _ => u64::from(round_half(to, value, mods.rounding)),
        }
    }
}

fn integer(bits: u64, ty: PtxType) -> i128 {
    if ty.is_signed() {
        sign_extend(bits, ty.bits).into()
    } else {
        zero_extend(bits, ty.bits).into()
    }
}

/// Clamps to the range of the type; NaN becomes 0 (the minimum for 64-bit signed).
fn float_to_integer(value: f64, to: PtxType) -> u64 {
    let bits = if to.is_signed() {
        let limit = 2f64.powi(to.bits as i32 - 1);
        match to.bits {
            64 if value.is_nan() => i64::MIN as u64,
            64 => value as i64 as u64,
            _ if value.is_nan() => 0,
            _ => value.clamp(-limit, limit - 1.0) as i64 as u64,
        }
    } else if to.bits == 64 {
        value as u64
    } else {
        value.clamp(0.0, 2f64.powi(to.bits as i32) - 1.0) as u64
    };
    zero_extend(bits, to.bits)
}

/// f64 to a 16-bit float in the given direction.
fn round_half(to: PtxType, value: f64, mode: Rounding) -> u16 {
    // Round to odd first, so that the second rounding cannot go wrong.
    let truncated = round_to_f32(value, Rounding::Zero);
    let sticky = if f64::from(truncated) != value && !value.is_nan() {
        f32::from_bits(truncated.to_bits() | 1)
    } else {
        truncated
    };
    let nearest = f32_to_half(to, sticky);
    let back = f64::from(half_to_f32(to, nearest));
    if mode == Rounding::Nearest || back == value || value.is_nan() {
        return nearest;
    }
    let toward_zero = match mode {
        Rounding::Zero => true,
        Rounding::Down => value > 0.0,
        _ => value < 0.0,
    };
    let too_large = back.abs() > value.abs();
    match (toward_zero, too_large) {
        (true, true) => nearest - 1,
        (false, false) => nearest + 1,
        _ => nearest,
    }
}

//! `setp set selp slct testp`.
//!
//! PTX ISA: "Comparison and Selection Instructions", "Half Precision Comparison Instructions".

use super::Context;
use crate::error::Fault;
use crate::ir::{Compare, Opcode, Operand};
use crate::numeric::{f32_to_half, float_bits_to_f64, half_to_f32, sign_extend, zero_extend};
use crate::types::{Kind, PtxType};
use crate::warp::WARP;

fn compare_floats(how: Compare, x: f64, y: f64) -> bool {
    let unordered = x.is_nan() || y.is_nan();
    match how {
        Compare::Eq => x == y,
        Compare::Ne => !unordered && x != y,
        Compare::Lt => x < y,
        Compare::Le => x <= y,
        Compare::Gt => x > y,
        Compare::Ge => x >= y,
        Compare::Equ => unordered || x == y,
        Compare::Neu => unordered || x != y,
        Compare::Ltu => unordered || x < y,
        Compare::Leu => unordered || x <= y,
        Compare::Gtu => unordered || x > y,
        Compare::Geu => unordered || x >= y,
        Compare::Num => !unordered,
        Compare::Nan => unordered,
    }
}

fn compare_integers(how: Compare, x: i128, y: i128) -> bool {
    match how {
        Compare::Eq | Compare::Equ => x == y,
        Compare::Ne | Compare::Neu => x != y,
        Compare::Lt | Compare::Ltu => x < y,
        Compare::Le | Compare::Leu => x <= y,
        Compare::Gt | Compare::Gtu => x > y,
        Compare::Ge | Compare::Geu => x >= y,
        Compare::Num => true,
        Compare::Nan => false,
    }
}

impl Context<'_, '_> {
    pub(crate) fn compare(&mut self) -> Result<(), Fault> {
        match self.ins.opcode {
            Opcode::Setp | Opcode::Set => self.set_predicate(),
            Opcode::Selp => self.map3(|x, y, p| if p & 1 != 0 { x } else { y }),
            Opcode::Slct => {
                let float = self.ins.ty.is_float();
                self.map3(|x, y, c| {
                    let nonnegative = if float {
                        f32::from_bits(c as u32) >= 0.0
                    } else {
                        c as i32 >= 0
                    };
                    if nonnegative {
                        x
                    } else {
                        y
                    }
                })
            }
            _ => self.testp(),
        }
    }

    fn compare_lane(&self, how: Compare, ty: PtxType, a: u64, b: u64) -> bool {
        if ty.is_float() {
            let mut get = [a, b].map(|bits| float_bits_to_f64(ty, bits));
            if ty.bits == 32 {
                let mode = self.float_mode();
                get = get.map(|v| mode.input(v as f32).into());
            }
            compare_floats(how, get[0], get[1])
        } else if ty.is_signed() {
            let get = |v| i128::from(sign_extend(v, ty.bits));
            compare_integers(how, get(a), get(b))
        } else {
            let get = |v| i128::from(zero_extend(v, ty.bits));
            compare_integers(how, get(a), get(b))
        }
    }

    fn set_predicate(&mut self) -> Result<(), Fault> {
        let ty = self.ins.ty;
        let how = (self.ins.mods.compare).ok_or_else(|| Fault::invalid("no comparison"))?;
        let (a, b) = (self.value(1)?, self.value(2)?);
        if ty.is_packed() {
            return self.set_packed(how);
        }
        let mut result = [0u64; WARP];
        for lane in 0..WARP {
            result[lane] = self.compare_lane(how, ty, a[lane], b[lane]).into();
        }
        let combine = self.ins.mods.list.iter().find_map(|m| match m.as_str() {
            "and" => Some(Opcode::And),
            "or" => Some(Opcode::Or),
            "xor" => Some(Opcode::Xor),
            _ => None,
        });
        let mut second = result.map(|r| r ^ 1);
        if let Some(combine) = combine {
            let c = self.value(3)?;
            let apply = |x: u64, y: u64| match combine {
                Opcode::And => x & y & 1,
                Opcode::Or => (x | y) & 1,
                _ => (x ^ y) & 1,
            };
            for lane in 0..WARP {
                result[lane] = apply(result[lane], c[lane]);
                second[lane] = apply(second[lane], c[lane]);
            }
        }
        if self.ins.opcode == Opcode::Set {
            let one = match self.ins.dest_ty {
                t if t.is_float() && t.bits == 16 => f32_to_half(t, 1.0).into(),
                t if t.is_float() => u64::from(1f32.to_bits()),
                _ => 0xffff_ffff,
            };
            self.write_result(&result.map(|r| r * one));
            return Ok(());
        }
        match self.operand(0)? {
            Operand::Vector(pair) if pair.len() == 2 => {
                self.write(&pair[0], &result);
                self.write(&pair[1], &second);
            }
            destination => self.write(destination, &result),
        }
        Ok(())
    }

    /// Packed comparison: `setp` with two predicates, `set` with 1.0 or 0xffff per half.
    fn set_packed(&mut self, how: Compare) -> Result<(), Fault> {
        let (ty, dest_ty) = (self.ins.ty, self.ins.dest_ty);
        let (a, b) = (self.value(1)?, self.value(2)?);
        let half = |lane: usize, shift: u32| {
            let get = |v: u64| f64::from(half_to_f32(ty, (v >> shift) as u16));
            compare_floats(how, get(a[lane]), get(b[lane]))
        };
        let low: [bool; WARP] = std::array::from_fn(|lane| half(lane, 0));
        let high: [bool; WARP] = std::array::from_fn(|lane| half(lane, 16));
        if let Operand::Vector(pair) = self.operand(0)? {
            self.write(&pair[0], &low.map(u64::from));
            self.write(&pair[1], &high.map(u64::from));
            return Ok(());
        }
        let one = match dest_ty.kind {
            Kind::F16x2 | Kind::Bf16x2 => u64::from(f32_to_half(dest_ty, 1.0)),
            _ => 0xffff,
        };
        let pack =
            |lane: usize| (u64::from(low[lane]) * one) | ((u64::from(high[lane]) * one) << 16);
        self.write_result(&std::array::from_fn(pack));
        Ok(())
    }

    fn testp(&mut self) -> Result<(), Fault> {
        let (ty, test) = (self.ins.ty, self.ins.mods.get(0).to_string());
        self.map1(move |bits| {
            let value = float_bits_to_f64(ty, bits);
            let normal = if ty.bits == 64 {
                value.is_normal()
            } else {
                (value as f32).is_normal()
            };
            let result = match test.as_str() {
                "finite" => value.is_finite(),
                "infinite" => value.is_infinite(),
                "number" => !value.is_nan(),
                "notanumber" => value.is_nan(),
                "normal" => normal,
                _ => value.is_finite() && !normal,
            };
            result.into()
        })
    }
}

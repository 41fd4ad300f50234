//! `ex2 lg2 rcp sqrt rsqrt sin cos tanh copysign`.
//!
//! PTX ISA: "Floating Point Instructions". The `.approx` forms are computed in f64 and rounded, so
//! they are more exact here than on a device.

use super::Context;
use crate::error::Fault;
use crate::ir::Opcode;
use crate::numeric::{f32_to_half, half_to_f32, round_to_f32};

impl Context<'_, '_> {
    pub(crate) fn math(&mut self) -> Result<(), Fault> {
        let f: fn(f64) -> f64 = match self.ins.opcode {
            Opcode::Ex2 => f64::exp2,
            Opcode::Lg2 => f64::log2,
            Opcode::Rcp => |x| 1.0 / x,
            Opcode::Sqrt => f64::sqrt,
            Opcode::Rsqrt => |x| 1.0 / x.sqrt(),
            Opcode::Sin => f64::sin,
            Opcode::Cos => f64::cos,
            Opcode::Tanh => f64::tanh,
            _ => return self.copysign(),
        };
        let (ty, mode) = (self.ins.ty, self.float_mode());
        let rounding = self.ins.mods.rounding;
        if ty.is_packed() {
            return self.map1(|x| {
                super::arithmetic::packed(ty, x, 0, 0, |x, _, _| mode.output(f(x.into()) as f32))
            });
        }
        match ty.bits {
            64 => self.map1(|x| f(f64::from_bits(x)).to_bits()),
            16 => self.map1(|x| {
                let x = half_to_f32(ty, x as u16);
                f32_to_half(ty, mode.output(f(x.into()) as f32)).into()
            }),
            _ => self.map1(|x| {
                let x = mode.input(f32::from_bits(x as u32));
                mode.output(round_to_f32(f(x.into()), rounding))
                    .to_bits()
                    .into()
            }),
        }
    }

    /// `copysign d, a, b`: the sign of `a` with the magnitude of `b`.
    fn copysign(&mut self) -> Result<(), Fault> {
        let sign = 1u64 << (self.ins.ty.bits - 1);
        self.map2(|a, b| (b & !sign) | (a & sign))
    }
}

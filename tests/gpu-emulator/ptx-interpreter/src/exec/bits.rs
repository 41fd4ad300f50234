//! Logic, shifts and bit fields.
//!
//! PTX ISA: "Logic and Shift Instructions", "Integer Arithmetic Instructions: popc, clz, bfind,
//! brev, bfe, bfi", "Data Movement: prmt".

use super::Context;
use crate::error::Fault;
use crate::ir::{Opcode, Operand};
use crate::numeric::{sign_extend, zero_extend};
use crate::types::Kind;
use crate::warp::WARP;

impl Context<'_, '_> {
    pub(crate) fn bits(&mut self) -> Result<(), Fault> {
        let (ty, n) = (self.ins.ty, self.ins.ty.bits);
        let signed = ty.is_signed();
        match self.ins.opcode {
            Opcode::And => self.map2(|x, y| x & y),
            Opcode::Or => self.map2(|x, y| x | y),
            Opcode::Xor => self.map2(|x, y| x ^ y),
            Opcode::Not if ty.kind == Kind::Pred => self.map1(|x| !x & 1),
            Opcode::Not => self.map1(|x| zero_extend(!x, n)),
            Opcode::Shl => self.map2(|x, y| {
                let count = zero_extend(y, 32);
                if count >= u64::from(n) {
                    0
                } else {
                    zero_extend(x << count, n)
                }
            }),
            Opcode::Shr => self.map2(|x, y| {
                let count = zero_extend(y, 32);
                if signed {
                    let count = count.min(u64::from(n) - 1);
                    zero_extend((sign_extend(x, n) >> count) as u64, n)
                } else if count >= u64::from(n) {
                    0
                } else {
                    zero_extend(x, n) >> count
                }
            }),
            Opcode::Shf => self.funnel_shift(),
            Opcode::Lop3 => self.lop3(),
            Opcode::Popc => self.map1(|x| zero_extend(x, n).count_ones().into()),
            Opcode::Clz => self.map1(|x| (zero_extend(x, n).leading_zeros() - (64 - n)).into()),
            Opcode::Brev => self.map1(|x| zero_extend(x, n).reverse_bits() >> (64 - n)),
            Opcode::Bfind => {
                let from_top = self.ins.mods.has("shiftamt");
                self.map1(|x| {
                    let negative = signed && sign_extend(x, n) < 0;
                    let value = zero_extend(if negative { !x } else { x }, n);
                    if value == 0 {
                        return 0xffff_ffff;
                    }
                    let position = 63 - value.leading_zeros();
                    u64::from(if from_top { n - 1 - position } else { position })
                })
            }
            Opcode::Bfe => self.map3(|x, at, count| extract(x, at, count, n, signed)),
            Opcode::Bfi => self.bfi(),
            _ => self.prmt(),
        }
    }

    /// `shf.l`/`shf.r` with `.clamp` or `.wrap`.
    fn funnel_shift(&mut self) -> Result<(), Fault> {
        let left = self.ins.mods.has("l");
        let clamp = self.ins.mods.has("clamp");
        self.map3(|low, high, count| {
            let count = if clamp {
                zero_extend(count, 32).min(32)
            } else {
                count & 31
            };
            let value = u128::from(zero_extend(low, 32) | high << 32);
            let result = if left {
                value << count >> 32
            } else {
                value >> count
            };
            zero_extend(result as u64, 32)
        })
    }

    fn lop3(&mut self) -> Result<(), Fault> {
        let Operand::Immediate(table) = *self.operand(4)? else {
            return Err(Fault::unsupported("lop3 with a predicate result"));
        };
        self.map3(|a, b, c| {
            let mut result = 0;
            for k in 0..8 {
                if table >> k & 1 != 0 {
                    let a = if k & 4 != 0 { a } else { !a };
                    let b = if k & 2 != 0 { b } else { !b };
                    let c = if k & 1 != 0 { c } else { !c };
                    result |= a & b & c;
                }
            }
            zero_extend(result, 32)
        })
    }

    fn bfi(&mut self) -> Result<(), Fault> {
        let n = self.ins.ty.bits;
        let (field, base) = (self.value(1)?, self.value(2)?);
        let (position, length) = (self.value(3)?, self.value(4)?);
        let mut d = [0; WARP];
        for lane in 0..WARP {
            let (at, count) = (position[lane] & 0xff, length[lane] & 0xff);
            let mask = if count == 0 || at >= u64::from(n) {
                0
            } else {
                zero_extend(zero_extend(u64::MAX, count as u32) << at, n)
            };
            let shifted = field[lane] << at.min(63);
            d[lane] = (base[lane] & !mask) | (shifted & mask);
        }
        self.write_result(&d);
        Ok(())
    }

    /// `prmt.b32` and its `.f4e .b4e .rc8 .ecl .ecr .rc16` modes.
    fn prmt(&mut self) -> Result<(), Fault> {
        let mode = self
            .ins
            .mods
            .list
            .last()
            .map_or("", String::as_str)
            .to_string();
        self.map3(move |x, y, selector| {
            let bytes = (zero_extend(x, 32) | y << 32).to_le_bytes();
            let s = (selector & 3) as usize;
            let pick: [usize; 4] = match mode.as_str() {
                "f4e" => [s, s + 1, s + 2, s + 3],
                "b4e" => [s, (s + 7) % 8, (s + 6) % 8, (s + 5) % 8],
                "rc8" => [s; 4],
                "ecl" => [s, s.max(1), s.max(2), 3],
                "ecr" => [0, s.min(1), s.min(2), s],
                "rc16" => {
                    let base = 2 * (s & 1);
                    [base, base + 1, base, base + 1]
                }
                _ => {
                    let nibble = |i: u32| (selector >> (4 * i) & 15) as usize;
                    let byte = |i: u32| {
                        let value = bytes[nibble(i) & 7];
                        match (nibble(i) & 8 != 0, value & 0x80 != 0) {
                            (false, _) => value,
                            (true, true) => 0xff,
                            (true, false) => 0,
                        }
                    };
                    return u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]).into();
                }
            };
            u32::from_le_bytes(pick.map(|k| bytes[k])).into()
        })
    }
}

/// `bfe`
fn extract(x: u64, at: u64, count: u64, bits: u32, signed: bool) -> u64 {
    let (at, count) = ((at & 0xff) as u32, (count & 0xff) as u32);
    if count == 0 {
        return 0;
    }
    if at >= bits {
        let negative = signed && sign_extend(x, bits) < 0;
        return if negative {
            zero_extend(u64::MAX, bits)
        } else {
            0
        };
    }
    let count = count.min(bits - at);
    let field = zero_extend(zero_extend(x, bits) >> at, count);
    if signed {
        zero_extend(sign_extend(field, count) as u64, bits)
    } else {
        field
    }
}

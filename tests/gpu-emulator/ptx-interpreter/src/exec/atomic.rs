//! `atom` and `red`.
//!
//! PTX ISA: "Parallel Synchronization and Communication Instructions: atom, red". Lanes are served
//! in order; the interpreter is sequentially consistent.

use super::arithmetic::packed;
use super::Context;
use crate::error::Fault;
use crate::ir::{Opcode, Operand};
use crate::memory;
use crate::numeric::{f32_to_half, half_to_f32, sign_extend, zero_extend};
use crate::shadow::Access;
use crate::types::PtxType;
use crate::warp::{lanes_of, WARP};

const OPERATIONS: [&str; 10] = [
    "add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec",
];

fn combine(operation: &str, ty: PtxType, old: u64, x: u64, swap: u64) -> u64 {
    let n = ty.bits;
    let x = zero_extend(x, n);
    match operation {
        "add" | "min" | "max" if ty.is_packed() => {
            packed(ty, old, x, 0, |a, b, _| match operation {
                "add" => a + b,
                "min" => a.min(b),
                _ => a.max(b),
            })
        }
        "add" | "min" | "max" if ty.is_float() => float_combine(operation, ty, old, x),
        "add" => zero_extend(old.wrapping_add(x), n),
        "min" if ty.is_signed() => {
            zero_extend(sign_extend(old, n).min(sign_extend(x, n)) as u64, n)
        }
        "max" if ty.is_signed() => {
            zero_extend(sign_extend(old, n).max(sign_extend(x, n)) as u64, n)
        }
        "min" => old.min(x),
        "max" => old.max(x),
        "and" => old & x,
        "or" => old | x,
        "xor" => old ^ x,
        "exch" => x,
        "cas" if old == x => zero_extend(swap, n),
        "cas" => old,
        "inc" if old >= x => 0,
        "inc" => old + 1,
        _ if old == 0 || old > x => x,
        _ => old - 1,
    }
}

fn float_combine(operation: &str, ty: PtxType, old: u64, x: u64) -> u64 {
    let apply = |a: f64, b: f64| match operation {
        "add" => a + b,
        "min" => a.min(b),
        _ => a.max(b),
    };
    match ty.bits {
        64 => apply(f64::from_bits(old), f64::from_bits(x)).to_bits(),
        16 => {
            let get = |v: u64| f64::from(half_to_f32(ty, v as u16));
            f32_to_half(ty, apply(get(old), get(x)) as f32).into()
        }
        _ => {
            let get = |v: u64| f64::from(f32::from_bits(v as u32));
            // The f64 sum of two f32 values rounds to the same f32 as the direct sum.
            (apply(get(old), get(x)) as f32).to_bits().into()
        }
    }
}

impl Context<'_, '_> {
    pub(crate) fn atomic(&mut self) -> Result<(), Fault> {
        let first = usize::from(self.ins.opcode == Opcode::Atom);
        let memory = self.operand(first)?;
        let (space, addresses) = (self.space_of(memory), self.addresses(memory)?);
        let (ty, bytes) = (self.ins.ty, self.ins.ty.bytes());
        let mods = &self.ins.mods;
        let operation = OPERATIONS.iter().find(|o| mods.has(o));
        let operation = *operation.ok_or_else(|| Fault::unsupported("this atomic operation"))?;
        if bytes > 8 {
            return Err(Fault::unsupported("128-bit atomics"));
        }
        let swap = match operation {
            "cas" => self.value(first + 2)?,
            _ => [0; WARP],
        };
        for (k, operand) in Self::parts(self.operand(first + 1)?).iter().enumerate() {
            let values = self.read(operand)?;
            let mut before = [0; WARP];
            for lane in lanes_of(self.mask) {
                let address = addresses[lane] + (k * bytes) as u64;
                let at = self.locate(lane, (space, address), bytes, Access::Atomic)?;
                // SAFETY: `locate` has checked bounds and alignment.
                unsafe {
                    before[lane] = memory::load(at, bytes);
                    let after = combine(operation, ty, before[lane], values[lane], swap[lane]);
                    memory::store(at, bytes, after);
                }
            }
            if first == 1 {
                match self.operand(0)? {
                    Operand::Vector(parts) => self.write(&parts[k], &before),
                    destination => self.write(destination, &before),
                }
            }
        }
        Ok(())
    }
}

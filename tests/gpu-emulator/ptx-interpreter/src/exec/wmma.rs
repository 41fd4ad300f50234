//! `wmma.load wmma.mma wmma.store` for m16n16k16.
//!
//! PTX ISA: "Warp-level matrix instructions: wmma". The fragment layout is opaque: here register k
//! of lane l holds elements (k*32 + l) of the row-major tile, two per register for 16-bit types.

use super::Context;
use crate::error::Fault;
use crate::ir::Operand;
use crate::numeric::{f16_to_f32, f32_to_f16, half_to_f32};
use crate::types::{Kind, PtxType};
use crate::warp::{Lanes, WARP};

const TILE: usize = 16;

impl<'m> Context<'_, 'm> {
    pub(crate) fn wmma(&mut self) -> Result<(), Fault> {
        if !self.ins.mods.has("m16n16k16") {
            return Err(Fault::unsupported("wmma shapes other than m16n16k16"));
        }
        match self.ins.mods.get(0) {
            "load" => self.wmma_move(false),
            "store" => self.wmma_move(true),
            "mma" => self.wmma_mma(),
            _ => Err(Fault::unsupported("this wmma operation")),
        }
    }

    fn wmma_move(&mut self, storing: bool) -> Result<(), Fault> {
        let bytes = self.ins.ty.bytes();
        let (memory, registers) = if storing { (0, 1) } else { (1, 0) };
        let space = self.space_of(self.operand(memory)?);
        let base = self.addresses(self.operand(memory)?)?[0];
        let stride = match self.ins.operands.get(2) {
            Some(operand) => self.uniform(operand)?,
            None => TILE as u64,
        };
        let column_major = self.ins.mods.has("col");
        let parts = Self::parts(self.operand(registers)?);
        let per_register = if bytes == 2 { 2 } else { 1 };
        // f16 inputs use 8 registers for 256 elements: the second half repeats the first.
        let doubled = parts.len() * per_register > 8;
        for (k, part) in parts.iter().enumerate() {
            if storing && doubled && k >= 4 {
                continue;
            }
            let slot = if doubled { k % 4 } else { k };
            let mut values = if storing { self.read(part)? } else { [0; WARP] };
            for (lane, value) in values.iter_mut().enumerate() {
                for half in 0..per_register {
                    let index = (slot * per_register + half) * WARP + lane;
                    let (row, column) = ((index / TILE) as u64, (index % TILE) as u64);
                    let offset = if column_major {
                        column * stride + row
                    } else {
                        row * stride + column
                    };
                    let place = (space, base + offset * bytes as u64);
                    if storing {
                        self.write_memory(lane, place, bytes, *value >> (16 * half))?;
                    } else {
                        *value |= self.read_memory(lane, place, bytes)? << (16 * half);
                    }
                }
            }
            if !storing {
                self.write(part, &values);
            }
        }
        Ok(())
    }

    fn wmma_fragment(&self, operand: &'m Operand) -> Result<Vec<Lanes>, Fault> {
        Self::parts(operand).iter().map(|p| self.read(p)).collect()
    }

    fn wmma_mma(&mut self) -> Result<(), Fault> {
        let types: Vec<PtxType> = self.ins.mods.types().collect();
        let bf16 = types.iter().any(|t| t.kind == Kind::Bf16);
        // Without input types it is `.dtype.ctype` with f16 inputs.
        let (d_ty, c_ty) = match types[..] {
            [d, c] => (d, c),
            [d, _, _, c] => (d, c),
            _ => return Err(Fault::unsupported("wmma with these types")),
        };
        let input_ty = PtxType {
            kind: if bf16 { Kind::Bf16 } else { Kind::Float },
            bits: 16,
        };
        let a = unpack_half(&self.wmma_fragment(self.operand(1)?)?, input_ty);
        let b = unpack_half(&self.wmma_fragment(self.operand(2)?)?, input_ty);
        let c = self.wmma_fragment(self.operand(3)?)?;
        let destination = Self::parts(self.operand(0)?);
        let mut d = vec![[0u64; WARP]; destination.len()];
        for index in 0..TILE * TILE {
            let (row, column) = (index / TILE, index % TILE);
            let (slot, lane) = (index / WARP, index % WARP);
            let (register, shift) = (slot / 2, 16 * (slot % 2));
            let start = if c_ty.bits == 16 {
                f16_to_f32((c[register][lane] >> shift) as u16)
            } else {
                f32::from_bits(c[slot][lane] as u32)
            };
            let products = (0..TILE).map(|k| a[row * TILE + k] * b[k * TILE + column]);
            let result = start + products.sum::<f32>();
            if d_ty.bits == 16 {
                d[register][lane] |= u64::from(f32_to_f16(result)) << shift;
            } else {
                d[slot][lane] = result.to_bits().into();
            }
        }
        for (register, values) in destination.iter().zip(&d) {
            self.write(register, values);
        }
        Ok(())
    }
}

fn unpack_half(fragment: &[Lanes], ty: PtxType) -> Vec<f32> {
    let element = |index: usize| {
        let (slot, lane) = (index / WARP, index % WARP);
        half_to_f32(ty, (fragment[slot / 2][lane] >> (16 * (slot % 2))) as u16)
    };
    (0..TILE * TILE).map(element).collect()
}

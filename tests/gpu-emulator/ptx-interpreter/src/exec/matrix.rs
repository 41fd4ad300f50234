//! `ldmatrix stmatrix mma.sync`.
//!
//! PTX ISA: "Warp-level matrix instructions: ldmatrix, stmatrix, mma"; fragment layouts from
//! "Matrix Fragments for mma.m16n8k16 / m16n8k8". Sums are made in f32 in k order.

use super::Context;
use crate::error::{ErrorKind, Fault};
use crate::ir::{Opcode, Operand, Space};
use crate::memory::{load, store, WINDOW_MASK};
use crate::numeric::{f16_to_f32, f32_to_f16, half_to_f32};
use crate::shadow::Access;
use crate::types::{Kind, PtxType};
use crate::warp::{Lanes, WARP};

impl<'m> Context<'_, 'm> {
    /// `ldmatrix`/`stmatrix` `.m8n8.b16`: lane 8*i+r gives the address of row r of matrix i.
    pub(crate) fn matrix_move(&mut self) -> Result<(), Fault> {
        let storing = self.ins.opcode == Opcode::Stmatrix;
        let transposed = self.ins.mods.has("trans");
        if !self.ins.mods.has("m8n8") || self.ins.ty.bits != 16 {
            return Err(Fault::unsupported("this matrix shape"));
        }
        let (memory, registers) = if storing { (0, 1) } else { (1, 0) };
        let rows = self
            .addresses(self.operand(memory)?)?
            .map(|a| a & WINDOW_MASK);
        for (i, register) in Self::parts(self.operand(registers)?).iter().enumerate() {
            for (lane, row) in rows.iter().enumerate().skip(8 * i).take(8) {
                if !row.is_multiple_of(16) {
                    let message = format!("matrix row at {row:#x} is not 16-byte aligned");
                    return Err(Fault::new(ErrorKind::Misaligned, message).in_lane(lane));
                }
            }
            // Each lane of the eight takes its whole row.
            let access = if storing { Access::Write } else { Access::Read };
            let mut memory = [std::ptr::null_mut(); 8];
            for (row, at) in memory.iter_mut().enumerate() {
                let owner = 8 * i + row;
                *at = self.locate(owner, (Space::Shared, rows[owner]), 16, access)?;
            }
            let mut values = if storing {
                self.read(register)?
            } else {
                [0; WARP]
            };
            for (lane, value) in values.iter_mut().enumerate() {
                for half in 0..2 {
                    let (major, minor) = (lane / 4, lane % 4 * 2 + half);
                    let (row, column) = if transposed {
                        (minor, major)
                    } else {
                        (major, minor)
                    };
                    // SAFETY: the row of 16 bytes has been checked.
                    unsafe {
                        let at = memory[row].add(2 * column);
                        if storing {
                            store(at, 2, *value >> (16 * half));
                        } else {
                            *value |= load(at, 2) << (16 * half);
                        }
                    }
                }
            }
            if !storing {
                self.write(register, &values);
            }
        }
        Ok(())
    }

    fn fragment(&self, index: usize) -> Result<Vec<Lanes>, Fault> {
        let parts = Self::parts(self.operand(index)?);
        parts.iter().map(|p| self.read(p)).collect()
    }

    /// `mma.sync.m16n8k16` (f16, bf16), `m16n8k8` (f16, bf16, tf32) and `m16n8k4` (tf32).
    pub(crate) fn mma(&mut self) -> Result<(), Fault> {
        let mods = &self.ins.mods;
        let types: Vec<PtxType> = mods.types().collect();
        let [d_ty, a_ty, b_ty, c_ty] = types[..] else {
            return Err(Fault::unsupported("mma with these types"));
        };
        let depth = match () {
            _ if mods.has("m16n8k16") => 16,
            _ if mods.has("m16n8k8") => 8,
            _ if mods.has("m16n8k4") => 4,
            _ => return Err(Fault::unsupported("this mma shape")),
        };
        let wide = a_ty.kind == Kind::Tf32;
        let known = wide && depth < 16 || a_ty.bits == 16 && depth > 4;
        if a_ty != b_ty || !known || !(mods.has("row") && mods.has("col")) {
            return Err(Fault::unsupported(
                "this combination of mma shape, types and layout",
            ));
        }
        let (a, b, c) = (self.fragment(1)?, self.fragment(2)?, self.fragment(3)?);
        let a = spread_a(&a, a_ty, depth);
        let b = spread_b(&b, b_ty, depth);
        let mut d = vec![[0u64; WARP]; if d_ty.bits == 16 { 2 } else { 4 }];
        for lane in 0..WARP {
            for i in 0..4 {
                let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
                let start = if c_ty.bits == 16 {
                    f16_to_f32((c[i / 2][lane] >> (16 * (i % 2))) as u16)
                } else {
                    f32::from_bits(c[i][lane] as u32)
                };
                let sum: f32 = (0..depth).map(|k| a[row][k] * b[column][k]).sum();
                if d_ty.bits == 16 {
                    d[i / 2][lane] |= u64::from(f32_to_f16(start + sum)) << (16 * (i % 2));
                } else {
                    d[i][lane] = (start + sum).to_bits().into();
                }
            }
        }
        let Operand::Vector(destination) = self.operand(0)? else {
            return Err(Fault::invalid("mma destination is not a vector"));
        };
        for (register, values) in destination.iter().zip(&d) {
            self.write(register, values);
        }
        Ok(())
    }
}

/// One input element: register `r` of a lane, half `h` of it.
fn element(fragment: &[Lanes], ty: PtxType, lane: usize, r: usize, h: usize) -> f32 {
    let bits = fragment.get(r).map_or(0, |v| v[lane]);
    if ty.kind == Kind::Tf32 {
        f32::from_bits(bits as u32 & 0xffff_e000)
    } else {
        half_to_f32(ty, (bits >> (16 * h)) as u16)
    }
}

/// A fragment to rows of the 16 x depth matrix.
fn spread_a(fragment: &[Lanes], ty: PtxType, depth: usize) -> [[f32; 16]; 16] {
    let mut matrix = [[0.0; 16]; 16];
    for lane in 0..WARP {
        let (group, thread) = (lane / 4, lane % 4);
        if ty.kind == Kind::Tf32 {
            for r in 0..depth / 2 {
                matrix[group + 8 * (r & 1)][thread + 4 * (r / 2)] =
                    element(fragment, ty, lane, r, 0);
            }
        } else {
            for (r, h) in (0..depth / 4).flat_map(|r| [(r, 0), (r, 1)]) {
                let column = thread * 2 + h + 8 * (r / 2);
                matrix[group + 8 * (r & 1)][column] = element(fragment, ty, lane, r, h);
            }
        }
    }
    matrix
}

/// B fragment to columns of the depth x 8 matrix (`matrix[n][k]`).
fn spread_b(fragment: &[Lanes], ty: PtxType, depth: usize) -> [[f32; 16]; 8] {
    let mut matrix = [[0.0; 16]; 8];
    for lane in 0..WARP {
        let (group, thread) = (lane / 4, lane % 4);
        if ty.kind == Kind::Tf32 {
            for r in 0..depth / 4 {
                matrix[group][thread + 4 * r] = element(fragment, ty, lane, r, 0);
            }
        } else {
            for (r, h) in (0..depth / 8).flat_map(|r| [(r, 0), (r, 1)]) {
                matrix[group][thread * 2 + h + 8 * r] = element(fragment, ty, lane, r, h);
            }
        }
    }
    matrix
}

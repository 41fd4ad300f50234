//! `wgmma.mma_async` m64nNk16 with both operands in shared memory, K-major.
//!
//! PTX ISA: "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions", "Matrix
//! Descriptor Format", "Strides". Written from the manual and **not yet compared with a device**.

use super::Context;
use crate::async_copy::swizzle;
use crate::error::{ErrorKind, Fault};
use crate::ir::{Opcode, Operand, Space};
use crate::numeric::half_to_f32;
use crate::products::{Product, Words, RUNNING};
use crate::types::PtxType;
use crate::warp::WARP;

/// Bytes of shared memory that are read at a time: four numbers.
const WORD: usize = 8;

/// A shared memory matrix descriptor.
struct Descriptor {
    start: u64,
    leading: u64,
    stride: u64,
    /// 0 none, 1 = 128 bytes, 2 = 64 bytes, 3 = 32 bytes.
    mode: u64,
}

impl Descriptor {
    fn decode(word: u64) -> Descriptor {
        Descriptor {
            start: (word & 0x3fff) << 4,
            leading: (word >> 16 & 0x3fff) << 4,
            stride: (word >> 32 & 0x3fff) << 4,
            mode: word >> 62,
        }
    }

    /// Address of a 16-bit element (row, k).
    fn address(&self, row: u64, k: u64) -> u64 {
        if self.mode == 0 {
            return self.start
                + row / 8 * self.stride
                + k / 8 * self.leading
                + row % 8 * 16
                + k % 8 * 2;
        }
        let (pitch, swizzle_mode) = match self.mode {
            1 => (128, 3),
            2 => (64, 2),
            _ => (32, 1),
        };
        let linear = self.start + row / 8 * self.stride + row % 8 * pitch + k * 2;
        swizzle(linear, swizzle_mode)
    }
}

impl Context<'_, '_> {
    pub(crate) fn wgmma(&mut self) -> Result<(), Fault> {
        match self.ins.mods.get(0) {
            "fence" => self.warp.products.fence(),
            "commit_group" => self.warp.products.commit(),
            "wait_group" => {
                let running = self.uniform(self.operand(0)?)? as usize;
                return self.wait_for_products(running);
            }
            "mma_async" => return self.wgmma_mma(),
            _ => return Err(Fault::unsupported("this wgmma operation")),
        }
        Ok(())
    }

    /// Every instruction: none but wgmma may touch sums while a product adds to them.
    #[inline]
    pub(crate) fn touch_sums(&mut self) -> Result<(), Fault> {
        if self.ins.opcode == Opcode::Wgmma || !self.warp.products.has_sums() {
            return Ok(());
        }
        let ins = self.ins;
        ins.operands.iter().try_for_each(|o| self.touch_sum(o))
    }

    fn touch_sum(&mut self, operand: &Operand) -> Result<(), Fault> {
        match operand {
            Operand::Register(r) if !self.warp.products.touch((self.frame, *r)) => {
                Err(Fault::new(ErrorKind::Race, RUNNING))
            }
            Operand::Vector(parts) => parts.iter().try_for_each(|part| self.touch_sum(part)),
            Operand::Memory(base, _) => self.touch_sum(base),
            _ => Ok(()),
        }
    }

    /// The device may read operands until their product is done: they must be what they were.
    fn wait_for_products(&mut self, running: usize) -> Result<(), Fault> {
        for product in self.warp.products.finish(running) {
            for &(address, word) in product.operands.iter().flatten() {
                if self.read_memory(0, (Space::Shared, address), WORD)? != word {
                    let message = format!(
                        "an operand of wgmma at shared offset {address} has changed before \
                         wgmma.wait_group has waited for its product"
                    );
                    return Err(Fault::new(ErrorKind::Race, message));
                }
            }
        }
        Ok(())
    }

    fn wgmma_mma(&mut self) -> Result<(), Fault> {
        let mods = &self.ins.mods;
        let shape = mods.list.iter().find_map(|m| m.strip_prefix("m64n"));
        let columns = shape
            .and_then(|s| s.strip_suffix("k16"))
            .and_then(|n| n.parse().ok());
        let columns: usize = columns.ok_or_else(|| Fault::unsupported("this wgmma shape"))?;
        let ty = self.ins.ty;
        if ty.bits != 16 || self.ins.mods.types().next() != PtxType::parse("f32") {
            return Err(Fault::unsupported("wgmma with these types"));
        }
        if matches!(self.operand(1)?, Operand::Vector(_)) {
            return Err(Fault::unsupported("wgmma with A in registers"));
        }
        if !self.warp.products.is_fenced() {
            let message = "wgmma without wgmma.fence behind the last access to its sums";
            return Err(Fault::new(ErrorKind::Race, message));
        }
        let a = Descriptor::decode(self.uniform(self.operand(1)?)?);
        let b = Descriptor::decode(self.uniform(self.operand(2)?)?);
        let accumulate = self.uniform(self.operand(3)?)? & 1 != 0;
        let immediate = |k: usize| match self.ins.operands.get(k) {
            Some(Operand::Immediate(v)) => *v as i64,
            _ => 0,
        };
        if immediate(6) != 0 || immediate(7) != 0 {
            return Err(Fault::unsupported("transposed wgmma operands"));
        }
        let (scale_a, scale_b) = (immediate(4) as f32, immediate(5) as f32);
        // Warp w of the warpgroup owns rows 16w to 16w+15.
        let first_row = (self.warp.index % 4 * 16) as u64;
        let (a, words_of_a) = self.wgmma_matrix(&a, ty, first_row, 16, scale_a)?;
        let (b, words_of_b) = self.wgmma_matrix(&b, ty, 0, columns as u64, scale_b)?;
        let registers = Self::parts(self.operand(0)?);
        for (i, register) in registers.iter().enumerate() {
            let mut values = self.read(register)?;
            for (lane, value) in values.iter_mut().enumerate().take(WARP) {
                let row = lane / 4 + 8 * (i / 2 % 2);
                let column = i / 4 * 8 + lane % 4 * 2 + i % 2;
                let sum: f32 = (0..16).map(|k| a[row][k] * b[column][k]).sum();
                let start = if accumulate {
                    f32::from_bits(*value as u32)
                } else {
                    0.0
                };
                *value = (start + sum).to_bits().into();
            }
            self.write(register, &values);
        }
        let sums = registers.iter().filter_map(|register| match register {
            Operand::Register(r) => Some((self.frame, *r)),
            _ => None,
        });
        let product = Product {
            sums: sums.collect(),
            operands: [words_of_a, words_of_b],
        };
        self.warp.products.start(product);
        Ok(())
    }

    /// Rows of 16 numbers, and the words of memory that they are.
    fn wgmma_matrix(
        &mut self,
        descriptor: &Descriptor,
        ty: PtxType,
        first: u64,
        rows: u64,
        scale: f32,
    ) -> Result<(Vec<[f32; 16]>, Words), Fault> {
        let mut matrix = vec![[0.0; 16]; rows as usize];
        let mut words = Words::with_capacity(4 * rows as usize);
        for (row, line) in (first..).zip(matrix.iter_mut()) {
            // Numbers of a word are neighbours, however rows are swizzled.
            for (k, elements) in (0..).step_by(WORD / 2).zip(line.chunks_mut(WORD / 2)) {
                let address = descriptor.address(row, k);
                let word = self.read_memory(0, (Space::Shared, address), WORD)?;
                words.push((address, word));
                for (i, element) in elements.iter_mut().enumerate() {
                    *element = scale * half_to_f32(ty, (word >> (16 * i)) as u16);
                }
            }
        }
        Ok((matrix, words))
    }
}

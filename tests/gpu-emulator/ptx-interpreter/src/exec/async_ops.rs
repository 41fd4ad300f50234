//! `cp.async`, `cp.async.bulk` and `cp.async.bulk.tensor` (load direction).
//!
//! PTX ISA: "Asynchronous copy: cp.async, cp.async.commit_group, cp.async.wait_group",
//! "cp.async.bulk", "cp.async.bulk.tensor", "Tensors: Swizzling modes".

use super::Context;
use crate::async_copy::{swizzle, BulkSource, PendingCopy, PendingTensorCopy, TensorMap};
use crate::error::{ErrorKind, Fault};
use crate::ir::{Operand, Space};
use crate::launch::AsyncTiming;
use crate::memory::WINDOW_MASK;
use crate::shadow::Access;
use crate::warp::lanes_of;

impl Context<'_, '_> {
    fn late(&self) -> bool {
        self.machine.options.async_timing == AsyncTiming::Late
    }

    pub(crate) fn async_copy(&mut self) -> Result<(), Fault> {
        let mods = &self.ins.mods;
        if mods.get(0) != "async" {
            return Err(Fault::unsupported("this form of cp"));
        }
        match (mods.get(1), mods.get(2)) {
            ("commit_group", _) => {
                for lane in lanes_of(self.mask) {
                    let group = std::mem::take(&mut self.warp.open_copies[lane]);
                    self.warp.copy_groups[lane].push(group);
                }
                Ok(())
            }
            ("wait_group", _) => {
                let keep = self.uniform(self.operand(0)?)? as usize;
                self.wait_groups(keep)
            }
            ("wait_all", _) => {
                for lane in lanes_of(self.mask) {
                    let group = std::mem::take(&mut self.warp.open_copies[lane]);
                    self.warp.copy_groups[lane].push(group);
                }
                self.wait_groups(0)
            }
            ("ca" | "cg", _) => self.issue_copies(),
            ("bulk", "tensor") => self.issue_tensor_copies(),
            // Stores are done at once, so there is nothing to commit or wait for.
            ("bulk", "commit_group" | "wait_group") => Ok(()),
            ("bulk", _) => self.issue_bulk_copies(),
            _ => Err(Fault::unsupported("this form of cp.async")),
        }
    }

    fn wait_groups(&mut self, keep: usize) -> Result<(), Fault> {
        for lane in lanes_of(self.mask) {
            let groups = &mut self.warp.copy_groups[lane];
            let done = groups.len().saturating_sub(keep);
            let landed: Vec<PendingCopy> = groups.drain(..done).flatten().collect();
            for copy in landed {
                self.land(lane, &copy)?;
            }
        }
        Ok(())
    }

    fn issue_copies(&mut self) -> Result<(), Fault> {
        let destination = self.addresses(self.operand(0)?)?;
        let source = self.addresses(self.operand(1)?)?;
        let size = self.value(2)?;
        let source_bytes = match self.ins.operands.get(3) {
            Some(operand) => self.read(operand)?,
            None => size,
        };
        for lane in lanes_of(self.mask) {
            let copy = PendingCopy {
                destination: destination[lane],
                source: source[lane],
                source_bytes: source_bytes[lane].min(size[lane]) as usize,
                size: size[lane] as usize,
            };
            let aligned = |address: u64| address.is_multiple_of(size[lane]);
            if !aligned(copy.destination & WINDOW_MASK) || !aligned(copy.source) {
                let message = format!("misaligned {}-byte cp.async", copy.size);
                return Err(Fault::new(ErrorKind::Misaligned, message).in_lane(lane));
            }
            if copy.source_bytes > 0 {
                // Checked now, when the lane that asks for it is known.
                let bytes = copy.source_bytes as u64;
                for k in (0..bytes).step_by(4) {
                    let step = 4.min(bytes - k);
                    let place = (Space::Global, copy.source + k);
                    self.locate(lane, place, step as usize, Access::Read)?;
                }
            }
            if self.late() {
                self.warp.open_copies[lane].push(copy);
            } else {
                self.land(lane, &copy)?;
            }
        }
        Ok(())
    }

    /// Writes one copy into shared memory.
    fn land(&mut self, lane: usize, copy: &PendingCopy) -> Result<(), Fault> {
        let place = (Space::Shared, copy.destination & WINDOW_MASK);
        let to = self.locate(lane, place, copy.size, Access::Write)?;
        // SAFETY: the source was checked when the copy was issued, the destination just now.
        unsafe {
            std::ptr::write_bytes(to, 0, copy.size);
            std::ptr::copy_nonoverlapping(copy.source as *const u8, to, copy.source_bytes);
        }
        Ok(())
    }

    /// `cp.async.bulk.shared.global [dst], [src], size, [mbarrier]`
    fn issue_bulk_copies(&mut self) -> Result<(), Fault> {
        if !self.ins.mods.get(2).starts_with("shared") || self.ins.operands.len() != 4 {
            return Err(Fault::unsupported("this direction of cp.async.bulk"));
        }
        let destination = self.addresses(self.operand(0)?)?;
        let source = self.addresses(self.operand(1)?)?;
        let size = self.value(2)?;
        let mbarrier = self.addresses(self.operand(3)?)?;
        for lane in lanes_of(self.mask) {
            let bytes = size[lane] & 0xffff_ffff;
            let all = (destination[lane] & WINDOW_MASK) | source[lane] | bytes;
            if !all.is_multiple_of(16) {
                let message = "cp.async.bulk needs 16-byte aligned addresses and size";
                return Err(Fault::new(ErrorKind::Misaligned, message).in_lane(lane));
            }
            let address = source[lane];
            self.issue_bulk(PendingTensorCopy {
                destination: destination[lane] & WINDOW_MASK,
                mbarrier: mbarrier[lane] & WINDOW_MASK,
                lane,
                source: BulkSource::Linear { address, bytes },
            })?;
        }
        Ok(())
    }

    /// `cp.async.bulk.tensor.2d.shared::cluster.global [dst], [map, {x, y}], [mbarrier]`
    fn issue_tensor_copies(&mut self) -> Result<(), Fault> {
        let (Operand::Memory(..), Operand::Vector(source)) = (self.operand(0)?, self.operand(1)?)
        else {
            return Err(Fault::unsupported("TMA stores"));
        };
        let destination = self.addresses(self.operand(0)?)?;
        let mbarrier = self.addresses(self.operand(2)?)?;
        let [map, Operand::Vector(coordinates)] = source.as_slice() else {
            return Err(Fault::invalid("tensor coordinates expected"));
        };
        let [x, y] = coordinates.as_slice() else {
            return Err(Fault::unsupported("tensor copies other than 2-D"));
        };
        let (map, x, y) = (self.read(map)?, self.read(x)?, self.read(y)?);
        for lane in lanes_of(self.mask) {
            let mut words = [0; 16];
            for (k, word) in words.iter_mut().enumerate() {
                *word = self.read_memory(lane, (Space::Generic, map[lane] + 8 * k as u64), 8)?;
            }
            let map = TensorMap::decode(&words)
                .ok_or_else(|| Fault::invalid("not a tensor map of the fake driver"))?;
            if !(destination[lane] & WINDOW_MASK).is_multiple_of(128) {
                let message = "TMA destination is not 128-byte aligned";
                return Err(Fault::new(ErrorKind::Misaligned, message).in_lane(lane));
            }
            self.issue_bulk(PendingTensorCopy {
                destination: destination[lane] & WINDOW_MASK,
                mbarrier: mbarrier[lane] & WINDOW_MASK,
                lane,
                source: BulkSource::Tensor {
                    map,
                    x: i64::from(x[lane] as i32),
                    y: i64::from(y[lane] as i32),
                },
            })?;
        }
        Ok(())
    }

    fn issue_bulk(&mut self, copy: PendingTensorCopy) -> Result<(), Fault> {
        if self.late() {
            self.block.tensor_copies.push(copy);
            Ok(())
        } else {
            self.land_bulk(&copy)
        }
    }

    /// Lands every bulk copy that completes on the given mbarrier.
    pub(crate) fn land_bulk_copies(&mut self, mbarrier: u64) -> Result<(), Fault> {
        let all = std::mem::take(&mut self.block.tensor_copies);
        let (due, later) = all.into_iter().partition(|c| c.mbarrier == mbarrier);
        self.block.tensor_copies = later;
        let due: Vec<PendingTensorCopy> = due;
        due.iter().try_for_each(|copy| self.land_bulk(copy))
    }

    fn land_bulk(&mut self, copy: &PendingTensorCopy) -> Result<(), Fault> {
        let bytes = match &copy.source {
            BulkSource::Linear { address, bytes } => {
                for k in (0..*bytes).step_by(8) {
                    let value = self.read_memory(copy.lane, (Space::Global, address + k), 8)?;
                    let place = (Space::Shared, copy.destination + k);
                    self.write_memory(copy.lane, place, 8, value)?;
                }
                *bytes
            }
            BulkSource::Tensor { map, x, y } => self.land_tile(copy, map, *x, *y)?,
        };
        self.complete_transaction(copy.mbarrier, bytes)
    }

    /// Copies one box of a 2-D tensor; elements outside the tensor are 0.
    fn land_tile(
        &mut self,
        copy: &PendingTensorCopy,
        map: &TensorMap,
        x: i64,
        y: i64,
    ) -> Result<u64, Fault> {
        let size = map.element_bytes;
        for row in 0..map.box_height {
            for column in 0..map.box_width {
                let (gx, gy) = (x + column as i64, y + row as i64);
                let inside =
                    (0..map.width as i64).contains(&gx) && (0..map.height as i64).contains(&gy);
                let value = if inside {
                    let address = map.base + gy as u64 * map.row_bytes + gx as u64 * size;
                    self.read_memory(copy.lane, (Space::Global, address), size as usize)?
                } else {
                    0
                };
                let to = copy.destination + (row * map.box_width + column) * size;
                let place = (Space::Shared, swizzle(to, map.swizzle));
                self.write_memory(copy.lane, place, size as usize, value)?;
            }
        }
        Ok(map.box_width * map.box_height * size)
    }
}

//! Memory: address resolution, bounds, alignment, and the shared-memory checks.
//!
//! PTX ISA: "State Spaces", "Generic Addressing", "Memory Consistency Model".
//!
//! Generic addresses carry their window in the top byte. Global memory is host memory: an address
//! is valid when it lies inside one region of the [`MemoryMap`].

use crate::block::Block;
use crate::error::{ErrorKind, Fault};
use crate::ir::Space;
use crate::shadow::{Access, Accessor};
use crate::warp::Warp;

pub(crate) const SHARED_WINDOW: u64 = 1 << 56;
pub(crate) const LOCAL_WINDOW: u64 = 2 << 56;
pub(crate) const PARAM_WINDOW: u64 = 3 << 56;
pub(crate) const WINDOW_MASK: u64 = SHARED_WINDOW - 1;
/// Largest local memory of one thread, as on real devices.
const LOCAL_LIMIT: u64 = 512 << 10;

/// Valid global memory, sorted by address.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    regions: Vec<(u64, u64)>,
}

impl MemoryMap {
    pub fn new(mut regions: Vec<(u64, u64)>) -> Self {
        regions.sort_unstable();
        MemoryMap { regions }
    }

    /// A copy with more regions.
    pub(crate) fn with(&self, more: impl Iterator<Item = (u64, u64)>) -> Self {
        MemoryMap::new(self.regions.iter().copied().chain(more).collect())
    }

    /// Is `bytes` at `address` inside one region? `last` caches the region index.
    #[inline]
    fn contains(&self, address: u64, bytes: u64, last: &mut usize) -> bool {
        let inside = |&(base, size): &(u64, u64)| {
            address >= base && address.wrapping_add(bytes) <= base + size
        };
        if self.regions.get(*last).is_some_and(inside) {
            return true;
        }
        let after = self.regions.partition_point(|r| r.0 <= address);
        if after > 0 && inside(&self.regions[after - 1]) {
            *last = after - 1;
            return true;
        }
        false
    }

    fn describe(&self, address: u64) -> String {
        let after = self.regions.partition_point(|r| r.0 <= address);
        match after.checked_sub(1).map(|i| self.regions[i]) {
            Some((base, size)) => {
                let past = address as i128 - (base + size) as i128;
                if past < 0 {
                    format!("the access crosses the end of an allocation of {size} bytes")
                } else {
                    format!("{past} bytes past an allocation of {size} bytes")
                }
            }
            None => "below every allocation".into(),
        }
    }
}

/// Which checks run.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    pub races: bool,
    pub unwritten: bool,
}

/// Splits a generic address into space and offset.
pub(crate) fn resolve_generic(address: u64) -> (Space, u64) {
    let offset = address & WINDOW_MASK;
    match address >> 56 {
        1 => (Space::Shared, offset),
        2 => (Space::Local, offset),
        3 => (Space::Param, offset),
        _ => (Space::Global, address),
    }
}

/// Everything an access needs besides the block and the warp.
pub(crate) struct MemoryContext<'a> {
    pub map: &'a MemoryMap,
    pub checks: Checks,
    pub params: &'a mut [u8],
}

impl MemoryContext<'_> {
    /// Checks one access by one lane and returns the host address.
    #[inline(always)]
    pub(crate) fn locate(
        &mut self,
        block: &mut Block,
        warp: &mut Warp,
        lane: usize,
        (space, address): (Space, u64),
        bytes: usize,
        access: Access,
    ) -> Result<*mut u8, Fault> {
        let (space, address) = match space {
            Space::Generic => resolve_generic(address),
            other => (other, address),
        };
        let result = match space {
            Space::Shared => {
                let by = Accessor {
                    thread: (warp.index * 32 + lane) as u16,
                    sync: warp.sync_epoch as u16,
                    epoch: block.epoch,
                    access,
                };
                self.shared(block, address, bytes, by)
            }
            Space::Local => local(warp, lane, address & WINDOW_MASK, bytes),
            Space::Param => self.param(address & WINDOW_MASK, bytes, access),
            _ => self.global(block, address, bytes as u64, access),
        };
        match result {
            Ok(at) => Ok(at),
            Err(fault) => Err(fault.in_lane(lane)),
        }
    }

    #[inline]
    fn global(
        &self,
        block: &mut Block,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> Result<*mut u8, Fault> {
        let aligned = address & (bytes.next_power_of_two().min(16) - 1) == 0;
        if aligned && self.map.contains(address, bytes, &mut block.last_region) {
            return Ok(address as *mut u8);
        }
        Err(self.bad_global(address, bytes, access, aligned))
    }

    #[cold]
    fn bad_global(&self, address: u64, bytes: u64, access: Access, aligned: bool) -> Fault {
        if !aligned {
            let message = format!("misaligned {bytes}-byte access at {address:#x}");
            return Fault::new(ErrorKind::Misaligned, message);
        }
        let verb = match access {
            Access::Read => "read",
            _ => "write",
        };
        let place = self.map.describe(address);
        let message =
            format!("global {verb} out of bounds: {bytes} bytes at {address:#x} ({place})");
        Fault::new(ErrorKind::OutOfBounds, message)
    }

    fn param(&mut self, offset: u64, bytes: usize, access: Access) -> Result<*mut u8, Fault> {
        if access != Access::Read {
            return Err(Fault::invalid("write to a kernel parameter"));
        }
        if offset as usize + bytes > self.params.len() {
            let message = format!("parameter access out of bounds at offset {offset}");
            return Err(Fault::new(ErrorKind::OutOfBounds, message));
        }
        Ok(self.params[offset as usize..].as_mut_ptr())
    }

    #[inline(always)]
    fn shared(
        &self,
        block: &mut Block,
        address: u64,
        bytes: usize,
        by: Accessor,
    ) -> Result<*mut u8, Fault> {
        let offset = address as u32 as usize;
        if offset + bytes > block.shared.len() || offset & (bytes.min(16) - 1) != 0 {
            return Err(bad_shared(offset, bytes, block.shared.len()));
        }
        if self.checks.races || self.checks.unwritten {
            block.shadow.access(offset, bytes, by, self.checks)?;
        }
        Ok(block.shared[offset..].as_mut_ptr())
    }
}

#[cold]
fn bad_shared(offset: usize, bytes: usize, size: usize) -> Fault {
    if offset + bytes > size {
        let message =
            format!("shared access out of bounds: {bytes} bytes at offset {offset} of {size}");
        return Fault::new(ErrorKind::OutOfBounds, message);
    }
    let message = format!("misaligned {bytes}-byte shared access at offset {offset}");
    Fault::new(ErrorKind::Misaligned, message)
}

fn local(warp: &mut Warp, lane: usize, offset: u64, bytes: usize) -> Result<*mut u8, Fault> {
    let end = offset + bytes as u64;
    if end > LOCAL_LIMIT {
        let message = format!("local access out of bounds: {bytes} bytes at offset {offset}");
        return Err(Fault::new(ErrorKind::OutOfBounds, message));
    }
    if !offset.is_multiple_of(bytes.min(16) as u64) {
        let message = format!("misaligned {bytes}-byte local access at offset {offset}");
        return Err(Fault::new(ErrorKind::Misaligned, message));
    }
    let memory = &mut warp.local[lane];
    if memory.len() < end as usize {
        // Uninitialised local memory reads as NaN.
        memory.resize((end as usize).next_multiple_of(256), 0xff);
    }
    Ok(memory[offset as usize..].as_mut_ptr())
}

/// Reads 1, 2, 4 or 8 bytes.
///
/// # Safety
/// `at` must be valid for `bytes` bytes and aligned to them.
#[inline]
pub(crate) unsafe fn load(at: *const u8, bytes: usize) -> u64 {
    match bytes {
        1 => u64::from(at.read_volatile()),
        2 => u64::from(at.cast::<u16>().read_volatile()),
        4 => u64::from(at.cast::<u32>().read_volatile()),
        _ => at.cast::<u64>().read_volatile(),
    }
}

/// Writes 1, 2, 4 or 8 bytes.
///
/// # Safety
/// `at` must be valid for `bytes` bytes and aligned to them.
#[inline]
pub(crate) unsafe fn store(at: *mut u8, bytes: usize, value: u64) {
    match bytes {
        1 => at.write_volatile(value as u8),
        2 => at.cast::<u16>().write_volatile(value as u16),
        4 => at.cast::<u32>().write_volatile(value as u32),
        _ => at.cast::<u64>().write_volatile(value),
    }
}

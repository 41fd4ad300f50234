//! Device, managed and pinned memory: all of it is host memory.

use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ptx_interpreter::MemoryMap;

use crate::config::config;
use crate::error::{self, report, CuResult};
use crate::state::{Handle, State};

/// Freed blocks are kept this long (in bytes), so that late uses are recognised.
const QUARANTINE_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Device,
    Managed,
    /// Pinned host memory.
    Pinned,
    /// Host memory of the program, registered with `cuMemHostRegister`.
    Registered,
}

#[derive(Clone, Debug)]
pub(crate) struct Allocation {
    pub bytes: u64,
    pub kind: Kind,
    pub device: usize,
    pub context: Handle,
    /// False between `cuMemAllocAsync` and the moment its stream gets there.
    pub ready: bool,
    /// `cuMemFreeAsync` has been called.
    pub freeing: bool,
}

#[derive(Default)]
pub(crate) struct Memory {
    allocations: BTreeMap<u64, Allocation>,
    used: HashMap<usize, u64>,
    quarantine: VecDeque<(u64, u64)>,
    quarantined: u64,
    generation: u64,
    maps: HashMap<usize, (u64, Arc<MemoryMap>)>,
}

fn layout(bytes: u64) -> Option<Layout> {
    let bytes = usize::try_from(bytes.max(1).next_multiple_of(256)).ok()?;
    Layout::from_size_align(bytes, 256).ok()
}

impl Memory {
    pub(crate) fn allocate(
        &mut self,
        bytes: u64,
        kind: Kind,
        device: usize,
        context: Handle,
    ) -> CuResult<u64> {
        if bytes == 0 {
            return Err(error::INVALID_VALUE);
        }
        let on_device = matches!(kind, Kind::Device | Kind::Managed);
        if on_device && self.free_bytes(device) < bytes {
            return Err(error::OUT_OF_MEMORY);
        }
        let layout = layout(bytes).ok_or(error::OUT_OF_MEMORY)?;
        // SAFETY: the layout has a non-zero size; the block is filled before anyone sees it.
        let address = unsafe {
            let block = std::alloc::alloc(layout);
            if block.is_null() {
                return Err(error::OUT_OF_MEMORY);
            }
            // All ones: NaN in every float format.
            block.write_bytes(0xff, layout.size());
            block as u64
        };
        if on_device {
            *self.used.entry(device).or_default() += bytes;
        }
        let allocation = Allocation {
            bytes,
            kind,
            device,
            context,
            ready: true,
            freeing: false,
        };
        self.insert(address, allocation);
        Ok(address)
    }

    /// Adds memory that someone else owns.
    pub(crate) fn insert(&mut self, address: u64, allocation: Allocation) {
        self.allocations.insert(address, allocation);
        self.generation += 1;
    }

    /// Something other than the allocations changed what kernels may touch.
    pub(crate) fn invalidate_maps(&mut self) {
        self.generation += 1;
    }

    pub(crate) fn set_ready(&mut self, address: u64, ready: bool) {
        if let Some(allocation) = self.allocations.get_mut(&address) {
            allocation.ready = ready;
            self.generation += 1;
        }
    }

    /// Notes that a stream will free the block; false if it is none, or if that was said before.
    pub(crate) fn begin_free(&mut self, address: u64) -> bool {
        let allocation = self.allocations.get_mut(&address);
        allocation.is_some_and(|a| !std::mem::replace(&mut a.freeing, true))
    }

    /// Forgets a block and, unless the program owns it, poisons and frees it.
    pub(crate) fn free(&mut self, address: u64) -> CuResult<Allocation> {
        let allocation = self
            .allocations
            .remove(&address)
            .ok_or(error::INVALID_VALUE)?;
        self.generation += 1;
        if allocation.kind == Kind::Registered {
            return Ok(allocation);
        }
        if let Some(used) = self.used.get_mut(&allocation.device) {
            if allocation.kind != Kind::Pinned {
                *used -= allocation.bytes;
            }
        }
        // SAFETY: the block was allocated here with this size.
        unsafe { (address as *mut u8).write_bytes(0xff, allocation.bytes as usize) };
        self.quarantine.push_back((address, allocation.bytes));
        self.quarantined += allocation.bytes;
        while self.quarantined > QUARANTINE_BYTES {
            let Some((address, bytes)) = self.quarantine.pop_front() else {
                break;
            };
            self.quarantined -= bytes;
            if let Some(layout) = layout(bytes) {
                // SAFETY: same layout as at allocation.
                unsafe { std::alloc::dealloc(address as *mut u8, layout) };
            }
        }
        Ok(allocation)
    }

    pub(crate) fn free_context(&mut self, context: Handle) {
        let gone = self
            .allocations
            .iter()
            .filter(|(_, a)| a.context == context);
        let gone: Vec<u64> = gone.map(|(address, _)| *address).collect();
        for address in gone {
            let _ = self.free(address);
        }
    }

    pub(crate) fn free_bytes(&self, device: usize) -> u64 {
        config()
            .memory
            .saturating_sub(self.used.get(&device).copied().unwrap_or(0))
    }

    /// The allocation that holds all of the range.
    pub(crate) fn find(&self, address: u64, bytes: u64) -> Option<(u64, &Allocation)> {
        let (base, allocation) = self.allocations.range(..=address).next_back()?;
        let inside = address.checked_add(bytes)? <= base + allocation.bytes;
        inside.then_some((*base, allocation))
    }

    /// Is it memory that a copy can use without staging?
    pub(crate) fn is_pinned(&self, address: u64) -> bool {
        self.find(address, 1).is_some()
    }

    fn was_freed(&self, address: u64) -> bool {
        let inside = |&(base, bytes): &(u64, u64)| (base..base + bytes).contains(&address);
        self.quarantine.iter().any(inside)
    }

    /// Why a range is not valid device memory.
    pub(crate) fn explain(&self, address: u64, bytes: u64) -> String {
        if self.was_freed(address) {
            return format!("{bytes} bytes at {address:#x}: the memory has been freed");
        }
        match self.allocations.range(..=address).next_back() {
            Some((base, a)) if address < base + a.bytes => {
                let over = address + bytes - base - a.bytes;
                format!(
                    "{bytes} bytes at {address:#x}: {over} too many for an allocation of {} bytes",
                    a.bytes
                )
            }
            _ => format!("{bytes} bytes at {address:#x}: not device memory"),
        }
    }

    /// Checks that a range may be used by work that runs now.
    pub(crate) fn check_now(&self, address: u64, bytes: u64) -> Result<(), String> {
        match self.find(address, bytes) {
            _ if bytes == 0 => Ok(()),
            None => Err(self.explain(address, bytes)),
            Some((_, a)) if !a.ready => Err(format!(
                "memory at {address:#x} is used before the stream that allocates it gets there (missing event?)"
            )),
            Some(_) => Ok(()),
        }
    }
}

impl State {
    /// The memory that kernels on a device may touch.
    pub(crate) fn memory_map(&mut self, device: usize) -> Arc<MemoryMap> {
        let generation = self.memory.generation;
        if let Some((known, map)) = self.memory.maps.get(&device) {
            if *known == generation {
                return map.clone();
            }
        }
        let visible = |a: &Allocation| {
            let reachable = a.device == device || self.peers.contains(&(device, a.device));
            a.ready && (reachable || a.kind != Kind::Device)
        };
        let regions = self.memory.allocations.iter().filter(|(_, a)| visible(a));
        let map = Arc::new(MemoryMap::new(
            regions.map(|(b, a)| (*b, a.bytes)).collect(),
        ));
        self.memory.maps.insert(device, (generation, map.clone()));
        map
    }

    /// Checks a copy argument at the time of the call.
    pub(crate) fn check_range(&self, call: &str, address: u64, bytes: usize) -> CuResult {
        if bytes == 0 || self.memory.find(address, bytes as u64).is_some() {
            return Ok(());
        }
        report!("{call}: {}", self.memory.explain(address, bytes as u64));
        Err(error::INVALID_VALUE)
    }
}

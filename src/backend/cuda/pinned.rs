//! Host memory that a GPU copies from and to by itself.

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUevent_flags};

use super::device::Device;

/// Bytes of a slot: what is copied at a time.
const SLOT_BYTES: usize = 1 << 20;

/// Slots: while one is filled, others are on their way.
const SLOTS: usize = 4;

/// What uploads of a step go through, so that the caller's memory is free when they return and the
/// GPU copies while the next piece is fetched.
pub(super) struct Staging {
    /// Made at the first upload.
    slots: Vec<Slot>,
    next: usize,
}

/// Pinned memory, free again when its event has happened.
struct Slot {
    start: *mut u8,
    copied: sys::CUevent,
}

// SAFETY: memory and a handle, used under the device's mutex.
unsafe impl Send for Slot {}

impl Staging {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            next: 0,
        }
    }

    /// Queues a copy of `bytes` to `pointer` on the compute stream of `device`, which is bound.
    pub(super) fn upload(&mut self, device: &Device, bytes: &[u8], pointer: sys::CUdeviceptr) {
        let mut copied = self.prepare(device);
        let pieces = bytes
            .chunks(SLOT_BYTES)
            .zip((pointer..).step_by(SLOT_BYTES));
        for (piece, pointer) in pieces {
            copied = copied && self.upload_piece(device, piece, pointer);
        }
    }

    fn prepare(&mut self, device: &Device) -> bool {
        while self.slots.len() < SLOTS {
            match Slot::new() {
                Ok(slot) => self.slots.push(slot),
                Err(error) => return device.check("cuMemHostAlloc", Err(error)),
            }
        }
        true
    }

    fn upload_piece(&mut self, device: &Device, piece: &[u8], to: sys::CUdeviceptr) -> bool {
        let slot = &self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        // SAFETY: after its event nobody reads the slot; the piece fits, and the caller's view
        // covers the target.
        let copied = unsafe {
            result::event::synchronize(slot.copied).and_then(|()| {
                std::ptr::copy_nonoverlapping(piece.as_ptr(), slot.start, piece.len());
                let staged = std::slice::from_raw_parts(slot.start, piece.len());
                result::memcpy_htod_async(to, staged, device.compute)?;
                result::event::record(slot.copied, device.compute)
            })
        };
        device.check("cuMemcpyHtoDAsync", copied)
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// The device's context is bound, and its streams are idle.
    pub(super) unsafe fn free(&mut self) {
        for slot in self.slots.drain(..) {
            // SAFETY: made in `Slot::new`, idle.
            unsafe {
                let _ = result::free_host(slot.start.cast());
                let _ = result::event::destroy(slot.copied);
            }
        }
    }
}

/// Pinned memory where copies to the host land that are waited for together.
pub(super) struct Landing {
    /// Null where there is none.
    start: *mut u8,
    bytes: usize,
}

// SAFETY: memory, used under the device's mutex.
unsafe impl Send for Landing {}

impl Landing {
    pub(super) fn new() -> Self {
        Self {
            start: std::ptr::null_mut(),
            bytes: 0,
        }
    }

    /// Copies from device memory to the host, behind what the compute stream of `device` has been given,
    /// and waits once for all of it.
    pub(super) fn collect(&mut self, device: &Device, parts: &mut [(sys::CUdeviceptr, &mut [u8])]) {
        device.flush();
        let bytes = parts.iter().map(|(_, to)| to.len()).sum();
        if !self.reserve(device, bytes) {
            return device.synchronize();
        }
        // SAFETY: so many bytes are there, initialised, and nobody else's.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(self.start, bytes) };
        for (from, to) in &*parts {
            let (landing, behind) = rest.split_at_mut(to.len());
            rest = behind;
            if !landing.is_empty() {
                // SAFETY: the caller's view covers so many bytes, and the landing is read behind the wait.
                device.check("cuMemcpyDtoHAsync", unsafe {
                    result::memcpy_dtoh_async(landing, *from, device.compute)
                });
            }
        }
        device.synchronize();
        // SAFETY: as above; the copies are over.
        let mut rest = unsafe { std::slice::from_raw_parts(self.start, bytes) };
        for (_, to) in parts {
            let (landed, behind) = rest.split_at(to.len());
            rest = behind;
            to.copy_from_slice(landed);
        }
    }

    /// Whether there are so many bytes, which are never none.
    fn reserve(&mut self, device: &Device, bytes: usize) -> bool {
        if self.start.is_null() || bytes > self.bytes {
            let bytes = bytes.max(1);
            // SAFETY: nothing is on its way to what there was; a context is bound. What is new is initialised.
            let made = unsafe {
                self.free();
                result::malloc_host(bytes, 0).map(|start| {
                    start.cast::<u8>().write_bytes(0, bytes);
                    start.cast()
                })
            };
            match made {
                Ok(start) => *self = Self { start, bytes },
                Err(error) => return device.check("cuMemHostAlloc", Err(error)),
            }
        }
        true
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// The device's context is bound, and nothing is on its way here.
    pub(super) unsafe fn free(&mut self) {
        if !self.start.is_null() {
            // SAFETY: made in `reserve`, and freed once.
            let _ = unsafe { result::free_host(self.start.cast()) };
        }
        *self = Self::new();
    }
}

impl Slot {
    fn new() -> Result<Self, DriverError> {
        let copied = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: a context is bound. No flags: write-combined memory would be slow to read.
        let start = unsafe { result::malloc_host(SLOT_BYTES, 0) }?;
        Ok(Self {
            start: start.cast(),
            copied,
        })
    }
}

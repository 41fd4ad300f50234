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

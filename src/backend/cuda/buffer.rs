//! An allocation in device memory.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::device::{Device, allocate};
use super::view::{View, ViewMut};
use crate::backend::{BackendError, Element, RegionOwner};

/// A fixed-length array in device memory, aligned to 256 bytes.
#[derive(Debug)]
pub struct Buffer<T> {
    device: Arc<Device>,
    /// Null where there are no elements: the driver gives no empty memory.
    pointer: CUdeviceptr,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// `len` elements, zeroed on the compute stream; `what` names them in an error.
    pub(super) fn zeroed(
        device: &Arc<Device>,
        what: &'static str,
        len: usize,
    ) -> Result<Self, BackendError> {
        device.bind();
        let bytes = len.saturating_mul(size_of::<T>());
        let mut pointer = 0;
        if bytes > 0 {
            pointer = allocate(device.ordinal, what, bytes)?;
            // Held so that nobody makes a graph of what the stream is given now: another thread may be here.
            let mut queue = device.queue();
            queue.flush(device);
            // SAFETY: the memory was just allocated, with this size.
            device.check("cuMemsetD8Async", unsafe {
                result::memset_d8_async(pointer, 0, bytes, device.compute)
            });
        }
        Ok(Self {
            device: Arc::clone(device),
            pointer,
            len,
            element: PhantomData,
        })
    }

    pub(super) fn view(&self) -> View<'_, T> {
        View::new(self.pointer, self.len)
    }

    pub(super) fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::new(self.pointer, self.len)
    }
}

impl<T: Element> RegionOwner for Buffer<T> {}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.pointer != 0 {
            self.device.flush();
            // SAFETY: allocated in `zeroed`, and no view outlives the buffer; the driver frees
            // memory only after the work that was queued before.
            self.device
                .check("cuMemFree", unsafe { result::free_sync(self.pointer) });
        }
    }
}

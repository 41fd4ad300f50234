//! What a communicator does with a GPU, on a stream of its own and on its own thread.
//!
//! Unlike kernels these say at once what failed: there is nobody to ask later.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdeviceptr};

use super::Cuda;
use super::buffer::Buffer;
use super::device::{Device, describe};
use super::view::View;
use crate::backend::{BackendError, Element, Fence, Region};

/// A region in device memory with a region of the same length in host memory.
#[derive(Debug)]
pub(crate) struct Mirrored<T> {
    /// Before the memory itself, so that it is dropped first.
    _pinned: Pinned,
    device: Region<T>,
    host: Region<T>,
}

/// Host memory that the GPU copies from and to by itself; forgotten by the driver when dropped.
#[derive(Debug)]
struct Pinned {
    device: Arc<Device>,
    /// Null where the driver does not take the memory: copies are slower then.
    start: *mut c_void,
}

// SAFETY: an address that is only handed to the driver.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Cuda {
    /// Lets what the communicator queues from now on begin after `fence`.
    pub(crate) fn after(&self, fence: Fence) -> Result<(), BackendError> {
        self.done("cuStreamWaitEvent", self.device.after(fence))
    }

    /// Makes the GPU the calling thread's, for calls of its driver.
    pub(crate) fn bind(&self) {
        self.device.bind();
    }

    /// The stream that the communicator queues its work on.
    pub(crate) fn reduce_stream(&self) -> sys::CUstream {
        self.device.reduce
    }

    /// What no other GPU is called, on any host.
    pub(crate) fn uuid(&self) -> Result<[u8; 16], BackendError> {
        let uuid = self.device.uuid();
        self.done("cuDeviceGetUuid", uuid)
    }

    /// Turns a failed call of the driver into an error that names the GPU.
    pub(crate) fn done<R>(
        &self,
        operation: &'static str,
        result: Result<R, DriverError>,
    ) -> Result<R, BackendError> {
        result.map_err(|error| self.device.failure(operation, error))
    }

    /// Waits for all that the communicator has queued.
    pub(crate) fn synchronize_reduce(&self) -> Result<(), BackendError> {
        self.device.bind();
        // SAFETY: the stream lives as long as the device.
        self.done("cuStreamSynchronize", unsafe {
            result::stream::synchronize(self.device.reduce)
        })
    }

    /// A zeroed region in this GPU's memory, called `id`.
    pub(crate) fn region<T: Element>(
        &self,
        len: usize,
        id: usize,
    ) -> Result<Region<T>, BackendError> {
        let mut buffer = Buffer::<T>::zeroed(&self.device, "a region", len)?;
        let start = buffer.view_mut().pointer as *mut T;
        // SAFETY: the memory lives as long as the buffer. It is not the host's to read, which is
        // what `Region::slice` asks of its callers.
        Ok(unsafe { Region::new(start, len, id, Arc::new(buffer)) })
    }

    /// Pairs a region in this GPU's memory with one in the host's.
    pub(crate) fn mirror<T: Element>(&self, device: Region<T>, host: Region<T>) -> Mirrored<T> {
        assert_eq!(device.len(), host.len(), "a mirror of another length");
        Mirrored {
            _pinned: Pinned::new(&self.device, &host),
            device,
            host,
        }
    }

    /// Queues a copy of `range` from the device to the host.
    ///
    /// # Safety
    /// Nobody touches the range on the host, or writes it on the device, before the communicator's
    /// stream has come past the copy.
    pub(crate) unsafe fn copy_down<T: Element>(
        &self,
        memory: &Mirrored<T>,
        range: Range<usize>,
    ) -> Result<(), BackendError> {
        // SAFETY: the caller's promise.
        unsafe {
            let host = memory.host.slice_mut(range.clone());
            self.transfer("cuMemcpyDtoHAsync", |stream| {
                result::memcpy_dtoh_async(host, address(&memory.device, &range), stream)
            })
        }
    }

    /// Queues a copy of `range` from the host to the device.
    ///
    /// # Safety
    /// Nobody writes the range on the host, or touches it on the device, before the communicator's
    /// stream has come past the copy.
    pub(crate) unsafe fn copy_up<T: Element>(
        &self,
        memory: &Mirrored<T>,
        range: Range<usize>,
    ) -> Result<(), BackendError> {
        // SAFETY: the caller's promise.
        unsafe {
            let host = memory.host.slice(range.clone());
            self.transfer("cuMemcpyHtoDAsync", |stream| {
                result::memcpy_htod_async(address(&memory.device, &range), host, stream)
            })
        }
    }

    fn transfer(
        &self,
        operation: &'static str,
        call: impl FnOnce(sys::CUstream) -> Result<(), DriverError>,
    ) -> Result<(), BackendError> {
        self.device.bind();
        self.done(operation, call(self.device.reduce))
    }
}

impl Pinned {
    fn new<T: Element>(device: &Arc<Device>, host: &Region<T>) -> Self {
        device.bind();
        let (start, bytes) = (host.as_ptr().cast(), host.len() * size_of::<T>());
        let mut pinned = Self {
            device: Arc::clone(device),
            start: std::ptr::null_mut(),
        };
        if bytes == 0 {
            return pinned;
        }
        // SAFETY: the region is so long, and outlives the registration.
        match unsafe { sys::cuMemHostRegister_v2(start, bytes, 0) }.result() {
            Ok(()) => pinned.start = start,
            Err(error) => tracing::warn!(
                "{bytes} bytes of host memory cannot be pinned, copies are slower: {}",
                describe(error)
            ),
        }
        pinned
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if !self.start.is_null() {
            self.device.bind();
            // SAFETY: registered in `new`; the driver ends the copies that use it first.
            let _ = unsafe { sys::cuMemHostUnregister(self.start) };
        }
    }
}

/// Where `range` of a region lies on the device.
fn address<T: Element>(region: &Region<T>, range: &Range<usize>) -> CUdeviceptr {
    View::<T>::new(region.as_ptr() as CUdeviceptr, region.len())
        .slice(range.clone())
        .pointer
}

//! The functions of the fake driver that this library uses.
//!
//! The driver is the `libcuda.so` that the process has already loaded (or would load); it must be
//! the fake one, since the streams of a real driver cannot run our operations.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::OnceLock;

use crate::result::{failure, NcclError, NcclResult};

pub(crate) type Stream = usize;
pub(crate) type Step = unsafe extern "C" fn(*mut c_void) -> c_int;
pub(crate) type Release = unsafe extern "C" fn(*mut c_void);

pub(crate) struct Driver {
    pub enqueue_host: unsafe extern "C" fn(Stream, Step, Release, *mut c_void) -> c_int,
    pub progress: unsafe extern "C" fn(Stream),
    pub resolve_stream: unsafe extern "C" fn(Stream) -> Stream,
    pub check_range: unsafe extern "C" fn(u64, usize, *mut c_char, usize) -> c_int,
    stream_is_capturing: unsafe extern "C" fn(Stream, *mut c_int) -> c_int,
    ctx_get_device: unsafe extern "C" fn(*mut c_int) -> c_int,
    device_get_uuid: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int,
    pub mem_alloc: unsafe extern "C" fn(*mut u64, usize) -> c_int,
    pub mem_free: unsafe extern "C" fn(u64) -> c_int,
}

/// A handle on the library that is loaded, or that the loader would find.
unsafe fn library() -> *mut c_void {
    for flags in [libc::RTLD_NOW | libc::RTLD_NOLOAD, libc::RTLD_NOW] {
        for name in [c"libcuda.so.1", c"libcuda.so"] {
            let handle = libc::dlopen(name.as_ptr(), flags);
            if !handle.is_null() {
                return handle;
            }
        }
    }
    libc::RTLD_DEFAULT
}

unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
    let address = libc::dlsym(library, name.as_ptr());
    // SAFETY: F is a function pointer type; the caller names the right function.
    (!address.is_null()).then(|| std::mem::transmute_copy::<*mut c_void, F>(&address))
}

unsafe fn load() -> Option<Driver> {
    let library = library();
    let version: unsafe extern "C" fn() -> c_int = symbol(library, c"fake_cuda_interface_version")?;
    if version() != 2 {
        return None;
    }
    Some(Driver {
        enqueue_host: symbol(library, c"fake_cuda_enqueue_host")?,
        progress: symbol(library, c"fake_cuda_progress")?,
        resolve_stream: symbol(library, c"fake_cuda_resolve_stream")?,
        check_range: symbol(library, c"fake_cuda_check_range")?,
        stream_is_capturing: symbol(library, c"cuStreamIsCapturing")?,
        ctx_get_device: symbol(library, c"cuCtxGetDevice")?,
        device_get_uuid: symbol(library, c"cuDeviceGetUuid_v2")?,
        mem_alloc: symbol(library, c"cuMemAlloc_v2")?,
        mem_free: symbol(library, c"cuMemFree_v2")?,
    })
}

pub(crate) fn driver() -> NcclResult<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    if std::env::var("REQUIRE_REAL_GPU").is_ok_and(|v| !v.is_empty() && v != "0") {
        let why = "REQUIRE_REAL_GPU is set, but this libnccl.so is the emulator; \
                   take its directory off LD_LIBRARY_PATH";
        return Err(failure(NcclError::System, why));
    }
    // SAFETY: the symbols have the types declared by fake-cuda, whose version was checked.
    let driver = DRIVER.get_or_init(|| unsafe { load() });
    driver.as_ref().ok_or_else(|| {
        let why = "this libnccl.so is the emulator and needs the libcuda.so of the emulator, \
                   but another one (or none) was found; check LD_LIBRARY_PATH";
        failure(NcclError::System, why)
    })
}

impl Driver {
    /// Ordinal of the current device.
    pub(crate) fn current_device(&self) -> NcclResult<c_int> {
        let mut device = -1;
        // SAFETY: the argument is a valid pointer.
        match unsafe { (self.ctx_get_device)(&mut device) } {
            0 => Ok(device),
            code => Err(failure(
                NcclError::UnhandledCuda,
                format!("no current CUDA context (error {code})"),
            )),
        }
    }

    pub(crate) fn is_capturing(&self, stream: Stream) -> bool {
        let mut status = 0;
        // SAFETY: the argument is a valid pointer.
        unsafe { (self.stream_is_capturing)(stream, &mut status) == 0 && status != 0 }
    }

    /// Number of the physical device behind an ordinal.
    pub(crate) fn physical(&self, ordinal: c_int) -> NcclResult<u32> {
        let mut uuid = [0; 16];
        // SAFETY: the argument is a valid pointer.
        match unsafe { (self.device_get_uuid)(&mut uuid, ordinal) } {
            0 => Ok(uuid[15].into()),
            code => Err(failure(
                NcclError::UnhandledCuda,
                format!("no CUDA device {ordinal} (error {code})"),
            )),
        }
    }

    pub(crate) fn check(&self, address: u64, bytes: usize) -> Result<(), String> {
        let mut text = [0 as c_char; 256];
        // SAFETY: the buffer has the stated length.
        let bad = unsafe { (self.check_range)(address, bytes, text.as_mut_ptr(), text.len()) };
        if bad == 0 {
            return Ok(());
        }
        // SAFETY: the driver has written a terminated string.
        let text = unsafe { CStr::from_ptr(text.as_ptr()) };
        Err(text.to_string_lossy().into_owned())
    }
}

//! The functions of the fake driver that this library uses.
//!
//! The driver is the `libcuda.so` that the process has already loaded; it must be the fake one, since the
//! streams of a real driver cannot run our operations.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::OnceLock;

use crate::status::{Failure, LtResult, Status};

pub(crate) type Stream = usize;
type Step = unsafe extern "C" fn(*mut c_void) -> c_int;
type Release = unsafe extern "C" fn(*mut c_void);

pub(crate) struct Driver {
    enqueue: unsafe extern "C" fn(Stream, Step, Release, *mut c_void) -> c_int,
    check_range: unsafe extern "C" fn(u64, usize, *mut c_char, usize) -> c_int,
}

unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
    let address = libc::dlsym(library, name.as_ptr());
    // SAFETY: F is a function pointer type; the caller names the right function.
    (!address.is_null()).then(|| std::mem::transmute_copy::<*mut c_void, F>(&address))
}

unsafe fn load() -> Option<Driver> {
    let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD;
    let library = libc::dlopen(c"libcuda.so.1".as_ptr(), flags);
    if library.is_null() {
        return None;
    }
    let version: unsafe extern "C" fn() -> c_int = symbol(library, c"fake_cuda_interface_version")?;
    if version() != 2 {
        return None;
    }
    Some(Driver {
        enqueue: symbol(library, c"fake_cuda_enqueue_kernel")?,
        check_range: symbol(library, c"fake_cuda_check_range")?,
    })
}

pub(crate) fn driver() -> LtResult<&'static Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    let refused = |why: &str| Failure {
        status: Status::NotInitialized,
        message: why.to_owned(),
    };
    if std::env::var("REQUIRE_REAL_GPU").is_ok_and(|v| !v.is_empty() && v != "0") {
        return Err(refused(
            "REQUIRE_REAL_GPU is set, but this libcublasLt.so is the emulator; take its directory off \
             LD_LIBRARY_PATH",
        ));
    }
    // SAFETY: the symbols have the types declared by fake-cuda, whose version was checked.
    let driver = DRIVER.get_or_init(|| unsafe { load() });
    driver.as_ref().ok_or_else(|| {
        refused(
            "this libcublasLt.so is the emulator and needs the libcuda.so of the emulator, but another \
             one (or none) is loaded; check LD_LIBRARY_PATH",
        )
    })
}

impl Driver {
    /// Runs `work` when the stream gets to it, once for each replay where the stream is captured; an error
    /// makes the context unusable, as that of a kernel does.
    pub(crate) fn enqueue<W>(&self, stream: Stream, work: W) -> LtResult
    where
        W: Fn() -> Result<(), String> + Send + Sync,
    {
        unsafe extern "C" fn step<W: Fn() -> Result<(), String>>(data: *mut c_void) -> c_int {
            // SAFETY: the data are the `work` of this very type.
            match unsafe { &*data.cast::<W>() }() {
                Ok(()) => 0,
                Err(message) => {
                    eprintln!("fake-cublaslt: {message}");
                    -1
                }
            }
        }
        unsafe extern "C" fn release<W>(data: *mut c_void) {
            // SAFETY: made from a box of this very type, and released once.
            drop(unsafe { Box::from_raw(data.cast::<W>()) });
        }
        let data = Box::into_raw(Box::new(work)).cast();
        // SAFETY: both functions take data of this type; they may be called from any thread.
        match unsafe { (self.enqueue)(stream, step::<W>, release::<W>, data) } {
            0 => Ok(()),
            code => Err(Failure {
                status: Status::ExecutionFailed,
                message: format!("the driver does not take the work (error {code})"),
            }),
        }
    }

    /// Whether a range is device memory; why not.
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

//! The private interface for other fake libraries (fake-nccl, fake-cublaslt). Not part of CUDA.

use std::ffi::{c_char, c_int, c_void, CStr};

use crate::error::{self, CuError};
use crate::queue::{self, Operation, Outcome};
use crate::state::{lock, Handle};

/// Changes whenever this interface does.
#[no_mangle]
pub(super) extern "C" fn fake_cuda_interface_version() -> c_int {
    2
}

/// Returns 0 when done, 1 when it must be called again, -1 to give up with an error.
type Step = unsafe extern "C" fn(*mut c_void) -> c_int;
type Release = unsafe extern "C" fn(*mut c_void);

/// Owns the data of an enqueued function.
struct Data {
    pointer: usize,
    release: Release,
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: the pointer came with this function and is released once.
        unsafe { (self.release)(self.pointer as *mut c_void) };
    }
}

/// Enqueues a part of a collective, `step(data)`, on a stream; `release(data)` is called when it is no longer needed.
///
/// Returns 0, or a CUDA error. On a capturing stream the function may run any number of times.
///
/// # Safety
/// `step` must be callable from any thread with `data` until `release` is called.
#[no_mangle]
pub(super) unsafe extern "C" fn fake_cuda_enqueue_host(
    stream: Handle,
    step: Step,
    release: Release,
    data: *mut c_void,
) -> c_int {
    let pointer = data as usize;
    enqueue(stream, step, Data { pointer, release }, "collective")
}

/// The same of a kernel of a library's, which is done when it has run.
///
/// # Safety
/// As above.
#[no_mangle]
pub(super) unsafe extern "C" fn fake_cuda_enqueue_kernel(
    stream: Handle,
    step: Step,
    release: Release,
    data: *mut c_void,
) -> c_int {
    let pointer = data as usize;
    enqueue(
        stream,
        step,
        Data { pointer, release },
        "a library's kernel",
    )
}

fn enqueue(stream: Handle, step: Step, data: Data, label: &'static str) -> c_int {
    let mut state = lock();
    let handle = match state.stream(stream) {
        Ok(handle) => handle,
        Err(e) => return e.0,
    };
    let work = move || {
        let data = &data;
        // SAFETY: promised by the caller.
        match unsafe { step(data.pointer as *mut c_void) } {
            0 => Outcome::Done,
            1 => Outcome::NotReady,
            _ => Outcome::Failed(error::LAUNCH_FAILED, format!("{label} failed")),
        }
    };
    let operation = Operation {
        collective: label == "collective",
        ..Operation::new(label, work)
    };
    match state.enqueue(handle, operation) {
        Ok(_) => {
            drop(state);
            queue::after_enqueue(handle);
            0
        }
        Err(CuError(code)) => code,
    }
}

/// Runs what is queued on a stream, although nobody waits for it (deferred mode).
#[no_mangle]
pub(super) extern "C" fn fake_cuda_progress(stream: Handle) {
    let state = lock();
    // The stream may have been destroyed with work still in it.
    let Some(position) = state.streams.get(&stream).map(|s| s.submitted) else {
        return;
    };
    drop(state);
    queue::poke(stream, position);
}

/// The real handle behind a stream (0 is the default stream of the current context), or 0.
#[no_mangle]
pub(super) extern "C" fn fake_cuda_resolve_stream(stream: Handle) -> Handle {
    lock().stream(stream).unwrap_or(0)
}

/// Checks that a range is valid device memory; otherwise writes why to `text`.
///
/// # Safety
/// `text` must have room for `length` bytes.
#[no_mangle]
pub(super) unsafe extern "C" fn fake_cuda_check_range(
    address: u64,
    bytes: usize,
    text: *mut c_char,
    length: usize,
) -> c_int {
    match lock().memory.check_now(address, bytes as u64) {
        Ok(()) => 0,
        Err(why) => {
            let bytes = &why.as_bytes()[..why.len().min(length.saturating_sub(1))];
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), text, bytes.len());
            *text.add(bytes.len()) = 0;
            debug_assert!(CStr::from_ptr(text).to_bytes().len() < length);
            1
        }
    }
}

//! Driver API result codes.

use std::ffi::CStr;

/// A `CUresult` that is not success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CuError(pub i32);

pub(crate) type CuResult<T = ()> = Result<T, CuError>;

macro_rules! codes {
    ($($name:ident = $code:literal: $full:literal, $text:literal;)*) => {
        $(pub(crate) const $name: CuError = CuError($code);)*

        /// Name and description of a code.
        pub(crate) fn describe(code: i32) -> Option<(&'static CStr, &'static CStr)> {
            Some(match code {
                0 => (c"CUDA_SUCCESS", c"no error"),
                $($code => ($full, $text),)*
                _ => return None,
            })
        }

        /// The code with this name, with or without `CUDA_ERROR_`.
        pub(crate) fn by_name(name: &str) -> Option<i32> {
            let wanted = name.to_ascii_uppercase();
            let wanted = wanted.trim_start_matches("CUDA_ERROR_");
            $(if stringify!($name) == wanted {
                return Some($code);
            })*
            None
        }
    };
}

codes! {
    INVALID_VALUE = 1: c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    OUT_OF_MEMORY = 2: c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    NOT_INITIALIZED = 3: c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    NO_DEVICE = 100: c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected";
    INVALID_DEVICE = 101: c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    INVALID_CONTEXT = 201: c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    NO_BINARY_FOR_GPU = 209: c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"no kernel image is available for execution on the device";
    ECC_UNCORRECTABLE = 214: c"CUDA_ERROR_ECC_UNCORRECTABLE", c"uncorrectable ECC error encountered";
    INVALID_PTX = 218: c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed";
    UNSUPPORTED_PTX_VERSION = 222: c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"the provided PTX was compiled with an unsupported toolchain.";
    FILE_NOT_FOUND = 301: c"CUDA_ERROR_FILE_NOT_FOUND", c"file not found";
    INVALID_HANDLE = 400: c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    NOT_FOUND = 500: c"CUDA_ERROR_NOT_FOUND", c"named symbol not found";
    NOT_READY = 600: c"CUDA_ERROR_NOT_READY", c"device not ready";
    ILLEGAL_ADDRESS = 700: c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    LAUNCH_TIMEOUT = 702: c"CUDA_ERROR_LAUNCH_TIMEOUT", c"the launch timed out and was terminated";
    PEER_ACCESS_ALREADY_ENABLED = 704: c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", c"peer access is already enabled";
    PEER_ACCESS_NOT_ENABLED = 705: c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", c"peer access has not been enabled";
    CONTEXT_IS_DESTROYED = 709: c"CUDA_ERROR_CONTEXT_IS_DESTROYED", c"context is destroyed";
    ASSERT = 710: c"CUDA_ERROR_ASSERT", c"device-side assert triggered";
    HOST_MEMORY_ALREADY_REGISTERED = 712: c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", c"part or all of the requested memory range is already mapped";
    HOST_MEMORY_NOT_REGISTERED = 713: c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", c"pointer does not correspond to a registered memory region";
    MISALIGNED_ADDRESS = 716: c"CUDA_ERROR_MISALIGNED_ADDRESS", c"misaligned address";
    LAUNCH_FAILED = 719: c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure";
    NOT_SUPPORTED = 801: c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900: c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901: c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"operation failed due to a previous error during capture";
    STREAM_CAPTURE_ISOLATION = 905: c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", c"dependency created on uncaptured work in another stream";
    CAPTURED_EVENT = 907: c"CUDA_ERROR_CAPTURED_EVENT", c"operation not permitted on an event last recorded in a capturing stream";
    ILLEGAL_STATE = 401: c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state";
    UNKNOWN = 999: c"CUDA_ERROR_UNKNOWN", c"unknown error";
}

impl CuError {
    /// Whether the context is of no use any more: every later call of it fails alike.
    pub(crate) fn is_sticky(self) -> bool {
        [
            ECC_UNCORRECTABLE,
            ILLEGAL_ADDRESS,
            LAUNCH_TIMEOUT,
            ASSERT,
            MISALIGNED_ADDRESS,
            LAUNCH_FAILED,
        ]
        .contains(&self)
    }
}

/// Prints a message of the fake driver.
macro_rules! report {
    ($($arg:tt)*) => { eprintln!("fake-cuda: {}", format_args!($($arg)*)) };
}
pub(crate) use report;

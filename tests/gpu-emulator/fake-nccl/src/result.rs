//! `ncclResult_t` and the last error message.

use std::cell::RefCell;
use std::ffi::{c_char, CStr, CString};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum NcclError {
    UnhandledCuda = 1,
    System = 2,
    Internal = 3,
    InvalidArgument = 4,
    InvalidUsage = 5,
    Remote = 6,
}

/// An error with its explanation.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub code: NcclError,
    pub message: String,
}

pub(crate) type NcclResult<T = ()> = Result<T, Failure>;

pub(crate) fn failure(code: NcclError, message: impl Into<String>) -> Failure {
    Failure {
        code,
        message: message.into(),
    }
}

pub(crate) fn describe(code: i32) -> &'static CStr {
    match code {
        0 => c"no error",
        1 => c"unhandled cuda error",
        2 => c"unhandled system error",
        3 => c"internal error",
        4 => c"invalid argument",
        5 => c"invalid usage",
        6 => c"remote process exited or there was a network error",
        7 => c"NCCL operation in progress",
        _ => c"unknown result code",
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

pub(crate) fn set_last_error(message: &str) {
    let text = CString::new(message.replace('\0', " ")).unwrap_or_default();
    LAST.with(|l| *l.borrow_mut() = text);
}

/// Valid until the next failing call of the same thread.
pub(crate) fn last_error() -> *const c_char {
    LAST.with(|l| l.borrow().as_ptr())
}

/// Prints a message of this library.
macro_rules! report {
    ($($arg:tt)*) => { eprintln!("fake-nccl: {}", format_args!($($arg)*)) };
}
pub(crate) use report;

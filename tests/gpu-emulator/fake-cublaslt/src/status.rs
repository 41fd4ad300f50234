//! `cublasStatus_t`, and errors with their explanation.

use std::ffi::{c_int, CStr};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(crate) enum Status {
    NotInitialized = 1,
    InvalidValue = 7,
    ExecutionFailed = 13,
    InternalError = 14,
    NotSupported = 15,
}

/// An error with its explanation.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: Status,
    pub message: String,
}

pub(crate) type LtResult<T = ()> = Result<T, Failure>;

pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Failure {
        status: Status::InvalidValue,
        message: message.into(),
    }
}

pub(crate) fn unsupported(message: impl Into<String>) -> Failure {
    Failure {
        status: Status::NotSupported,
        message: message.into(),
    }
}

/// The name of a status.
pub(crate) fn name(status: c_int) -> &'static CStr {
    match status {
        0 => c"CUBLAS_STATUS_SUCCESS",
        1 => c"CUBLAS_STATUS_NOT_INITIALIZED",
        7 => c"CUBLAS_STATUS_INVALID_VALUE",
        13 => c"CUBLAS_STATUS_EXECUTION_FAILED",
        14 => c"CUBLAS_STATUS_INTERNAL_ERROR",
        15 => c"CUBLAS_STATUS_NOT_SUPPORTED",
        _ => c"an unknown status",
    }
}

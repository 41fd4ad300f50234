//! What every driver call has in common: initialisation and sticky-error checks, fault injection,
//! tracing, and keeping panics inside.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::config::config;
use crate::error::{self, report, CuError, CuResult};
use crate::faults;
use crate::state::{self, current_context};

/// Functions that work before `cuInit`.
const BEFORE_INIT: [&str; 4] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// Calls that report an earlier asynchronous error of the context. A device is rarely fast enough to
/// let a launch and the event calls right behind it see the error of that launch.
fn reports_sticky(name: &str) -> bool {
    const FAMILIES: [&str; 7] = [
        "cuMem",
        "cuLaunch",
        "cuStream",
        "cuEvent",
        "cuModule",
        "cuGraph",
        "cuCtxSync",
    ];
    const LATE: [&str; 3] = ["cuEventRecord", "cuStreamWaitEvent", "cuEventCreate"];
    FAMILIES.iter().any(|f| name.starts_with(f)) && !LATE.contains(&name)
}

fn guard(name: &str) -> CuResult {
    if config().require_real_gpu {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            report!(
                "REQUIRE_REAL_GPU is set, but this libcuda.so is the emulator; \
                 take its directory off LD_LIBRARY_PATH"
            );
        });
        return Err(error::NO_DEVICE);
    }
    if BEFORE_INIT.contains(&name) {
        return Ok(());
    }
    let state = state::lock();
    if !state.initialised {
        return Err(error::NOT_INITIALIZED);
    }
    if reports_sticky(name) {
        let context = current_context().and_then(|c| state.contexts.get(&c));
        if let Some(sticky) = context.and_then(|c| c.sticky) {
            return Err(sticky);
        }
    }
    drop(state);
    match faults::inject(name) {
        Some(error) => {
            if let (true, Some(context)) = (error.is_sticky(), current_context()) {
                state::lock().fail(context, error);
            }
            Err(error)
        }
        None => Ok(()),
    }
}

pub(crate) fn call(name: &'static str, body: impl FnOnce() -> CuResult) -> i32 {
    let result = guard(name).and_then(|()| {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
            report!("internal error in {name}");
            Err(error::UNKNOWN)
        })
    });
    let code = result.err().map_or(0, |e| e.0);
    if config().trace {
        report!("{name} -> {code}");
    }
    code
}

/// Writes an output argument.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> CuResult {
    if to.is_null() {
        return Err(error::INVALID_VALUE);
    }
    to.write(value);
    Ok(())
}

/// Writes an output argument that may be null.
pub(crate) unsafe fn put_optional<T>(to: *mut T, value: T) {
    if !to.is_null() {
        to.write(value);
    }
}

/// Defines exported driver functions; the body returns [`CuResult`].
macro_rules! driver_api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[no_mangle]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            $crate::entry::call(stringify!($name), || -> $crate::error::CuResult { $body })
        }
    )*};
}
pub(crate) use driver_api;

/// Refuses something on purpose, with a reason on standard error.
pub(crate) fn refuse<T>(error: CuError, why: std::fmt::Arguments) -> CuResult<T> {
    report!("{why}");
    Err(error)
}

//! Kernel launches.

use std::ffi::c_void;
use std::time::Instant;

use ptx_interpreter::{ErrorKind, LaunchConfig, Options};

use crate::config::config;
use crate::entry::refuse;
use crate::error::{self, report, CuError, CuResult};
use crate::queue::{self, Operation, Outcome};
use crate::state::{lock, Handle};

/// The driver error a device would report.
fn error_code(kind: ErrorKind) -> CuError {
    match kind {
        ErrorKind::OutOfBounds => error::ILLEGAL_ADDRESS,
        ErrorKind::Misaligned => error::MISALIGNED_ADDRESS,
        ErrorKind::StepLimit | ErrorKind::Deadlock => error::LAUNCH_TIMEOUT,
        ErrorKind::InvalidLaunch => error::INVALID_VALUE,
        ErrorKind::Unsupported => error::NOT_SUPPORTED,
        ErrorKind::Trap => error::ASSERT,
        _ => error::LAUNCH_FAILED,
    }
}

/// Copies the arguments into a parameter block.
unsafe fn pack_arguments(
    function: &ptx_interpreter::Function,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult<Vec<u8>> {
    let mut block = vec![0u8; function.param_bytes as usize];
    if !extra.is_null() {
        return refuse(
            error::NOT_SUPPORTED,
            format_args!("launch with `extra` is not supported"),
        );
    }
    if arguments.is_null() && !function.params.is_empty() {
        return Err(error::INVALID_VALUE);
    }
    for (index, param) in function.params.iter().enumerate() {
        let argument = *arguments.add(index);
        if argument.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let to = block[param.offset as usize..].as_mut_ptr();
        std::ptr::copy_nonoverlapping(argument.cast::<u8>(), to, param.bytes as usize);
    }
    Ok(block)
}

/// Checks a launch on `device` and copies its arguments.
pub(crate) unsafe fn prepare(
    device: usize,
    function: Handle,
    launch: LaunchConfig,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult<Operation> {
    let kernel = lock()
        .functions
        .get(&function)
        .cloned()
        .ok_or(error::INVALID_HANDLE)?;
    let code = kernel.code()?;
    let name = &kernel.name;
    let dynamic = launch.dynamic_shared;
    if dynamic > kernel.max_dynamic_shared {
        let limit = kernel.max_dynamic_shared;
        let why = format_args!(
            "{name}: {dynamic} bytes of dynamic shared memory, but the limit is {limit} \
             (cuFuncSetAttribute was not called?)"
        );
        return refuse(error::INVALID_VALUE, why);
    }
    let shared = kernel.module.static_shared_bytes(code) + u64::from(dynamic);
    if shared > config().max_shared() as u64 {
        let why = format_args!("{name}: {shared} bytes of shared memory are too many");
        return refuse(error::INVALID_VALUE, why);
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    let grid_limits = [i32::MAX as u32, 65_535, 65_535];
    if launch
        .grid
        .iter()
        .zip(grid_limits)
        .any(|(&n, limit)| n == 0 || n > limit)
        || threads == 0
    {
        let why = format_args!("{name}: grid {:?}, block {:?}", launch.grid, launch.block);
        return refuse(error::INVALID_VALUE, why);
    }
    if threads > u64::from(code.max_threads.unwrap_or(1024).min(1024)) {
        let why = format_args!("{name}: {threads} threads per block are too many");
        return refuse(error::INVALID_VALUE, why);
    }
    let parameters = pack_arguments(code, arguments, extra)?;
    let module = kernel.module.clone();
    let name = kernel.name.clone();
    let work = move || {
        let map = lock().memory_map(device);
        let start = Instant::now();
        // SAFETY: the map lists memory owned by the driver or registered by the program.
        let result = unsafe {
            ptx_interpreter::launch(
                &module,
                &name,
                &launch,
                &parameters,
                &map,
                &Options::from_env(),
            )
        };
        if config().time {
            let steps = result.as_ref().map_or(0, |s| s.steps);
            report!(
                "{name} took {:?}, {steps} warp instructions",
                start.elapsed()
            );
        }
        match result {
            Ok(_) => Outcome::Done,
            Err(e) => Outcome::Failed(error_code(e.kind), e.to_string()),
        }
    };
    Ok(Operation::new("kernel", work))
}

pub(crate) unsafe fn launch(
    function: Handle,
    launch: LaunchConfig,
    stream: Handle,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CuResult {
    let mut state = lock();
    let stream = state.stream(stream)?;
    let context = state.streams[&stream].context;
    let device = state.contexts[&context].device;
    drop(state);
    let operation = prepare(device, function, launch, arguments, extra)?;
    let (stream, position) = queue::submit(stream, operation)?;
    if config().launch_blocking {
        queue::drive(stream, position);
        return lock().check(context);
    }
    Ok(())
}

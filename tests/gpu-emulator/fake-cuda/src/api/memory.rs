//! "Memory Management", "Unified Addressing".
//!
//! Copies from pageable host memory take their data at the time of the call and copies to pageable
//! memory return when done, as with the real driver; pinned memory is touched when the stream gets
//! there.

use std::ffi::{c_int, c_uint, c_void};

use crate::entry::{driver_api, put, put_optional};
use crate::error::{self, report, CuResult};
use crate::memory::{Allocation, Kind};
use crate::queue::{self, Operation, Outcome};
use crate::state::{lock, Handle};

/// One end of a copy.
#[derive(Clone, Copy)]
enum Side {
    Device(u64),
    Host(u64),
}

impl Side {
    fn address(self) -> u64 {
        match self {
            Side::Device(address) | Side::Host(address) => address,
        }
    }
}

/// Device ranges must still be valid when the copy runs.
fn check_sides(call: &str, sides: &[Side], bytes: usize) -> Result<(), Outcome> {
    let state = lock();
    for side in sides {
        if let Side::Device(address) = side {
            if let Err(why) = state.memory.check_now(*address, bytes as u64) {
                return Err(Outcome::Failed(
                    error::ILLEGAL_ADDRESS,
                    format!("{call}: {why}"),
                ));
            }
        }
    }
    Ok(())
}

fn copy_operation(call: &'static str, to: Side, from: Side, bytes: usize) -> Operation {
    Operation::new(call, move || {
        if let Err(outcome) = check_sides(call, &[to, from], bytes) {
            return outcome;
        }
        // SAFETY: device ranges were just checked; host ranges are the caller's promise.
        unsafe {
            std::ptr::copy(from.address() as *const u8, to.address() as *mut u8, bytes);
        }
        Outcome::Done
    })
}

fn staged_operation(call: &'static str, to: u64, data: Vec<u8>) -> Operation {
    Operation::new(call, move || {
        if let Err(outcome) = check_sides(call, &[Side::Device(to)], data.len()) {
            return outcome;
        }
        // SAFETY: the range was just checked.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, data.len()) };
        Outcome::Done
    })
}

/// Checks, enqueues and, where the driver would, waits.
fn copy(
    call: &'static str,
    to: Side,
    from: Side,
    bytes: usize,
    stream: Handle,
    wait: bool,
) -> CuResult {
    let mut state = lock();
    for side in [to, from] {
        if let Side::Device(address) = side {
            state.check_range(call, address, bytes)?;
        } else if side.address() == 0 && bytes > 0 {
            return Err(error::INVALID_VALUE);
        }
    }
    let handle = state.stream(stream)?;
    let capturing = state.streams[&handle].capture.is_some();
    if capturing && wait {
        return Err(error::STREAM_CAPTURE_UNSUPPORTED);
    }
    let pageable = |address| !state.memory.is_pinned(address);
    let (operation, wait) = match (to, from) {
        (Side::Device(to), Side::Host(from)) if pageable(from) && !capturing => {
            // SAFETY: the caller promises `bytes` readable bytes.
            let data = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
            (staged_operation(call, to, data.to_vec()), wait)
        }
        (Side::Host(to_host), _) if pageable(to_host) && !capturing => {
            (copy_operation(call, to, from, bytes), true)
        }
        _ => (copy_operation(call, to, from, bytes), wait),
    };
    let context = state.streams[&handle].context;
    drop(state);
    let (stream, position) = queue::submit(stream, operation)?;
    if wait {
        queue::drive(stream, position);
        return lock().check(context);
    }
    Ok(())
}

fn side_of(address: u64) -> Side {
    let state = lock();
    match state.memory.find(address, 1) {
        Some((_, a)) if a.kind != Kind::Pinned && a.kind != Kind::Registered => {
            Side::Device(address)
        }
        _ => Side::Host(address),
    }
}

/// Fills `count` elements of `N` bytes.
fn fill<const N: usize>(
    call: &'static str,
    to: u64,
    value: [u8; N],
    count: usize,
    stream: Handle,
    wait: bool,
) -> CuResult {
    let bytes = count * N;
    let mut state = lock();
    state.check_range(call, to, bytes)?;
    let handle = state.stream(stream)?;
    let context = state.streams[&handle].context;
    drop(state);
    if !to.is_multiple_of(N as u64) {
        return Err(error::INVALID_VALUE);
    }
    let work = move || {
        if let Err(outcome) = check_sides(call, &[Side::Device(to)], bytes) {
            return outcome;
        }
        // SAFETY: the range was just checked.
        let memory = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
        memory
            .chunks_exact_mut(N)
            .for_each(|c| c.copy_from_slice(&value));
        Outcome::Done
    };
    let (stream, position) = queue::submit(stream, Operation::new(call, work))?;
    if wait {
        queue::drive(stream, position);
        return lock().check(context);
    }
    Ok(())
}

/// Allocates now; the memory becomes usable when the stream gets there.
pub(super) fn allocate_on_stream(bytes: usize, stream: Handle) -> CuResult<u64> {
    let mut state = lock();
    let handle = state.stream(stream)?;
    let context = state.streams[&handle].context;
    let device = state.contexts[&context].device;
    let mut result = state
        .memory
        .allocate(bytes as u64, Kind::Device, device, context);
    if result == Err(error::OUT_OF_MEMORY) {
        // Memory freed on some stream may still be on its way back.
        drop(state);
        queue::drain_context(context);
        state = lock();
        result = state
            .memory
            .allocate(bytes as u64, Kind::Device, device, context);
    }
    let address = result?;
    state.memory.set_ready(address, false);
    drop(state);
    queue::submit(
        stream,
        Operation::new("alloc", move || {
            lock().memory.set_ready(address, true);
            Outcome::Done
        }),
    )?;
    Ok(address)
}

fn allocate(bytes: usize, kind: Kind) -> CuResult<u64> {
    let mut state = lock();
    let context = state.current()?;
    let device = state.contexts[&context].device;
    state.memory.allocate(bytes as u64, kind, device, context)
}

fn free_host(address: u64) -> CuResult {
    let context = lock().current()?;
    queue::drain_context(context);
    let mut state = lock();
    match state.memory.find(address, 1) {
        Some((base, a)) if base == address && a.kind == Kind::Pinned => {
            state.memory.free(address).map(|_| ())
        }
        _ => Err(error::INVALID_VALUE),
    }
}

driver_api! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let state = lock();
        let device = state.current_device()?;
        put_optional(free, state.memory.free_bytes(device) as usize);
        put_optional(total, crate::config::config().memory as usize);
        Ok(())
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        put(address, allocate(bytes, Kind::Device)?)
    }

    fn cuMemAllocManaged(address: *mut u64, bytes: usize, _flags: c_uint) {
        put(address, allocate(bytes, Kind::Managed)?)
    }

    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) {
        put(address, allocate_on_stream(bytes, stream)?)
    }

    fn cuMemFree_v2(address: u64) {
        if address == 0 {
            return Ok(());
        }
        // Waits for all work of the device, as the real one does.
        let context = lock().memory.find(address, 1).map(|(_, a)| a.context);
        if let Some(context) = context {
            queue::drain_context(context);
        }
        let result = lock().memory.free(address).map(|_| ());
        if result.is_err() {
            report!("cuMemFree: {}", lock().memory.explain(address, 1));
        }
        result
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        if address == 0 {
            return Ok(());
        }
        let mut state = lock();
        let handle = state.stream(stream)?;
        state.check(state.streams[&handle].context)?;
        // A captured free would pull the memory away from the next replay.
        let keep = state.streams[&handle].capture.is_some();
        if !keep && !state.memory.begin_free(address) {
            report!("cuMemFreeAsync: {} (or freed twice)", state.memory.explain(address, 1));
            return Err(error::INVALID_VALUE);
        }
        drop(state);
        let work = move || {
            if !keep {
                // It is already gone if its context was destroyed meanwhile.
                let _ = lock().memory.free(address);
            }
            Outcome::Done
        };
        queue::submit(stream, Operation::new("free", work)).map(|_| ())
    }

    fn cuMemHostAlloc(address: *mut u64, bytes: usize, _flags: c_uint) {
        put(address, allocate(bytes, Kind::Pinned)?)
    }

    fn cuMemAllocHost_v2(address: *mut u64, bytes: usize) {
        put(address, allocate(bytes, Kind::Pinned)?)
    }

    fn cuMemFreeHost(address: u64) {
        free_host(address)
    }

    fn cuMemHostRegister_v2(address: u64, bytes: usize, _flags: c_uint) {
        let mut state = lock();
        let context = state.current()?;
        let device = state.contexts[&context].device;
        if state.memory.find(address, 1).is_some() {
            return Err(error::HOST_MEMORY_ALREADY_REGISTERED);
        }
        let bytes = bytes as u64;
        let kind = Kind::Registered;
        state.memory.insert(address, Allocation { bytes, kind, device, context, ready: true,
                freeing: false });
        Ok(())
    }

    fn cuMemHostUnregister(address: u64) {
        let mut state = lock();
        match state.memory.find(address, 1) {
            Some((base, a)) if base == address && a.kind == Kind::Registered => {
                state.memory.free(address).map(|_| ())
            }
            _ => Err(error::HOST_MEMORY_NOT_REGISTERED),
        }
    }

    fn cuMemHostGetDevicePointer_v2(device: *mut u64, host: u64, _flags: c_uint) {
        lock().memory.find(host, 1).ok_or(error::INVALID_VALUE)?;
        put(device, host)
    }

    fn cuMemHostGetFlags(flags: *mut c_uint, _host: u64) {
        put(flags, 0)
    }

    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64) {
        let state = lock();
        let (start, allocation) = state.memory.find(address, 1).ok_or(error::INVALID_VALUE)?;
        put_optional(base, start);
        put_optional(bytes, allocation.bytes as usize);
        Ok(())
    }

    fn cuPointerGetAttribute(data: *mut c_void, attribute: c_int, address: u64) {
        let state = lock();
        let (base, a) = state.memory.find(address, 1).ok_or(error::INVALID_VALUE)?;
        match attribute {
            1 => put(data.cast::<Handle>(), a.context),
            2 => {
                let host = matches!(a.kind, Kind::Pinned | Kind::Registered);
                put(data.cast::<c_uint>(), if host { 1 } else { 2 })
            }
            3 | 4 => put(data.cast::<u64>(), address),
            8 => put(data.cast::<u32>(), (a.kind == Kind::Managed).into()),
            9 => put(data.cast::<c_int>(), a.device as c_int),
            11 => put(data.cast::<u64>(), base),
            12 => put(data.cast::<usize>(), a.bytes as usize),
            _ => Err(error::NOT_SUPPORTED),
        }
    }

    fn cuMemcpyHtoD_v2(to: u64, from: u64, bytes: usize) {
        copy("cuMemcpyHtoD", Side::Device(to), Side::Host(from), bytes, 0, true)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy("cuMemcpyHtoDAsync", Side::Device(to), Side::Host(from), bytes, stream, false)
    }

    fn cuMemcpyDtoH_v2(to: u64, from: u64, bytes: usize) {
        copy("cuMemcpyDtoH", Side::Host(to), Side::Device(from), bytes, 0, true)
    }

    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy("cuMemcpyDtoHAsync", Side::Host(to), Side::Device(from), bytes, stream, false)
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        copy("cuMemcpyDtoD", Side::Device(to), Side::Device(from), bytes, 0, true)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy("cuMemcpyDtoDAsync", Side::Device(to), Side::Device(from), bytes, stream, false)
    }

    fn cuMemcpyPeer(to: u64, _to_ctx: Handle, from: u64, _from_ctx: Handle, bytes: usize) {
        copy("cuMemcpyPeer", Side::Device(to), Side::Device(from), bytes, 0, true)
    }

    fn cuMemcpyPeerAsync(
        to: u64, _to_ctx: Handle, from: u64, _from_ctx: Handle, bytes: usize, stream: Handle,
    ) {
        copy("cuMemcpyPeerAsync", Side::Device(to), Side::Device(from), bytes, stream, false)
    }

    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        copy("cuMemcpy", side_of(to), side_of(from), bytes, 0, true)
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        copy("cuMemcpyAsync", side_of(to), side_of(from), bytes, stream, false)
    }

    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill("cuMemsetD8", to, [value], count, 0, true)
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        fill("cuMemsetD8Async", to, [value], count, stream, false)
    }

    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        fill("cuMemsetD16", to, value.to_le_bytes(), count, 0, true)
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        fill("cuMemsetD16Async", to, value.to_le_bytes(), count, stream, false)
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill("cuMemsetD32", to, value.to_le_bytes(), count, 0, true)
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) {
        fill("cuMemsetD32Async", to, value.to_le_bytes(), count, stream, false)
    }

    fn cuMemAdvise_v2(_address: u64, _bytes: usize, _advice: c_int, _location: u64) {
        Ok(())
    }

    fn cuMemPrefetchAsync_v2(
        _address: u64, _bytes: usize, _location: u64, _flags: c_uint, _stream: Handle,
    ) {
        Ok(())
    }

    fn cuStreamAttachMemAsync(_stream: Handle, _address: u64, _bytes: usize, _flags: c_uint) {
        Ok(())
    }
}

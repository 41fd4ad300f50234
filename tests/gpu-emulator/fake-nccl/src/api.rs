//! The exported functions (NCCL 2.2x C ABI).

use std::ffi::{c_char, c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::collective::{Collective, Kind};
use crate::comm::{Comm, UniqueId};
use crate::driver::{driver, Stream};
use crate::group;
use crate::p2p::Message;
use crate::progress::Part;
use crate::reduce::{DataType, ReduceOp};
use crate::result::{describe, failure, last_error, set_last_error, NcclError, NcclResult};

type CommHandle = *const Comm;

/// Runs the body of an API function; errors are remembered for `ncclGetLastError`.
fn call(name: &str, body: impl FnOnce() -> NcclResult) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(body));
    let result = result.unwrap_or_else(|_| Err(failure(NcclError::Internal, "internal error")));
    match result {
        Ok(()) => 0,
        Err(failure) => {
            set_last_error(&format!("{name}: {}", failure.message));
            eprintln!("fake-nccl: {name}: {}", failure.message);
            failure.code as c_int
        }
    }
}

/// Borrows a communicator handle.
unsafe fn comm<'a>(handle: CommHandle) -> NcclResult<&'a Comm> {
    let null = || failure(NcclError::InvalidArgument, "null communicator");
    handle.as_ref().ok_or_else(null)
}

/// Another owner of the communicator.
unsafe fn shared(handle: CommHandle) -> NcclResult<Arc<Comm>> {
    comm(handle)?;
    Arc::increment_strong_count(handle);
    Ok(Arc::from_raw(handle))
}

unsafe fn put<T>(to: *mut T, value: T) -> NcclResult {
    if to.is_null() {
        return Err(failure(NcclError::InvalidArgument, "null pointer"));
    }
    to.write(value);
    Ok(())
}

fn data_type(code: c_int) -> NcclResult<DataType> {
    let unknown = || {
        failure(
            NcclError::InvalidArgument,
            format!("data type {code} is not supported"),
        )
    };
    DataType::from_code(code).ok_or_else(unknown)
}

fn reduce_op(code: c_int) -> NcclResult<ReduceOp> {
    let unknown = || {
        failure(
            NcclError::InvalidArgument,
            format!("reduction {code} is not supported"),
        )
    };
    ReduceOp::from_code(code).ok_or_else(unknown)
}

fn peer(comm: &Comm, rank: c_int) -> NcclResult<usize> {
    let index = usize::try_from(rank).ok().filter(|&r| r < comm.ranks);
    index.ok_or_else(|| {
        failure(
            NcclError::InvalidArgument,
            format!("rank {rank} of {}", comm.ranks),
        )
    })
}

/// Arguments common to the collectives.
struct Call {
    kind: Kind,
    send: u64,
    receive: u64,
    count: usize,
    ty: c_int,
    op: c_int,
    root: c_int,
}

unsafe fn collective(handle: CommHandle, stream: Stream, call: Call) -> NcclResult {
    let comm = shared(handle)?;
    let part = Part::Collective(Collective {
        kind: call.kind,
        send: call.send,
        receive: call.receive,
        count: call.count,
        ty: data_type(call.ty)?,
        op: reduce_op(call.op)?,
        root: peer(&comm, call.root)?,
    });
    group::add(comm, stream, part)
}

unsafe fn message(
    handle: CommHandle,
    stream: Stream,
    buffer: u64,
    count: usize,
    ty: c_int,
    rank: c_int,
    send: bool,
) -> NcclResult {
    let comm = shared(handle)?;
    let message = Message {
        peer: peer(&comm, rank)?,
        buffer,
        bytes: count * data_type(ty)?.bytes(),
    };
    let part = if send {
        Part::Send(message)
    } else {
        Part::Receive(message)
    };
    group::add(comm, stream, part)
}

unsafe fn init_rank(
    handle: *mut CommHandle,
    ranks: c_int,
    id: UniqueId,
    rank: c_int,
) -> NcclResult {
    let device = driver()?.current_device()?;
    let comm = Comm::join(id, ranks, rank, device)?;
    group::joined(&comm)?;
    put(handle, Arc::into_raw(comm))
}

macro_rules! nccl_api {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        #[no_mangle]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> c_int {
            call(stringify!($name), || -> NcclResult { $body })
        }
    )*};
}

nccl_api! {
    fn ncclGetVersion(version: *mut c_int) {
        put(version, 22_703)
    }

    fn ncclGetUniqueId(id: *mut UniqueId) {
        driver()?;
        put(id, UniqueId::random()?)
    }

    fn ncclCommInitRank(handle: *mut CommHandle, ranks: c_int, id: UniqueId, rank: c_int) {
        init_rank(handle, ranks, id, rank)
    }

    fn ncclCommInitRankConfig(
        handle: *mut CommHandle, ranks: c_int, id: UniqueId, rank: c_int, _config: *mut c_void,
    ) {
        init_rank(handle, ranks, id, rank)
    }

    fn ncclCommInitAll(handles: *mut CommHandle, count: c_int, devices: *const c_int) {
        let id = UniqueId::random()?;
        let mut comms = Vec::new();
        for rank in 0..count {
            let device = if devices.is_null() { rank } else { *devices.add(rank as usize) };
            comms.push(Comm::join(id, count, rank, device)?);
        }
        comms.iter().try_for_each(Comm::wait_for_all)?;
        for (rank, comm) in comms.into_iter().enumerate() {
            put(handles.add(rank), Arc::into_raw(comm))?;
        }
        Ok(())
    }

    fn ncclCommSplit(
        handle: CommHandle, color: c_int, key: c_int, new: *mut CommHandle, _config: *mut c_void,
    ) {
        let made = comm(handle)?.split(color, key)?;
        put(new, made.map_or(std::ptr::null(), Arc::into_raw))
    }

    fn ncclCommCount(handle: CommHandle, count: *mut c_int) {
        put(count, comm(handle)?.ranks as c_int)
    }

    fn ncclCommCuDevice(handle: CommHandle, device: *mut c_int) {
        put(device, comm(handle)?.device)
    }

    fn ncclCommUserRank(handle: CommHandle, rank: *mut c_int) {
        put(rank, comm(handle)?.rank as c_int)
    }

    fn ncclCommGetAsyncError(handle: CommHandle, error: *mut c_int) {
        put(error, comm(handle)?.error())
    }

    fn ncclCommFinalize(handle: CommHandle) {
        comm(handle)?.flush();
        Ok(())
    }

    fn ncclCommDestroy(handle: CommHandle) {
        if !handle.is_null() {
            let comm = Arc::from_raw(handle);
            comm.flush();
            comm.leave();
        }
        Ok(())
    }

    fn ncclCommAbort(handle: CommHandle) {
        if !handle.is_null() {
            let comm = Arc::from_raw(handle);
            comm.abort();
            // Operations in flight end at their next step.
            let pending = comm.tickets.load(Ordering::Acquire) - comm.finished.load(Ordering::Acquire);
            if pending > 0 {
                comm.flush();
            }
        }
        Ok(())
    }

    fn ncclAllReduce(
        send: u64, receive: u64, count: usize, ty: c_int, op: c_int, comm: CommHandle, stream: Stream,
    ) {
        collective(comm, stream, Call { kind: Kind::AllReduce, send, receive, count, ty, op, root: 0 })
    }

    fn ncclReduce(
        send: u64, receive: u64, count: usize, ty: c_int, op: c_int, root: c_int, comm: CommHandle,
        stream: Stream,
    ) {
        collective(comm, stream, Call { kind: Kind::Reduce, send, receive, count, ty, op, root })
    }

    fn ncclReduceScatter(
        send: u64, receive: u64, count: usize, ty: c_int, op: c_int, comm: CommHandle, stream: Stream,
    ) {
        collective(comm, stream, Call { kind: Kind::ReduceScatter, send, receive, count, ty, op, root: 0 })
    }

    fn ncclAllGather(
        send: u64, receive: u64, count: usize, ty: c_int, comm: CommHandle, stream: Stream,
    ) {
        collective(comm, stream, Call { kind: Kind::AllGather, send, receive, count, ty, op: 0, root: 0 })
    }

    fn ncclBroadcast(
        send: u64, receive: u64, count: usize, ty: c_int, root: c_int, comm: CommHandle, stream: Stream,
    ) {
        collective(comm, stream, Call { kind: Kind::Broadcast, send, receive, count, ty, op: 0, root })
    }

    fn ncclBcast(
        buffer: u64, count: usize, ty: c_int, root: c_int, comm: CommHandle, stream: Stream,
    ) {
        let call = Call { kind: Kind::Broadcast, send: buffer, receive: buffer, count, ty, op: 0, root };
        collective(comm, stream, call)
    }

    fn ncclSend(buffer: u64, count: usize, ty: c_int, to: c_int, comm: CommHandle, stream: Stream) {
        message(comm, stream, buffer, count, ty, to, true)
    }

    fn ncclRecv(buffer: u64, count: usize, ty: c_int, from: c_int, comm: CommHandle, stream: Stream) {
        message(comm, stream, buffer, count, ty, from, false)
    }

    fn ncclGroupStart() {
        group::start();
        Ok(())
    }

    fn ncclGroupEnd() {
        group::end()
    }

    fn ncclMemAlloc(address: *mut u64, bytes: usize) {
        match (driver()?.mem_alloc)(address, bytes) {
            0 => Ok(()),
            code => Err(failure(NcclError::UnhandledCuda, format!("CUDA error {code}"))),
        }
    }

    fn ncclMemFree(address: u64) {
        match (driver()?.mem_free)(address) {
            0 => Ok(()),
            code => Err(failure(NcclError::UnhandledCuda, format!("CUDA error {code}"))),
        }
    }

    fn ncclCommRegister(handle: CommHandle, _buffer: u64, _bytes: usize, registration: *mut usize) {
        comm(handle)?;
        put(registration, 1)
    }

    fn ncclCommDeregister(handle: CommHandle, _registration: usize) {
        comm(handle).map(|_| ())
    }

    fn ncclRedOpDestroy(_op: c_int, _comm: CommHandle) {
        Ok(())
    }
}

#[no_mangle]
pub(crate) extern "C" fn ncclGetErrorString(code: c_int) -> *const c_char {
    describe(code).as_ptr()
}

#[no_mangle]
pub(crate) extern "C" fn ncclGetLastError(_comm: CommHandle) -> *const c_char {
    last_error()
}

//! NCCL operations and mistakes, one case per argument; two ranks are two threads.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use std::ffi::c_void;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{
    CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, PushKernelArg,
};
use cudarc::nccl::sys::{self, ncclDataType_t as Type, ncclRedOp_t as Op, ncclResult_t as Code};
use half::{bf16, f16};
use samples::{grid, load, max_error, Report, Result, WRONG_RESULT};

const RANKS: usize = 2;

fn main() -> Result {
    let case = std::env::args().nth(1).unwrap_or_default();
    if case == "one-thread" {
        return one_thread();
    }
    let mut id = sys::ncclUniqueId { internal: [0; 128] };
    check(unsafe { sys::ncclGetUniqueId(&mut id) })?;
    let ranks = (0..RANKS).map(|rank| {
        let case = case.clone();
        std::thread::spawn(move || run(&case, rank, id).map_err(|e| format!("rank {rank}: {e}")))
    });
    let ranks: Vec<_> = ranks.collect();
    let results: Vec<_> = ranks.into_iter().map(|r| r.join()).collect();
    for result in results {
        if let Err(why) = result.map_err(|_| "a rank panicked")? {
            println!("{why}");
            std::process::exit(WRONG_RESULT);
        }
    }
    println!("all checks ok");
    Ok(())
}

fn check(code: Code) -> Result {
    match code {
        Code::ncclSuccess => Ok(()),
        code => Err(format!("{code:?}").into()),
    }
}

fn ensure(what: &str, ok: bool) -> Result {
    if ok {
        Ok(())
    } else {
        Err(format!("{what} is wrong").into())
    }
}

struct Rank {
    rank: usize,
    stream: Arc<CudaStream>,
    comm: sys::ncclComm_t,
}

/// Joins with the given device.
fn join(rank: usize, device: usize, id: sys::ncclUniqueId) -> Result<Rank> {
    let stream = CudaContext::new(device)?.new_stream()?;
    let mut comm = std::ptr::null_mut();
    check(unsafe { sys::ncclCommInitRank(&mut comm, RANKS as i32, id, rank as i32) })?;
    Ok(Rank { rank, stream, comm })
}

fn run(case: &str, rank: usize, id: sys::ncclUniqueId) -> Result {
    if case == "same-device" {
        let refused = join(rank, 0, id).is_err();
        return ensure("two ranks on one device", refused);
    }
    let rank = join(rank, rank, id)?;
    match case {
        "collectives" => rank.collectives(),
        "graph" => rank.graph(),
        "split" => rank.split(id),
        "abort" => rank.abort(),
        "mismatch" => rank.failing(64 * (rank.rank + 1), Code::ncclInvalidUsage),
        "missing-rank" => rank.failing(64, Code::ncclRemoteError),
        other => Err(format!("unknown case `{other}`").into()),
    }
}

fn pointer<T>(slice: &CudaSlice<T>, stream: &CudaStream) -> *const c_void {
    slice.device_ptr(stream).0 as *const c_void
}

fn pointer_mut<T>(slice: &mut CudaSlice<T>, stream: &CudaStream) -> *mut c_void {
    slice.device_ptr_mut(stream).0 as *mut c_void
}

impl Rank {
    fn raw(&self) -> sys::cudaStream_t {
        self.stream.cu_stream().cast()
    }

    /// Runs one call with device copies of `input`; returns the output.
    fn call<T: DeviceRepr + Clone>(
        &self,
        input: &[T],
        outputs: usize,
        call: impl FnOnce(*const c_void, *mut c_void) -> Code,
    ) -> Result<Vec<T>> {
        let send = self.stream.clone_htod(input)?;
        let mut receive = unsafe { self.stream.alloc::<T>(outputs)? };
        check(call(
            pointer(&send, &self.stream),
            pointer_mut(&mut receive, &self.stream),
        ))?;
        Ok(self.stream.clone_dtoh(&receive)?)
    }

    fn all_reduce<T: DeviceRepr + Clone>(&self, input: &[T], ty: Type, op: Op) -> Result<Vec<T>> {
        let n = input.len();
        self.call(input, n, |s, r| unsafe {
            sys::ncclAllReduce(s, r, n, ty, op, self.comm, self.raw())
        })
    }

    fn collectives(&self) -> Result {
        let rank = self.rank;
        // More than one piece of the staging buffer, and not a multiple of anything.
        let n = 300_001;
        let mine: Vec<f32> = (0..n).map(|i| (i % 100) as f32 + rank as f32).collect();
        let base = |i: usize| (i % 100) as f32;
        let got = self.all_reduce(&mine, Type::ncclFloat32, Op::ncclSum)?;
        ensure(
            "sum f32",
            got.iter()
                .enumerate()
                .all(|(i, v)| *v == 2.0 * base(i) + 1.0),
        )?;
        let got = self.all_reduce(&mine, Type::ncclFloat32, Op::ncclAvg)?;
        ensure(
            "avg f32",
            got.iter().enumerate().all(|(i, v)| *v == base(i) + 0.5),
        )?;
        let got = self.all_reduce(&mine, Type::ncclFloat32, Op::ncclMin)?;
        ensure(
            "min f32",
            got.iter().enumerate().all(|(i, v)| *v == base(i)),
        )?;
        let got = self.all_reduce(
            &[f16::from_f32(1.5 + rank as f32); 9],
            Type::ncclFloat16,
            Op::ncclSum,
        )?;
        ensure("sum f16", got == [f16::from_f32(4.0); 9])?;
        let got = self.all_reduce(
            &[bf16::from_f32(1.0 + rank as f32); 9],
            Type::ncclBfloat16,
            Op::ncclMax,
        )?;
        ensure("max bf16", got == [bf16::from_f32(2.0); 9])?;
        let got = self.all_reduce(&[-5 + rank as i32; 5], Type::ncclInt32, Op::ncclSum)?;
        ensure("sum i32", got == [-9; 5])?;
        let got = self.all_reduce(&[1i64 << (40 + rank); 5], Type::ncclInt64, Op::ncclMax)?;
        ensure("max i64", got == [1 << 41; 5])?;
        let got = self.all_reduce(&[200u8 + rank as u8; 5], Type::ncclUint8, Op::ncclMin)?;
        ensure("min u8", got == [200; 5])?;

        let (ty, sum) = (Type::ncclFloat32, Op::ncclSum);
        let got = self.call(&mine[..2000], 1000, |s, r| unsafe {
            sys::ncclReduceScatter(s, r, 1000, ty, sum, self.comm, self.raw())
        })?;
        ensure(
            "reduce-scatter",
            got.iter()
                .enumerate()
                .all(|(i, v)| *v == 2.0 * base(i) + 1.0),
        )?;
        let got = self.call(&[rank as f32; 70], 140, |s, r| unsafe {
            sys::ncclAllGather(s, r, 70, ty, self.comm, self.raw())
        })?;
        ensure(
            "all-gather",
            got[..70] == [0.0; 70] && got[70..] == [1.0; 70],
        )?;
        let got = self.call(&[rank as f32 + 5.0; 70], 70, |s, r| unsafe {
            sys::ncclBroadcast(s, r, 70, ty, 1, self.comm, self.raw())
        })?;
        ensure("broadcast", got == [6.0; 70])?;
        let got = self.call(&[2f32; 70], 70, |s, r| unsafe {
            sys::ncclReduce(s, r, 70, ty, sum, 0, self.comm, self.raw())
        })?;
        ensure(
            "reduce",
            if rank == 0 {
                got == [4.0; 70]
            } else {
                got[0].is_nan()
            },
        )?;

        // Exchange more than a mailbox holds, both directions at once.
        let peer = 1 - rank as i32;
        let got = self.call(&mine, n, |s, r| unsafe {
            sys::ncclGroupStart();
            sys::ncclSend(s, n, ty, peer, self.comm, self.raw());
            sys::ncclRecv(r, n, ty, peer, self.comm, self.raw());
            sys::ncclGroupEnd()
        })?;
        ensure(
            "send and receive",
            got.iter()
                .enumerate()
                .all(|(i, v)| *v == base(i) + peer as f32),
        )?;
        check(unsafe { sys::ncclCommFinalize(self.comm) })?;
        check(unsafe { sys::ncclCommDestroy(self.comm) })
    }

    /// A step captured once, with kernels on one stream and an all-reduce on another, gives the
    /// same bits as the plain calls however often it is replayed.
    fn graph(&self) -> Result {
        const STEPS: usize = 4;
        let context = self.stream.context();
        // The capture must hold the program's own events alone.
        unsafe { context.disable_event_tracking() };
        let (compute, communicate) = (&self.stream, context.new_stream()?);
        let module = load(context, "train", "compute_80")?;
        let (gradient, sgd) = (
            module.load_function("gradient")?,
            module.load_function("sgd")?,
        );
        let n = 5000;
        let grad = compute.alloc_zeros::<f32>(n)?;
        let step = |weight: &CudaSlice<f32>| -> Result {
            let (first, count, factor, rate) = (0i32, n as i32, self.rank as f32, 0.05f32);
            let blocks = grid(((n as u32).div_ceil(256), 1, 1), (256, 1, 1), 0);
            let mut launch = compute.launch_builder(&gradient);
            launch.arg(weight).arg(&grad).arg(&first);
            launch.arg(&count).arg(&factor);
            unsafe { launch.launch(blocks)? };
            communicate.wait(&compute.record_event(None)?)?;
            let at = pointer(&grad, compute).cast_mut();
            let (ty, op) = (Type::ncclFloat32, Op::ncclSum);
            check(unsafe {
                sys::ncclAllReduce(at, at, n, ty, op, self.comm, communicate.cu_stream().cast())
            })?;
            compute.wait(&communicate.record_event(None)?)?;
            let mut launch = compute.launch_builder(&sgd);
            launch.arg(weight).arg(&grad).arg(&count).arg(&rate);
            unsafe { launch.launch(blocks)? };
            Ok(())
        };
        let plain = compute.clone_htod(&vec![1f32; n])?;
        let replayed = compute.clone_htod(&vec![1f32; n])?;
        compute.synchronize()?;
        (0..STEPS).try_for_each(|_| step(&plain))?;
        compute.synchronize()?;

        compute.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        step(&replayed)?;
        let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        let graph = compute.end_capture(flags)?.ok_or("nothing was captured")?;
        let untouched = compute.clone_dtoh(&replayed)? == vec![1f32; n];
        ensure("weights before the first replay", untouched)?;
        (0..STEPS).try_for_each(|_| graph.launch())?;
        let (plain, replayed) = (compute.clone_dtoh(&plain)?, compute.clone_dtoh(&replayed)?);
        ensure("graph", plain == replayed)?;
        // The mean gradient of element i is 1.5 times the weight plus i % 7, times two ranks.
        let want = (0..n)
            .map(|i| (0..STEPS).fold(1.0, |w: f64, _| w - 0.05 * (3.0 * w + 2.0 * (i % 7) as f64)));
        let error = max_error(replayed.iter().map(|v| f64::from(*v)), want);
        ensure("replayed weights", error < 1e-5)?;
        drop(graph);
        check(unsafe { sys::ncclCommDestroy(self.comm) })
    }

    /// Communicators made from this one, and one made with a configuration.
    fn split(mut self, id: sys::ncclUniqueId) -> Result {
        let (whole, mine) = (self.comm, self.rank as f32 + 1.0);
        let (ty, sum) = (Type::ncclFloat32, Op::ncclSum);
        // Each rank alone, and both in reverse order.
        for (color, key, ranks, rank, want) in [
            (self.rank as i32, 0, 1, 0, mine),
            (0, -(self.rank as i32), 2, 1 - self.rank as i32, 3.0),
        ] {
            let mut part = std::ptr::null_mut();
            let none = std::ptr::null_mut();
            check(unsafe { sys::ncclCommSplit(whole, color, key, &mut part, none) })?;
            self.comm = part;
            let (mut got_ranks, mut got_rank) = (-1, -1);
            check(unsafe { sys::ncclCommCount(part, &mut got_ranks) })?;
            check(unsafe { sys::ncclCommUserRank(part, &mut got_rank) })?;
            ensure("place in the part", (got_ranks, got_rank) == (ranks, rank))?;
            let got = self.all_reduce(&[mine; 10], ty, sum)?;
            ensure("sum of the part", got == [want; 10])?;
            check(unsafe { sys::ncclCommDestroy(part) })?;
        }
        check(unsafe { sys::ncclCommDestroy(whole) })?;
        // An id is good for one communicator: the second one's differs from it in one byte.
        let mut other = id;
        other.internal[127] ^= 1;
        let (rank, config) = (self.rank as i32, std::ptr::null_mut());
        check(unsafe {
            sys::ncclCommInitRankConfig(&mut self.comm, RANKS as i32, other, rank, config)
        })?;
        let got = self.all_reduce(&[mine; 10], ty, sum)?;
        ensure("sum with a configuration", got == [3.0; 10])?;
        check(unsafe { sys::ncclCommDestroy(self.comm) })
    }

    /// Run with `FAKE_NCCL_FAIL=1:1:stall`: an abort ends what would never end.
    fn abort(self) -> Result {
        let send = self.stream.clone_htod(&[1f32; 100])?;
        let mut receive = self.stream.alloc_zeros::<f32>(100)?;
        let (s, r) = (
            pointer(&send, &self.stream),
            pointer_mut(&mut receive, &self.stream),
        );
        let (ty, sum) = (Type::ncclFloat32, Op::ncclSum);
        check(unsafe { sys::ncclAllReduce(s, r, 100, ty, sum, self.comm, self.raw()) })?;
        std::thread::sleep(Duration::from_millis(100));
        let mut code = Code::ncclSystemError;
        check(unsafe { sys::ncclCommGetAsyncError(self.comm, &mut code) })?;
        ensure("still waiting", code == Code::ncclSuccess)?;
        // Who sees that the other has aborted has an error of its own.
        static BOTH_WAIT: Barrier = Barrier::new(RANKS);
        BOTH_WAIT.wait();
        let start = Instant::now();
        check(unsafe { sys::ncclGroupStart() })?;
        check(unsafe { sys::ncclCommAbort(self.comm) })?;
        check(unsafe { sys::ncclGroupEnd() })?;
        self.stream.synchronize()?;
        ensure("time to abort", start.elapsed() < Duration::from_secs(5))?;
        let got = self.stream.clone_dtoh(&receive)?;
        ensure("aborted result", got.iter().all(|v| v.is_nan()))
    }

    /// An all-reduce that cannot work: the result is NaN and the communicator has failed.
    fn failing(&self, count: usize, want: Code) -> Result {
        let send = self.stream.clone_htod(&vec![1f32; count])?;
        let mut receive = self.stream.alloc_zeros::<f32>(count)?;
        let (s, r) = (
            pointer(&send, &self.stream),
            pointer_mut(&mut receive, &self.stream),
        );
        let (ty, sum) = (Type::ncclFloat32, Op::ncclSum);
        check(unsafe { sys::ncclAllReduce(s, r, count, ty, sum, self.comm, self.raw()) })?;
        let got = self.stream.clone_dtoh(&receive)?;
        ensure("poisoned result", got.iter().all(|v| v.is_nan()))?;
        let mut code = Code::ncclSuccess;
        check(unsafe { sys::ncclCommGetAsyncError(self.comm, &mut code) })?;
        let expected = code == want || code == Code::ncclRemoteError;
        ensure(&format!("asynchronous error {code:?}"), expected)?;
        let refused = unsafe { sys::ncclAllReduce(s, r, count, ty, sum, self.comm, self.raw()) };
        ensure("later call", refused != Code::ncclSuccess)
    }
}

/// One thread drives both ranks, inside a group.
fn one_thread() -> Result {
    let mut report = Report::new();
    let streams = (0..RANKS).map(|d| CudaContext::new(d)?.new_stream());
    let streams: Vec<_> = streams.collect::<std::result::Result<_, _>>()?;
    let mut comms = [std::ptr::null_mut(); RANKS];
    check(unsafe { sys::ncclCommInitAll(comms.as_mut_ptr(), RANKS as i32, std::ptr::null()) })?;
    let mut buffers = Vec::new();
    for (rank, stream) in streams.iter().enumerate() {
        stream.context().bind_to_thread()?;
        buffers.push(stream.clone_htod(&vec![rank as f32 + 1.0; 1000])?);
    }
    check(unsafe { sys::ncclGroupStart() })?;
    for ((stream, comm), buffer) in streams.iter().zip(comms).zip(&mut buffers) {
        let at = pointer_mut(buffer, stream);
        let (ty, sum) = (Type::ncclFloat32, Op::ncclSum);
        check(unsafe {
            sys::ncclAllReduce(at, at, 1000, ty, sum, comm, stream.cu_stream().cast())
        })?;
    }
    check(unsafe { sys::ncclGroupEnd() })?;
    for (stream, buffer) in streams.iter().zip(&buffers) {
        report.check(
            "group of two ranks",
            stream.clone_dtoh(buffer)? == vec![3f32; 1000],
        );
    }
    for comm in comms {
        check(unsafe { sys::ncclCommDestroy(comm) })?;
    }
    report.finish()
}

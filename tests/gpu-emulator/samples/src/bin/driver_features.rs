//! The driver features a trainer relies on, one group per argument.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use std::sync::Arc;

use cudarc::driver::{
    result, sys, CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError,
    PushKernelArg,
};
use samples::{grid, load, Report, Result};
use sys::CUresult::{
    CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_OUT_OF_MEMORY,
};

fn main() -> Result {
    let mut report = Report::new();
    match std::env::args().nth(1).unwrap_or_default().as_str() {
        "basics" => basics(&mut report)?,
        "out-of-memory" => out_of_memory(&mut report)?,
        "injected-fault" => injected_fault(&mut report)?,
        "sticky-error" => sticky_error(&mut report)?,
        "two-streams" => two_streams(&mut report, true)?,
        "two-streams-missing-wait" => two_streams(&mut report, false)?,
        other => return Err(format!("unknown group `{other}`").into()),
    }
    report.finish()
}

fn fails_with<T>(result: std::result::Result<T, DriverError>, want: sys::CUresult) -> bool {
    matches!(result, Err(DriverError(code)) if code == want)
}

/// `weight -= rate * grad` on `n` floats.
fn sgd(
    context: &Arc<CudaContext>,
    stream: &Arc<CudaStream>,
    weight: &mut CudaSlice<f32>,
    grad: &CudaSlice<f32>,
) -> Result<std::result::Result<(), DriverError>> {
    let kernel = load(context, "train", "compute_80")?.load_function("sgd")?;
    let (n, rate) = (weight.len() as i32, 1f32);
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(weight).arg(grad).arg(&n).arg(&rate);
    Ok(
        unsafe { launch.launch(grid(((n as u32).div_ceil(256), 1, 1), (256, 1, 1), 0)) }
            .map(|_| ()),
    )
}

fn basics(report: &mut Report) -> Result {
    report.check("two devices", CudaContext::device_count()? == 2);
    let contexts = [CudaContext::new(0)?, CudaContext::new(1)?];
    let [first, second] = &contexts;
    report.check(
        "names",
        first.name()? != second.name()? && first.name()?.contains("Emulated"),
    );
    report.check("uuids", first.uuid()?.bytes != second.uuid()?.bytes);
    report.check("compute capability", first.compute_capability()? == (9, 0));

    let stream = first.new_stream()?;
    let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(flags)?;
    let mut weight = stream.clone_htod(&vec![3f32; 10_000])?;
    let grad = stream.clone_htod(&vec![1f32; 10_000])?;
    sgd(first, &stream, &mut weight, &grad)??;
    let end = stream.record_event(flags)?;
    stream.synchronize()?;
    report.check("kernel", stream.clone_dtoh(&weight)? == vec![2f32; 10_000]);
    report.check("elapsed time", start.elapsed_ms(&end)? > 0.0);

    let other_stream = second.new_stream()?;
    let copy = other_stream.clone_dtod(&weight)?;
    report.check(
        "peer copy",
        other_stream.clone_dtoh(&copy)? == vec![2f32; 10_000],
    );

    let mut pinned = unsafe { first.alloc_pinned::<f32>(10_000)? };
    stream.memcpy_dtoh(&weight, &mut pinned)?;
    stream.synchronize()?;
    report.check("pinned memory", pinned.as_slice()?[9_999] == 2.0);

    // One call for every direction, and memory that the host may read at full speed.
    let mut host = std::ptr::null_mut();
    let bytes = 4 * 10_000;
    unsafe {
        sys::cuMemHostAlloc(&mut host, bytes, sys::CU_MEMHOSTALLOC_PORTABLE).result()?;
        let device = weight.device_ptr(&stream).0;
        sys::cuMemcpyAsync(host as u64, device, bytes, stream.cu_stream()).result()?;
        stream.synchronize()?;
        *host.cast::<f32>() = 5.0;
        sys::cuMemcpyAsync(device, host as u64, bytes, stream.cu_stream()).result()?;
        stream.synchronize()?;
        sys::cuMemFreeHost(host).result()?;
    }
    let copied = stream.clone_dtoh(&weight)?;
    report.check("cuMemcpyAsync", copied[..2] == [5.0, 2.0]);

    let (free, total) = result::mem_get_info()?;
    report.check("memory info", free < total);

    let kernel = load(first, "train", "compute_80")?.load_function("sgd")?;
    let blocks = kernel.occupancy_max_active_blocks_per_multiprocessor(256, 0, None)?;
    report.check("occupancy", blocks == 8);

    graph(report, first)
}

fn graph(report: &mut Report, context: &Arc<CudaContext>) -> Result {
    let stream = context.new_stream()?;
    let module = load(context, "train", "compute_80")?;
    let kernel = module.load_function("sgd")?;
    let mut weight = stream.clone_htod(&vec![10f32; 1000])?;
    let grad = stream.clone_htod(&vec![1f32; 1000])?;
    stream.synchronize()?;
    unsafe { context.disable_event_tracking() };
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let (n, rate) = (1000i32, 1f32);
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut weight).arg(&grad).arg(&n).arg(&rate);
    unsafe { launch.launch(grid((4, 1, 1), (256, 1, 1), 0))? };
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags)?.ok_or("nothing was captured")?;
    let before = stream.clone_dtoh(&weight)?[0];
    (0..3).try_for_each(|_| graph.launch())?;
    report.check(
        "graph",
        before == 10.0 && stream.clone_dtoh(&weight)? == vec![7f32; 1000],
    );
    nodes(report, context, &kernel)
}

/// Nodes that depend on each other run in that order, others in the least convenient one; an argument
/// that is set anew holds from the next launch on.
fn nodes(report: &mut Report, context: &Arc<CudaContext>, sgd: &CudaFunction) -> Result {
    let stream = context.new_stream()?;
    let weight = stream.clone_htod(&[1f32])?;
    let gradient = stream.clone_htod(&[0f32])?;
    stream.synchronize()?;
    let pointers = [weight.device_ptr(&stream).0, gradient.device_ptr(&stream).0];
    // weight -= rate * gradient, then gradient -= rate * weight: other numbers the other way round.
    let [first, second] = [pointers, [pointers[1], pointers[0]]];
    let run = |chained: bool, nested: bool, rates: &[f32]| -> Result<[f32; 2]> {
        unsafe { result::memcpy_htod_sync(pointers[0], &[1f32])? };
        unsafe { result::memcpy_htod_sync(pointers[1], &[1f32])? };
        let (mut graph, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
        unsafe { sys::cuGraphCreate(&mut graph, 0).result()? };
        let one = with_node(sgd, first, rates[0], |node| add(graph, &[], node))?;
        let after: &[_] = if chained { &[one] } else { &[] };
        let mut child = std::ptr::null_mut();
        if nested {
            unsafe { sys::cuGraphCreate(&mut child, 0).result()? };
            with_node(sgd, second, rates[0], |node| add(child, &[], node))?;
            let mut node = std::ptr::null_mut();
            unsafe {
                let add = sys::cuGraphAddChildGraphNode;
                add(&mut node, graph, after.as_ptr(), after.len(), child).result()?;
                sys::cuGraphDestroy(child).result()?;
            }
        } else {
            with_node(sgd, second, rates[0], |node| add(graph, after, node))?;
        }
        unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0).result()? };
        for &rate in rates {
            with_node(sgd, first, rate, |node| unsafe {
                sys::cuGraphExecKernelNodeSetParams_v2(exec, one, node).result()
            })?;
            unsafe { sys::cuGraphLaunch(exec, stream.cu_stream()).result()? };
        }
        stream.synchronize()?;
        let mut values = [0f32; 2];
        unsafe { result::memcpy_dtoh_sync(&mut values[..1], pointers[0])? };
        unsafe { result::memcpy_dtoh_sync(&mut values[1..], pointers[1])? };
        unsafe { sys::cuGraphExecDestroy(exec).result()? };
        unsafe { sys::cuGraphDestroy(graph).result()? };
        Ok(values)
    };
    report.check("chained nodes", run(true, false, &[0.5])? == [0.5, 0.75]);
    report.check(
        "a graph behind a node",
        run(true, true, &[0.5])? == [0.5, 0.75],
    );
    report.check(
        "nodes without order",
        run(false, false, &[0.5])? == [0.75, 0.5],
    );
    report.check(
        "changed nodes",
        run(true, false, &[0.5, 2.0])? == [-1.0, 1.25],
    );
    Ok(())
}

/// Calls with the parameters of `sgd` on one float each of `[weight, gradient]`.
fn with_node<T>(
    sgd: &CudaFunction,
    [mut weight, mut gradient]: [u64; 2],
    mut rate: f32,
    call: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> T,
) -> T {
    let mut n = 1i32;
    let mut arguments = [
        (&raw mut weight).cast(),
        (&raw mut gradient).cast(),
        (&raw mut n).cast(),
        (&raw mut rate).cast(),
    ];
    call(&sys::CUDA_KERNEL_NODE_PARAMS {
        func: sgd.cu_function(),
        gridDimX: 1,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 1,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        kernelParams: arguments.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    })
}

fn add(
    graph: sys::CUgraph,
    after: &[sys::CUgraphNode],
    node: &sys::CUDA_KERNEL_NODE_PARAMS,
) -> std::result::Result<sys::CUgraphNode, DriverError> {
    let mut handle = std::ptr::null_mut();
    let (dependencies, count) = (after.as_ptr(), after.len());
    unsafe {
        sys::cuGraphAddKernelNode_v2(&mut handle, graph, dependencies, count, node).result()?;
    }
    Ok(handle)
}

fn out_of_memory(report: &mut Report) -> Result {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let small = stream.alloc_zeros::<u8>(600_000)?;
    report.check(
        "too much",
        fails_with(stream.alloc_zeros::<u8>(600_000), CUDA_ERROR_OUT_OF_MEMORY),
    );
    drop(small);
    report.check("after a free", stream.alloc_zeros::<u8>(600_000).is_ok());
    Ok(())
}

/// Run with `FAKE_CUDA_FAIL=cuLaunchKernel:2`.
fn injected_fault(report: &mut Report) -> Result {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let mut weight = stream.clone_htod(&vec![3f32; 100])?;
    let grad = stream.clone_htod(&vec![1f32; 100])?;
    report.check(
        "first launch",
        sgd(&context, &stream, &mut weight, &grad)?.is_ok(),
    );
    let second = sgd(&context, &stream, &mut weight, &grad)?;
    report.check(
        "second launch",
        fails_with(second, CUDA_ERROR_LAUNCH_FAILED),
    );
    report.check(
        "whatever comes after it",
        fails_with(stream.synchronize(), CUDA_ERROR_LAUNCH_FAILED),
    );
    Ok(())
}

fn sticky_error(report: &mut Report) -> Result {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let kernel = load(&context, "train", "compute_80")?.load_function("overrun")?;
    let mut x = stream.alloc_zeros::<f32>(100)?;
    let n = 100i32;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut x).arg(&n);
    // The launch itself may or may not see the error, but the next synchronisation must.
    let _ = unsafe { launch.launch(grid((1, 1, 1), (128, 1, 1), 0)) };
    let synchronised = stream.synchronize();
    report.check(
        "synchronize",
        fails_with(synchronised, CUDA_ERROR_ILLEGAL_ADDRESS),
    );
    report.check(
        "later calls",
        fails_with(stream.alloc_zeros::<f32>(1), CUDA_ERROR_ILLEGAL_ADDRESS),
    );
    std::mem::forget(x);
    Ok(())
}

/// One stream produces, another consumes. Without the wait the result is right only by luck.
fn two_streams(report: &mut Report, with_wait: bool) -> Result {
    let context = CudaContext::new(0)?;
    unsafe { context.disable_event_tracking() };
    let (producer, consumer) = (context.new_stream()?, context.new_stream()?);
    let mut weight = producer.clone_htod(&vec![3f32; 1000])?;
    let grad = producer.clone_htod(&vec![1f32; 1000])?;
    producer.synchronize()?;
    sgd(&context, &producer, &mut weight, &grad)??;
    if with_wait {
        consumer.wait(&producer.record_event(None)?)?;
    }
    report.check(
        "consumer",
        consumer.clone_dtoh(&weight)? == vec![2f32; 1000],
    );
    Ok(())
}

//! A batch as a CUDA graph.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUgraphNode, CUresult};

use super::batch::{Batch, Work};
use crate::backend::cuda::cublaslt::Products;
use crate::backend::cuda::device::{Device, describe};

/// Launches one behind the other.
pub(super) struct Graph {
    exec: CUgraphExec,
    graph: Source,
    /// One for each launch.
    nodes: Vec<CUgraphNode>,
}

/// What a graph is made of; destroyed when dropped.
struct Source(CUgraph);

impl Graph {
    /// The context of `device` is bound.
    ///
    /// # Errors
    /// In the words of the driver, or of the library that does not let its product be recorded.
    pub(super) fn new(
        device: &Device,
        batch: &Batch,
        libraries: &[Arc<Products>],
    ) -> Result<Self, String> {
        let graph = Source::new()?;
        let mut nodes: Vec<CUgraphNode> = Vec::with_capacity(batch.len());
        for (number, work) in batch.works().enumerate() {
            let mut node = std::ptr::null_mut();
            // The first has nothing before it.
            let (before, count) = (nodes.last(), nodes.len().min(1));
            let before = before.map_or(std::ptr::null(), std::ptr::from_ref);
            done(match work {
                Work::Kernel { .. } => batch.with_parameters(number, |parameters| {
                    // SAFETY: as for a launch; what it depends on is a node of the same graph.
                    unsafe {
                        sys::cuGraphAddKernelNode_v2(&mut node, graph.0, before, count, parameters)
                    }
                }),
                Work::Product { library, planned } => {
                    let product = Source::recorded(device, || {
                        libraries[library].run(&planned, device.compute)
                    })?;
                    // SAFETY: as above; the node is a copy of the graph.
                    unsafe {
                        sys::cuGraphAddChildGraphNode(&mut node, graph.0, before, count, product.0)
                    }
                }
            })?;
            nodes.push(node);
        }
        let mut exec = std::ptr::null_mut();
        // SAFETY: writes one handle.
        done(unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) })?;
        Ok(Self { exec, graph, nodes })
    }

    /// Gives a kernel the arguments that `batch`, which this was made of, has now; whether it took them.
    pub(super) fn update(&self, device: &Device, number: usize, batch: &Batch) -> bool {
        let set = batch.with_parameters(number, |parameters| {
            // SAFETY: as for a launch; the node is the graph's.
            unsafe {
                sys::cuGraphExecKernelNodeSetParams_v2(self.exec, self.nodes[number], parameters)
            }
        });
        device.check("cuGraphExecKernelNodeSetParams", set.result())
    }

    pub(super) fn launch(&self, device: &Device) {
        // SAFETY: the graph was made in the device's context.
        let launched = unsafe { sys::cuGraphLaunch(self.exec, device.compute) };
        device.check("cuGraphLaunch", launched.result());
    }

    /// Destroys it.
    ///
    /// # Safety
    /// The device's context is bound, and its streams are idle.
    pub(super) unsafe fn free(self) {
        // SAFETY: made in `new`; nothing runs.
        let _ = unsafe { sys::cuGraphExecDestroy(self.exec) };
        drop(self.graph);
    }
}

impl Source {
    fn new() -> Result<Self, String> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: writes one handle.
        done(unsafe { sys::cuGraphCreate(&mut graph, 0) })?;
        Ok(Self(graph))
    }

    /// What `call` queues on the compute stream, which is not queued. Other threads may use the driver
    /// meanwhile.
    fn recorded(
        device: &Device,
        call: impl FnOnce() -> Result<(), String>,
    ) -> Result<Self, String> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as the device.
        done(unsafe { sys::cuStreamBeginCapture_v2(device.compute, mode) })?;
        let called = call();
        let mut graph = std::ptr::null_mut();
        // SAFETY: it was begun above.
        let ended = done(unsafe { sys::cuStreamEndCapture(device.compute, &mut graph) });
        let graph = Self(graph);
        called.and(ended).map(|()| graph)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made once, destroyed once.
            let _ = unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}

fn done(result: CUresult) -> Result<(), String> {
    result.result().map_err(describe)
}

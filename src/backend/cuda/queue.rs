//! Kernels on their way to the compute stream: many together, as CUDA graphs.
//!
//! A step queues the kernels of the step before; what differs are numbers among their arguments, such as
//! the step, the learning rate or a scale. Each launch costs the host some microseconds, which is more
//! than a small kernel takes. So, with graphs, kernels wait here until something else has to come behind
//! them: a fence, a copy from or to the host, a wait. A list of kernels that comes again is made a graph,
//! and from then on launched by one call. Every argument is compared with that of the launch before, and
//! set anew where it differs: nothing is taken to be constant that only was so when it was recorded.
//!
//! Collectives stay outside, on their own stream behind the fences: there they begin, end, and are given
//! up by name whether or not kernels go in graphs.

use std::ffi::c_void;
use std::ops::Range;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{self, CUfunction, CUgraph, CUgraphExec, CUgraphNode};

use super::device::{Device, describe};
use super::kernels::Kernel;
use super::launch::{Argument, Grid};

/// Most parameters a kernel has.
const MAX_ARGUMENTS: usize = 32;

/// Most kernels that wait: the GPU shall begin while the host goes on.
const MOST_WAITING: usize = 256;

/// Fewest kernels that are worth a graph.
const FEWEST_OF_A_GRAPH: usize = 3;

/// Most lists of kernels that are remembered. What comes after them goes without graphs.
const MOST_RECORDINGS: usize = 256;

/// What the compute stream has not been given yet, and the graphs made of what it was given before.
pub(super) struct Queue {
    /// Whether kernels wait for each other.
    pub(super) with_graphs: bool,
    waiting: Batch,
    recordings: Vec<Recording>,
    /// The recording that is expected next: the one behind the last.
    expected: usize,
    counts: GraphCounts,
}

/// How often graphs were used on a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphCounts {
    /// Lists of kernels that were made graphs.
    pub graphs: usize,
    /// Launches of them.
    pub launches: usize,
    /// Kernels in graphs that were given other arguments.
    pub updates: usize,
}

/// Kernels with their arguments, in order.
#[derive(Debug, Clone, Default)]
struct Batch {
    launches: Vec<Launch>,
    /// Where each argument of each launch begins, in words.
    arguments: Vec<u32>,
    words: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Launch {
    kernel: Kernel,
    function: CUfunction,
    grid: Grid,
    /// Where its arguments begin among those of the batch.
    first_argument: usize,
    first_word: usize,
}

/// A list of kernels that was launched once, with the arguments it was last given.
struct Recording {
    batch: Batch,
    state: State,
}

enum State {
    Seen,
    Graph(Graph),
    /// The driver made no graph of it.
    Refused,
}

/// Kernels one behind the other.
struct Graph {
    exec: CUgraphExec,
    graph: CUgraph,
    nodes: Vec<CUgraphNode>,
}

// SAFETY: handles of the driver, used under the device's mutex as `Device` says.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            with_graphs: false,
            waiting: Batch::default(),
            recordings: Vec::new(),
            expected: 0,
            counts: GraphCounts::default(),
        }
    }

    /// Puts `kernel` behind all others. The context of `device` is bound.
    pub(super) fn push(
        &mut self,
        device: &Device,
        (kernel, function): (Kernel, CUfunction),
        grid: Grid,
        arguments: &[Argument<'_>],
    ) {
        self.waiting.push((kernel, function), grid, arguments);
        if !self.with_graphs || self.waiting.launches.len() == MOST_WAITING {
            self.flush(device);
        }
    }

    /// Gives the compute stream all that waits. The context of `device` is bound.
    pub(super) fn flush(&mut self, device: &Device) {
        let waiting = &self.waiting;
        if waiting.launches.is_empty() {
            return;
        }
        if !self.with_graphs || waiting.launches.len() < FEWEST_OF_A_GRAPH {
            waiting.launch(device);
            return self.waiting.clear();
        }
        let (ahead, behind) = (self.expected..self.recordings.len(), 0..self.expected);
        let found = ahead
            .chain(behind)
            .find(|&number| self.recordings[number].batch.is_like(waiting));
        match found {
            Some(number) => {
                self.expected = number + 1;
                let recording = &mut self.recordings[number];
                recording.launch(device, waiting, &mut self.counts);
            }
            None => {
                waiting.launch(device);
                if self.recordings.len() < MOST_RECORDINGS {
                    let batch = waiting.clone();
                    let state = State::Seen;
                    self.recordings.push(Recording { batch, state });
                }
                self.expected = self.recordings.len();
            }
        }
        self.waiting.clear();
    }

    pub(super) fn counts(&self) -> GraphCounts {
        self.counts
    }

    /// Forgets all.
    ///
    /// # Safety
    /// The device's context is bound, and its streams are idle.
    pub(super) unsafe fn free(&mut self) {
        self.waiting.clear();
        for recording in self.recordings.drain(..) {
            if let State::Graph(graph) = recording.state {
                // SAFETY: made in `Graph::new`; nothing runs.
                unsafe {
                    let _ = sys::cuGraphExecDestroy(graph.exec);
                    let _ = sys::cuGraphDestroy(graph.graph);
                }
            }
        }
    }
}

impl Batch {
    fn push(
        &mut self,
        (kernel, function): (Kernel, CUfunction),
        grid: Grid,
        arguments: &[Argument<'_>],
    ) {
        assert!(arguments.len() <= MAX_ARGUMENTS, "{}", kernel.name());
        self.launches.push(Launch {
            kernel,
            function,
            grid,
            first_argument: self.arguments.len(),
            first_word: self.words.len(),
        });
        for argument in arguments {
            self.arguments.push(self.words.len() as u32);
            let bytes = argument.bytes();
            let (whole, rest) = bytes.as_chunks::<8>();
            self.words
                .extend(whole.iter().map(|bytes| u64::from_ne_bytes(*bytes)));
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                self.words.push(u64::from_ne_bytes(last));
            }
        }
    }

    fn clear(&mut self) {
        self.launches.clear();
        self.arguments.clear();
        self.words.clear();
    }

    /// Whether these are the same kernels on the same grids.
    fn is_like(&self, other: &Self) -> bool {
        self.launches == other.launches && self.arguments == other.arguments
    }

    /// The words of a launch's arguments.
    fn words(&self, number: usize) -> Range<usize> {
        let next = self.launches.get(number + 1);
        self.launches[number].first_word..next.map_or(self.words.len(), |next| next.first_word)
    }

    /// Calls with a launch's parameters as the driver wants them.
    fn with_parameters<R>(
        &self,
        number: usize,
        call: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> R,
    ) -> R {
        let launch = &self.launches[number];
        let next = self.launches.get(number + 1);
        let end = next.map_or(self.arguments.len(), |next| next.first_argument);
        let arguments = &self.arguments[launch.first_argument..end];
        let mut values = [std::ptr::null_mut::<c_void>(); MAX_ARGUMENTS];
        for (value, &word) in values.iter_mut().zip(arguments) {
            // The driver copies them and writes nothing.
            *value = self.words[word as usize..].as_ptr().cast_mut().cast();
        }
        let [x, y, z] = launch.grid.blocks;
        let [threads_x, threads_y, threads_z] = launch.grid.threads;
        call(&sys::CUDA_KERNEL_NODE_PARAMS {
            func: launch.function,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads_x,
            blockDimY: threads_y,
            blockDimZ: threads_z,
            sharedMemBytes: launch.kernel.dynamic_shared_bytes(),
            kernelParams: values.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        })
    }

    /// Launches one kernel after another; a failure is kept under the kernel's name.
    fn launch(&self, device: &Device) {
        for (number, launch) in self.launches.iter().enumerate() {
            let launched = self.with_parameters(number, |node| {
                // SAFETY: the function was made from the kernel's source in this context; the driver
                // copies the arguments before it returns. That they are what the source declares is what
                // each caller of `Cuda::launch` and its test are for.
                unsafe {
                    sys::cuLaunchKernel(
                        node.func,
                        node.gridDimX,
                        node.gridDimY,
                        node.gridDimZ,
                        node.blockDimX,
                        node.blockDimY,
                        node.blockDimZ,
                        node.sharedMemBytes,
                        device.compute,
                        node.kernelParams,
                        node.extra,
                    )
                }
                .result()
            });
            device.check(launch.kernel.name(), launched);
        }
    }
}

impl Recording {
    /// Launches what was recorded with the arguments of `batch`, which is like it.
    fn launch(&mut self, device: &Device, batch: &Batch, counts: &mut GraphCounts) {
        if matches!(self.state, State::Seen) {
            self.batch.words.copy_from_slice(&batch.words);
            self.state = match Graph::new(&self.batch) {
                Ok(graph) => {
                    counts.graphs += 1;
                    State::Graph(graph)
                }
                Err(error) => {
                    let kernels = batch.launches.len();
                    let problem = describe(error);
                    tracing::warn!("no graph of {kernels} kernels: {problem}");
                    State::Refused
                }
            };
        }
        let State::Graph(graph) = &self.state else {
            return batch.launch(device);
        };
        for (number, &node) in graph.nodes.iter().enumerate() {
            let words = batch.words(number);
            if self.batch.words[words.clone()] == batch.words[words.clone()] {
                continue;
            }
            self.batch.words[words.clone()].copy_from_slice(&batch.words[words]);
            let set = self.batch.with_parameters(number, |parameters| {
                // SAFETY: as for a launch; the node is the graph's.
                unsafe { sys::cuGraphExecKernelNodeSetParams_v2(graph.exec, node, parameters) }
                    .result()
            });
            device.check("cuGraphExecKernelNodeSetParams", set);
            counts.updates += 1;
        }
        // SAFETY: the graph was made in this context.
        let launched = unsafe { sys::cuGraphLaunch(graph.exec, device.compute) };
        device.check("cuGraphLaunch", launched.result());
        counts.launches += 1;
    }
}

impl Graph {
    fn new(batch: &Batch) -> Result<Self, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result()?;
        let made = Self::nodes(graph, batch).and_then(|nodes| {
            let mut exec = std::ptr::null_mut();
            // SAFETY: as above.
            unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0) }.result()?;
            Ok(Self { exec, graph, nodes })
        });
        if made.is_err() {
            // SAFETY: nobody else has the handle.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        made
    }

    fn nodes(graph: CUgraph, batch: &Batch) -> Result<Vec<CUgraphNode>, DriverError> {
        let mut nodes: Vec<CUgraphNode> = Vec::with_capacity(batch.launches.len());
        for number in 0..batch.launches.len() {
            let before = nodes.last();
            let mut node = std::ptr::null_mut();
            batch.with_parameters(number, |parameters| {
                let (dependency, count) = match before {
                    Some(before) => (std::ptr::from_ref(before), 1),
                    None => (std::ptr::null(), 0),
                };
                // SAFETY: as for a launch; what it depends on is a node of the same graph.
                unsafe {
                    sys::cuGraphAddKernelNode_v2(&mut node, graph, dependency, count, parameters)
                }
                .result()
            })?;
            nodes.push(node);
        }
        Ok(nodes)
    }
}

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

mod batch;
mod graph;

use std::sync::Arc;

use cudarc::driver::sys::CUfunction;

use self::batch::{Batch, Work};
use self::graph::Graph;
use super::cublaslt::{Planned, Products};
use super::device::Device;
use super::kernels::Kernel;
use super::launch::{Argument, Grid};

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
    /// Whose products were handed over; kept until nothing of theirs can be running.
    libraries: Vec<Arc<Products>>,
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

// SAFETY: handles of the driver, used under the device's mutex as `Device` says.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            with_graphs: false,
            waiting: Batch::default(),
            recordings: Vec::new(),
            libraries: Vec::new(),
            expected: 0,
            counts: GraphCounts::default(),
        }
    }

    /// Puts `kernel` behind all others.
    pub(super) fn push(
        &mut self,
        device: &Device,
        (kernel, function): (Kernel, CUfunction),
        grid: Grid,
        arguments: &[Argument<'_>],
    ) {
        let work = Work::Kernel {
            kernel,
            function,
            grid,
        };
        self.waiting.push(work, arguments);
        self.flush_if_due(device);
    }

    /// Puts a product of cuBLASLt's behind all others.
    pub(super) fn push_product(
        &mut self,
        device: &Device,
        products: &Arc<Products>,
        planned: Planned,
    ) {
        let mut known = self.libraries.iter();
        let known = known.position(|known| Arc::ptr_eq(known, products));
        let library = known.unwrap_or_else(|| {
            self.libraries.push(Arc::clone(products));
            self.libraries.len() - 1
        });
        self.waiting.push(Work::Product { library, planned }, &[]);
        self.flush_if_due(device);
    }

    fn flush_if_due(&mut self, device: &Device) {
        if !self.with_graphs || self.waiting.len() == MOST_WAITING {
            device.bind();
            self.flush(device);
        }
    }

    /// Gives the compute stream all that waits. The context of `device` is bound.
    pub(super) fn flush(&mut self, device: &Device) {
        let (waiting, libraries) = (&self.waiting, &self.libraries[..]);
        if waiting.is_empty() {
            return;
        }
        if !self.with_graphs || waiting.len() < FEWEST_OF_A_GRAPH {
            waiting.launch(device, libraries);
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
                recording.launch(device, waiting, libraries, &mut self.counts);
            }
            None => {
                waiting.launch(device, libraries);
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
                // SAFETY: the caller's promise.
                unsafe { graph.free() };
            }
        }
        self.libraries.clear();
    }
}

impl Recording {
    /// Launches what was recorded with the arguments of `batch`, which is like it.
    fn launch(
        &mut self,
        device: &Device,
        batch: &Batch,
        libraries: &[Arc<Products>],
        counts: &mut GraphCounts,
    ) {
        if matches!(self.state, State::Seen) {
            self.batch.copy_arguments(batch);
            self.state = match Graph::new(device, &self.batch, libraries) {
                Ok(graph) => {
                    counts.graphs += 1;
                    State::Graph(graph)
                }
                Err(problem) => {
                    tracing::warn!("no graph of {} kernels: {problem}", batch.len());
                    State::Refused
                }
            };
        }
        let State::Graph(graph) = &self.state else {
            return batch.launch(device, libraries);
        };
        for number in 0..batch.len() {
            if !self.batch.update(number, batch) {
                continue;
            }
            if !graph.update(device, number, &self.batch) {
                // It would run with what it was given before.
                return batch.launch(device, libraries);
            }
            counts.updates += 1;
        }
        graph.launch(device);
        counts.launches += 1;
    }
}

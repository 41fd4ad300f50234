//! A `libcuda.so` for machines without a GPU.
//!
//! Device memory is host memory, kernels run in the PTX interpreter, and streams are queues of
//! closures (see [`queue`]). What the real driver leaves undefined is made visible where possible:
//! fresh and freed memory is NaN, out-of-bounds copies are refused, and with
//! `FAKE_CUDA_STREAMS=deferred` or `ahead` work that nobody waits for is missing or too early.
//!
//! Every environment variable is described in the README.

mod api;
mod config;
mod entry;
mod error;
mod faults;
mod graph;
mod kernel;
mod memory;
mod queue;
mod state;

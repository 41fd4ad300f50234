//! Runs PTX kernels on the CPU.
//!
//! The interpreter executes the PTX that NVRTC or nvcc made for a real device, thread block by
//! thread block, and checks what a device does not: bounds and alignment of every access, races on
//! shared memory, reads of shared memory nobody wrote, member masks of warp-wide instructions, and
//! deadlocks. It says nothing about speed, and it is not bit-exact: tensor-core sums are made in
//! f32 in k order, and approximate instructions (`ex2.approx`, ...) are computed exactly.
//!
//! ```
//! use ptx_interpreter::{parse_module, LaunchConfig, MemoryMap, Options};
//!
//! let module = parse_module("
//!     .version 8.0
//!     .target sm_80
//!     .visible .entry twice(.param .u64 p) {
//!         .reg .b64 %rd<2>; .reg .f32 %f<2>;
//!         ld.param.u64 %rd1, [p];
//!         ld.global.f32 %f1, [%rd1];
//!         add.f32 %f1, %f1, %f1;
//!         st.global.f32 [%rd1], %f1;
//!         ret;
//!     }").unwrap();
//! let mut value = [21.0f32];
//! let address = value.as_mut_ptr() as u64;
//! let memory = MemoryMap::new(vec![(address, 4)]);
//! let config = LaunchConfig::new([1, 1, 1], [1, 1, 1], 0);
//! // SAFETY: the memory map holds only memory we own.
//! unsafe {
//!     ptx_interpreter::launch(&module, "twice", &config, &address.to_le_bytes(), &memory,
//!         &Options::default()).unwrap();
//! }
//! assert_eq!(value[0], 42.0);
//! ```

#![expect(
    clippy::result_large_err,
    reason = "an error ends a launch, so its size is no cost"
)]

mod async_copy;
mod block;
mod error;
mod exec;
mod ir;
mod launch;
mod memory;
pub mod numeric;
mod parse;
mod products;
mod shadow;
mod types;
mod warp;

pub use error::{Error, ErrorKind};
pub use ir::{Formal, Function, Module};
pub use launch::{launch, AsyncTiming, LaunchConfig, LaunchStats, Options, Order};
pub use memory::{Checks, MemoryMap};
pub use parse::parse_module;
pub use types::{Kind, PtxType};

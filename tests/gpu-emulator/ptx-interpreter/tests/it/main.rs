//! Instructions against plain Rust, and every check against a kernel that breaks its rule.

#![expect(
    clippy::result_large_err,
    reason = "an error ends a test, so its size is no cost"
)]

mod kernel;
mod matrix;
mod memory;
mod scalar;
mod warp;
mod wgmma;

//! A `libcublasLt.so` for machines without a GPU.
//!
//! Products of matrices of `f32` or 16 bits with the epilogues that trainers use. Each is enqueued on the caller's
//! stream of the fake driver and computed by the CPU when its turn comes. Whatever does not fit together
//! is refused at the call, and a message says what.

mod api;
mod driver;
mod plan;
mod product;
mod status;

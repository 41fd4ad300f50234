//! Tests of the CUDA backend, on a GPU or on the emulator (`scripts/gpu-emulator.sh`).
//!
//! Without a driver every one of them fails. With a GPU all run but those whose names say what else they
//! need: cuBLASLt (`cublaslt`, `choice`), GPUs (`_on_2_gpus`, `_on_3_gpus`), or failures that the emulator alone makes (`_by_faults`).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop the test where they fail"
)]

mod activation;
mod bench;
mod block_sums;
mod choice;
#[path = "../collectives/mod.rs"]
mod collectives;
mod convolution;
mod cublaslt;
mod doctor;
mod estimators;
mod faults;
mod fences;
mod fixed_point;
mod graphs;
mod packed;
mod lookup;
mod loss;
mod matmul;
mod memory;
mod nccl;
mod normalization;
mod optimizers;
mod pooling;
mod precision;
mod staged;
mod training;
mod twins;
mod update;

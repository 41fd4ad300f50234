//! Data-parallel training in which the number of ranks does not change the result.
//!
//! Every rank holds a replica, runs forward and backward on its share of the global batch, sums
//! gradients with the others while backward still runs, and takes the same optimizer step.
//! `ARCHITECTURE.md` walks through one step; the modules below stand in the order of use:
//! each imports only from those after it.

pub mod cli;
pub mod train;
pub mod checkpoint;
pub mod config;
pub mod estimators;
pub mod models;
pub mod data;
pub mod columns;
pub mod layers;
pub mod optim;
pub mod comm;
pub mod params;
pub mod backend;
pub mod onnx;
pub mod named;
pub mod random;
mod installed;
mod range;
mod memory;

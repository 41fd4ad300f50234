//! TensorFlow's Estimators: their losses and metrics from the same weights, and equal bits on any number
//! of ranks; their answers under TensorFlow's names.

mod keys;
mod parity;
mod program;
mod ranks;
mod rows;

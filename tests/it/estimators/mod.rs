//! TensorFlow's Estimators: their losses and metrics from the same weights, and equal bits on any number
//! of ranks.

mod parity;
mod ranks;

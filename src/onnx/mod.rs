//! Models as ONNX files: a graph to which layers add what they compute, and its bytes.
//!
//! Inputs and outputs are as the rest of the project has them: `f32`, row-major, channels last, the
//! batch first and of any size. ONNX wants the channels of images first: a [`Value`] knows its order,
//! and is turned only where an operator needs the other one, so that a run of convolutions and
//! poolings is turned once before it and once behind it.

mod graph;
mod proto;
mod slots;
mod value;

pub use graph::{Graph, Tensor};
pub use value::Value;

/// A model that cannot be written as an ONNX file.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// Something written in Rust does not say what it computes.
    #[error(
        "{what} does not say what it computes: implement `export` for it, or export the weights alone \
         with --format safetensors"
    )]
    NoDescription {
        /// The model, or its layer.
        what: String,
    },
    /// Readers take no file of that size.
    #[error(
        "the model takes {bytes} bytes, but an ONNX file has less than 2 GiB; export the weights alone \
         with --format safetensors"
    )]
    TooLarge {
        /// Size of the file.
        bytes: usize,
    },
}

/// A setting of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f32),
    /// Whole numbers.
    Ints(Vec<i64>),
}

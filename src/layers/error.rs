//! What can be wrong with layers.

use super::Shape;
use crate::backend::BackendError;

/// A layer that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The layer before hands over something this one cannot take.
    #[error("layer '{layer}' {needs}, but '{previous}' before it gives {got}")]
    Shape {
        /// The layer that cannot be built.
        layer: String,
        /// What it needs, as a clause: "needs height x width x channels".
        needs: String,
        /// The layer before it, or "input".
        previous: String,
        /// The shape that one gives.
        got: Shape,
    },
    /// An argument makes no sense.
    #[error("layer '{layer}': {problem}")]
    Argument {
        /// The layer that cannot be built.
        layer: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// Two layers have one name.
    #[error(
        "two layers are called '{name}': this {kind}, and before it {other}; give one of them \
         another name"
    )]
    Name {
        /// The name.
        name: String,
        /// Kind of the layer that cannot be built.
        kind: String,
        /// The layer before it, with where its name came from.
        other: String,
    },
    /// Something is wrong with the model as a whole, such as a setting of its own.
    #[error("the model cannot be built: {problem}")]
    Model {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The device is too small.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

//! How parameters start out.

/// Keras's initialisers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initializer {
    /// The same value everywhere.
    Constant(f32),
}

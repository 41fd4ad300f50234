//! What a model consists of.

use crate::backend::Backend;
use crate::layers::{Build, LayerSummary, Shape, StateTensor, Table};
use crate::params::Layout;

/// A model without its numbers: what the trainer, the checkpoint and people have to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Structure {
    /// The trainable tensors, in forward order.
    pub layout: Layout,
    /// The non-trainable state.
    pub states: Vec<StateTensor>,
    /// The tables of which the arena has only what a step touches.
    pub tables: Vec<Table>,
    /// The layers, in forward order, each before those in it.
    pub layers: Vec<LayerSummary>,
    /// Shape of one row of input.
    pub input: Shape,
    /// Shape of one row of output.
    pub output: Shape,
    /// Numbers per row of targets.
    pub target_width: usize,
}

impl Structure {
    /// Of the model that was built by `build`, for rows of shape `input`, which gives rows of shape
    /// `output` that are compared with `target_width` numbers.
    pub fn new<B: Backend>(
        build: Build<'_, B>,
        input: &Shape,
        output: &Shape,
        target_width: usize,
    ) -> Self {
        let layers = build.summary().to_vec();
        let (layout, states, tables) = build.finish();
        Self {
            layout,
            states,
            tables,
            layers,
            input: input.clone(),
            output: output.clone(),
            target_width,
        }
    }
}

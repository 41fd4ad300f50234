//! Tables of which the arena has only the rows that a step touches (`params::WorkingSet`).

use std::ops::Range;

use super::{TrainError, Trainer};
use crate::backend::{Accumulate, Backend, Bag, ViewMut};
use crate::layers;
use crate::models::Model;
use crate::optim::Optimizers;
use crate::params::{Layout, WorkingSet};

/// A table, all of it, with the state that its optimizer keeps of it.
pub(super) struct Table<B: Backend> {
    pub(super) spec: layers::Table,
    /// `[rows, width]`, as a checkpoint has it.
    pub(super) shape: Vec<usize>,
    pub(super) values: B::Buffer<f32>,
    /// As many as the optimizer has names for them.
    pub(super) states: Vec<B::Buffer<f32>>,
    /// Which optimizer steps it.
    pub(super) optimizer: usize,
    /// The working set in the arena, and in the optimizer's state.
    arena: Range<usize>,
    state: Range<usize>,
    /// The rows of the working set.
    rows: B::Buffer<f32>,
}

impl<B: Backend> Table<B> {
    pub(super) fn new(
        backend: &mut B,
        spec: &layers::Table,
        layout: &Layout,
        optimizers: &Optimizers<B>,
    ) -> Result<Self, TrainError> {
        let tensor = &layout.tensors()[spec.tensor];
        let part = &optimizers.parts()[tensor.optimizer];
        let mut segments = part.segments.iter();
        let segment = segments
            .find(|segment| segment.tensor == spec.tensor && segment.arena == tensor.range())
            .expect("a table is stepped as a whole by each rank");
        let shape = tensor.stored_shape();
        let elements = shape.iter().product();
        let mut states = Vec::new();
        for index in 0..part.optimizer.state_names().len() {
            let mut state = backend.allocate("optimizer state of a table", elements)?;
            backend.fill(B::view_mut(&mut state), part.optimizer.initial(index));
            states.push(state);
        }
        Ok(Self {
            values: backend.allocate("table", elements)?,
            states,
            optimizer: tensor.optimizer,
            arena: tensor.range(),
            state: segment.state.clone(),
            rows: backend.allocate("rows of a table", spec.indexed.capacity)?,
            spec: spec.clone(),
            shape,
        })
    }

    /// Brings the rows of `set` into the arena, and the state of their optimizer, where it is given, to
    /// its place.
    pub(super) fn fetch(
        &mut self,
        backend: &mut B,
        set: &WorkingSet,
        parameters: ViewMut<'_, B>,
        optimizers: Option<&mut Optimizers<B>>,
    ) {
        let bag = Bag::rows(self.spec.width);
        let rows = backend.stage(set.filled(), &mut self.rows);
        let to = B::slice_mut(parameters, self.arena.clone());
        backend.gather_bags(bag, B::view(&self.values), rows, to, Accumulate::Set);
        let Some(optimizers) = optimizers else { return };
        let optimizer = &mut optimizers.parts_mut()[self.optimizer].optimizer;
        for (index, state) in self.states.iter().enumerate() {
            let to = B::slice_mut(optimizer.state_mut(index), self.state.clone());
            backend.gather_bags(bag, B::view(state), rows, to, Accumulate::Set);
        }
    }

    /// Stores the rows of `set`, which were fetched last, as the optimizer left them, with its state.
    fn store(
        &mut self,
        backend: &mut B,
        set: &WorkingSet,
        parameters: ViewMut<'_, B>,
        optimizers: &Optimizers<B>,
    ) {
        let (width, len) = (self.spec.width, set.touched().len());
        let rows = B::slice(B::staged(set.filled(), &self.rows), 0..len);
        let part = |range: &Range<usize>| range.start..range.start + len * width;
        let parameters = B::slice_mut(parameters, part(&self.arena));
        backend.put_rows(
            width,
            rows,
            B::shared(&parameters),
            B::view_mut(&mut self.values),
        );
        let optimizer = &optimizers.parts()[self.optimizer].optimizer;
        for (index, state) in self.states.iter_mut().enumerate() {
            let from = B::slice(optimizer.state(index), part(&self.state));
            backend.put_rows(width, rows, from, B::view_mut(state));
        }
    }
}

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// Brings what the step at hand touches of each table into the arena.
    pub(super) fn fetch_tables(&mut self, sets: &[WorkingSet]) {
        assert_eq!(
            sets.len(),
            self.tables.len(),
            "the sampler knows the model's tables"
        );
        for (table, set) in self.tables.iter_mut().zip(sets) {
            // SAFETY: outside collectives the parameters are this rank's own.
            let parameters = unsafe { B::region_mut(&self.parameters, 0..self.parameters.len()) };
            let optimizers = Some(&mut self.optimizers);
            table.fetch(&mut self.backend, set, parameters, optimizers);
        }
    }

    /// Stores what the step at hand has made of each table's rows.
    pub(super) fn store_tables(&mut self, sets: &[WorkingSet]) {
        for (table, set) in self.tables.iter_mut().zip(sets) {
            // SAFETY: outside collectives the parameters are this rank's own.
            let parameters = unsafe { B::region_mut(&self.parameters, 0..self.parameters.len()) };
            table.store(&mut self.backend, set, parameters, &self.optimizers);
        }
    }
}

//! Tables of which the arena has only the rows that a step touches (`params::WorkingSet`).

use std::ops::Range;

use super::{TrainError, Trainer};
use crate::backend::{Backend, Field, View, ViewMut};
use crate::layers;
use crate::models::Model;
use crate::optim::Optimizers;
use crate::params::{Layout, WorkingSet};

/// Records that go over the host together.
const CHUNK: usize = 4096;

/// A table, all of it, with the state that its optimizer keeps of it.
pub(super) struct Table<B: Backend> {
    pub(super) spec: layers::Table,
    /// `[rows, width]`, as a checkpoint has it.
    pub(super) shape: Vec<usize>,
    pub(super) record: Record,
    /// One of each row.
    records: B::Buffer<f32>,
    /// Which optimizer steps it.
    pub(super) optimizer: usize,
    /// The working set in the arena, and in the optimizer's state.
    arena: Range<usize>,
    state: Range<usize>,
    /// The rows of the working set.
    rows: B::Buffer<f32>,
}

/// What a table has of a row: its values and, behind them, the optimizer's state of it, so that what a
/// step needs of a row shares cache lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Elements of a row, and numbers that each state has of it.
    width: usize,
    /// As many as the optimizer has names for them.
    states: usize,
}

impl Record {
    fn len(self) -> usize {
        (1 + self.states) * self.width
    }

    /// The row's values.
    pub(super) fn values(self) -> Field {
        Field {
            record: self.len(),
            offset: 0,
            width: self.width,
        }
    }

    /// What the optimizer keeps of the row.
    pub(super) fn states(self) -> impl Iterator<Item = Field> {
        (1..=self.states).map(move |index| Field {
            offset: index * self.width,
            ..self.values()
        })
    }
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
        let record = Record {
            width: spec.width,
            states: part.optimizer.state_names().len(),
        };
        let elements = shape.iter().product::<usize>() / record.width * record.len();
        let mut table = Self {
            records: backend.allocate("table and its optimizer's state", elements)?,
            record,
            optimizer: tensor.optimizer,
            arena: tensor.range(),
            state: segment.state.clone(),
            rows: backend.allocate("rows of a table", spec.indexed.capacity)?,
            spec: spec.clone(),
            shape,
        };
        let states = record.states().enumerate();
        let initial = states.map(|(index, state)| (state, part.optimizer.initial(index)));
        // All others are zero already.
        let initial: Vec<_> = initial.filter(|(_, initial)| *initial != 0.0).collect();
        if !initial.is_empty() {
            table.edit(backend, |_, record| {
                for &(field, initial) in &initial {
                    record[field.range()].fill(initial);
                }
            });
        }
        Ok(table)
    }

    /// Fields of all rows, `[rows, width]` each, from the host.
    pub(super) fn upload<'a>(
        &mut self,
        backend: &mut B,
        fields: impl Iterator<Item = (Field, &'a [f32])>,
    ) {
        let fields: Vec<_> = fields.collect();
        self.edit(backend, |row, record| {
            for (field, values) in &fields {
                let values = &values[row * field.width..][..field.width];
                record[field.range()].copy_from_slice(values);
            }
        });
    }

    /// These fields of all rows, `[rows, width]` each, on the host.
    pub(super) fn download(
        &self,
        backend: &mut B,
        fields: impl Iterator<Item = Field>,
    ) -> Vec<Vec<f32>> {
        let elements = self.shape.iter().product();
        let mut fields: Vec<_> = fields
            .map(|field| (field, Vec::with_capacity(elements)))
            .collect();
        let mut host = self.host_chunk();
        for chunk in self.chunks() {
            let records = &mut host[..chunk.len()];
            backend.download(B::slice(B::view(&self.records), chunk), records);
            for record in records.chunks_exact(self.record.len()) {
                for (field, values) in &mut fields {
                    values.extend_from_slice(&record[field.range()]);
                }
            }
        }
        fields.into_iter().map(|(_, values)| values).collect()
    }

    /// Lets `body` change the record of each row.
    fn edit(&mut self, backend: &mut B, body: impl Fn(usize, &mut [f32])) {
        let mut host = self.host_chunk();
        let mut row = 0;
        for chunk in self.chunks() {
            let records = &mut host[..chunk.len()];
            let view = B::slice_mut(B::view_mut(&mut self.records), chunk);
            backend.download(B::shared(&view), records);
            for record in records.chunks_exact_mut(self.record.len()) {
                body(row, record);
                row += 1;
            }
            backend.upload(records, view);
        }
    }

    /// The elements of some records at a time.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<B> {
        let (elements, step) = (B::len(B::view(&self.records)), CHUNK * self.record.len());
        let starts = (0..elements).step_by(step);
        starts.map(move |start| start..elements.min(start + step))
    }

    fn host_chunk(&self) -> Vec<f32> {
        vec![0.0; self.chunks().next().map_or(0, |chunk| chunk.len())]
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
        let rows = backend.stage(set.filled(), &mut self.rows);
        let records = B::view(&self.records);
        let to = B::slice_mut(parameters, self.arena.clone());
        backend.take_rows(self.record.values(), rows, records, to);
        let Some(optimizers) = optimizers else { return };
        let optimizer = &mut optimizers.parts_mut()[self.optimizer].optimizer;
        for (index, state) in self.record.states().enumerate() {
            let to = B::slice_mut(optimizer.state_mut(index), self.state.clone());
            backend.take_rows(state, rows, records, to);
        }
    }

    /// Stores the rows of `set`, which were fetched last, as the optimizer left them, with its state.
    fn store(
        &mut self,
        backend: &mut B,
        set: &WorkingSet,
        parameters: View<'_, B>,
        optimizers: &Optimizers<B>,
    ) {
        let len = set.touched().len();
        let rows = B::slice(B::staged(set.filled(), &self.rows), 0..len);
        let part = |range: &Range<usize>| range.start..range.start + len * self.record.width;
        let values = B::slice(parameters, part(&self.arena));
        let to = B::view_mut(&mut self.records);
        backend.put_rows(self.record.values(), rows, values, to);
        let optimizer = &optimizers.parts()[self.optimizer].optimizer;
        for (index, state) in self.record.states().enumerate() {
            let from = B::slice(optimizer.state(index), part(&self.state));
            backend.put_rows(state, rows, from, B::view_mut(&mut self.records));
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
            let parameters = unsafe { B::region(&self.parameters, 0..self.parameters.len()) };
            table.store(&mut self.backend, set, parameters, &self.optimizers);
        }
    }
}

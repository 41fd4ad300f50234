//! Columns as the numbers that a network computes with.

use std::ops::Range;

use super::export::{bag, indicator};
use super::{DeepSpec, DenseColumn, Ids};
use crate::backend::{Accumulate, Backend, Bag, Column, View, ViewMut};
use crate::layers::{Backward, Build, Context, Layer, LayerError, Shape};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::Grads;

/// Name of the layer.
const NAME: &str = "dense_features";

/// Columns one behind the other: numbers, indicators, embeddings.
pub(super) struct DenseFeaturesLayer<B: Backend> {
    /// What [`Lookup::expand`](crate::backend::Lookup::expand) makes.
    columns: B::Buffer<f32>,
    /// What comes from tables, in the order of the tables.
    embeddings: Vec<Embedded>,
    spec: DeepSpec,
    width: usize,
}

/// Columns of an embedding.
struct Embedded {
    table: Range<usize>,
    bag: Bag,
}

impl<B: Backend> DenseFeaturesLayer<B> {
    /// For rows of `row` numbers.
    pub(super) fn new(
        build: &mut Build<'_, B>,
        spec: &DeepSpec,
        row: usize,
    ) -> Result<Self, LayerError> {
        let (layer, _) = build.part(NAME, Some(NAME), |build| {
            let layer = Self::build(build, spec, row)?;
            let output = Shape::from([layer.width]);
            Ok((layer, output))
        })?;
        Ok(layer)
    }

    fn build(build: &mut Build<'_, B>, spec: &DeepSpec, row: usize) -> Result<Self, LayerError> {
        let (mut columns, mut places) = (Vec::new(), Vec::new());
        for column in &spec.columns {
            places.push(columns.len());
            match column {
                DenseColumn::Numbers(slots) => columns.extend(slots.clone().map(Column::Copy)),
                DenseColumn::Indicator(ids) => {
                    columns.extend((0..ids.count).map(|index| Column::Count {
                        index,
                        first: ids.slots.start,
                        len: ids.slots.len(),
                        weights: ids.weights,
                    }))
                }
                DenseColumn::Embedding { table, .. } => {
                    let len = spec.embeddings[*table].dimension;
                    columns.extend(std::iter::repeat_n(Column::Other, len));
                }
            }
        }
        let width = columns.len();
        let mut embeddings = Vec::new();
        for (index, table) in spec.embeddings.iter().enumerate() {
            let uses = uses(spec, index, &places);
            let slots: Vec<_> = uses.clone().map(|(_, ids, _)| ids.slots.clone()).collect();
            let initializer = table.initializer.clone();
            let shape = [table.count, table.dimension];
            let (range, mut looked_up) = build.table(&table.name, shape, initializer, &slots)?;
            for (number, (offset, ids, combiner)) in uses.enumerate() {
                if number > 0 {
                    build.tie(&range);
                }
                let first = match &mut looked_up {
                    Some(place) => {
                        let first = row + *place;
                        *place += ids.slots.len();
                        first
                    }
                    None => ids.slots.start,
                };
                embeddings.push(Embedded {
                    table: range.clone(),
                    bag: Bag {
                        width: table.dimension,
                        inputs: row,
                        first,
                        len: ids.slots.len(),
                        weights: ids.weights,
                        combiner,
                        outputs: width,
                        offset,
                    },
                });
            }
        }
        let numbers: Vec<f32> = columns.iter().flat_map(|column| column.numbers()).collect();
        let mut columns = build.backend.allocate("columns", numbers.len())?;
        build.backend.upload(&numbers, B::view_mut(&mut columns));
        Ok(Self {
            columns,
            embeddings,
            spec: spec.clone(),
            width,
        })
    }

    /// Numbers of a row of output.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Adds what the layer does to `graph`, under its name.
    pub(super) fn export_named(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        graph.layer(NAME, |graph| self.export(graph, x))
    }
}

/// Where each use of a table begins in the output, what it looks up and how.
fn uses<'a>(
    spec: &'a DeepSpec,
    index: usize,
    places: &'a [usize],
) -> impl Iterator<Item = (usize, &'a Ids, crate::backend::Combiner)> + Clone {
    let columns = spec.columns.iter().zip(places);
    columns.filter_map(move |(column, &place)| match column {
        DenseColumn::Embedding {
            ids,
            table,
            combiner,
        } if *table == index => Some((place, ids, *combiner)),
        _ => None,
    })
}

impl<B: Backend> Layer<B> for DenseFeaturesLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        mut y: ViewMut<'_, B>,
    ) {
        let inputs = B::len(x) / cx.rows;
        let columns = B::view(&self.columns);
        cx.backend.expand(inputs, columns, x, B::reborrow(&mut y));
        for Embedded { table, bag } in &self.embeddings {
            let bag = Bag { inputs, ..*bag };
            let table = B::slice(parameters, table.clone());
            let y = B::reborrow(&mut y);
            cx.backend.gather_bags(bag, table, x, y, Accumulate::Set);
        }
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let inputs = B::len(io.x) / cx.rows;
        let mut finished = None;
        for Embedded { table, bag } in self.embeddings.iter().rev() {
            if let Some(before) = finished.replace(table.start)
                && before != table.start
            {
                grads.done(before);
            }
            let (gradient, write) = grads.tensor(table);
            let (bag, dy) = (Bag { inputs, ..*bag }, B::shared(&io.dy));
            cx.backend.scatter_bags(bag, io.x, dy, gradient, write);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let mut columns = Vec::new();
        for column in &self.spec.columns {
            columns.push(match column {
                DenseColumn::Numbers(slots) => graph.slots(&x, slots.clone()),
                DenseColumn::Indicator(ids) => indicator(graph, &x, ids),
                DenseColumn::Embedding {
                    ids,
                    table,
                    combiner,
                } => {
                    let table = &self.spec.embeddings[*table];
                    let rows = (table.name.as_str(), table.dimension);
                    bag(graph, &x, ids, rows, *combiner)
                }
            });
        }
        graph.joined(&columns).ok_or_else(|| graph.no_description())
    }
}

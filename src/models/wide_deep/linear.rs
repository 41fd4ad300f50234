//! A linear model of columns.

use std::ops::Range;

use super::LinearSpec;
use super::export::bag;
use crate::backend::{Accumulate, Backend, Bag, Column, MatmulShape, View, ViewMut};
use crate::layers::{Backward, Build, Context, Layer, LayerError, RowBuffer, Shape};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{Grads, Group, Initializer, Zeros};

/// `y = bias + numbers · weights + the weights of the categories that there are`; everything is zero at the
/// start.
pub(super) struct LinearLayer<B: Backend> {
    bias: Range<usize>,
    numbers: Option<Numbers<B>>,
    /// The weights of categories.
    categories: Vec<(Range<usize>, Bag)>,
    /// Zeros, `[max_rows]`: every row looks up the bias.
    zeros: RowBuffer<B>,
    spec: LinearSpec,
    outputs: usize,
}

/// The numbers of a row, one behind the other.
struct Numbers<B: Backend> {
    weights: Range<usize>,
    columns: B::Buffer<f32>,
    values: RowBuffer<B>,
    count: usize,
}

impl<B: Backend> LinearLayer<B> {
    /// For rows of `row` numbers.
    pub(super) fn new(
        build: &mut Build<'_, B>,
        spec: &LinearSpec,
        row: usize,
        outputs: usize,
    ) -> Result<Self, LayerError> {
        let (layer, _) = build.part("linear", Some(spec.name), |build| {
            let layer = Self::build(build, spec, row, outputs)?;
            Ok((layer, Shape::from([outputs])))
        })?;
        Ok(layer)
    }

    fn build(
        build: &mut Build<'_, B>,
        spec: &LinearSpec,
        row: usize,
        outputs: usize,
    ) -> Result<Self, LayerError> {
        let zeros = || Initializer::from(Zeros {});
        let bias = build.parameter("bias", &[outputs], zeros(), Group::NoDecay);
        let copies = spec.numbers.iter().flat_map(|slots| slots.clone());
        let copies: Vec<f32> = copies
            .flat_map(|slot| Column::Copy(slot).numbers())
            .collect();
        let count = spec.numbers.iter().map(Range::len).sum();
        let numbers = match count {
            0 => None,
            count => {
                let mut columns = build.backend.allocate("columns", copies.len())?;
                build.backend.upload(&copies, B::view_mut(&mut columns));
                Some(Numbers {
                    weights: build.parameter("numbers", &[count, outputs], zeros(), Group::Decay),
                    columns,
                    values: build.rows("numbers", &Shape::from([count]))?,
                    count,
                })
            }
        };
        let mut categories = Vec::new();
        for (name, ids) in &spec.categories {
            let slots = std::slice::from_ref(&ids.slots);
            let (weights, place) =
                build.table(&weights_of(name), [ids.count, outputs], zeros(), slots)?;
            let bag = Bag {
                width: outputs,
                inputs: row,
                first: place.map_or(ids.slots.start, |place| row + place),
                len: ids.slots.len(),
                weights: ids.weights,
                combiner: spec.combiner,
                outputs,
                offset: 0,
            };
            categories.push((weights, bag));
        }
        Ok(Self {
            bias,
            numbers,
            categories,
            zeros: build.rows("zeros", &Shape::from([1]))?,
            spec: spec.clone(),
            outputs,
        })
    }

    /// Adds what the layer does to `graph`, under its name.
    pub(super) fn export_named(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        graph.layer(self.spec.name, |graph| self.export(graph, x))
    }
}

/// The weight of a column, which may be called like one of the layer's own.
fn weights_of(column: &str) -> String {
    format!("{column}/weights")
}

impl<B: Backend> Layer<B> for LinearLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        mut y: ViewMut<'_, B>,
    ) {
        let inputs = B::len(x) / cx.rows;
        let bias = B::slice(parameters, self.bias.clone());
        let to = B::reborrow(&mut y);
        let (bag, zeros) = (Bag::rows(self.outputs), self.zeros.view(cx.rows));
        cx.backend
            .gather_bags(bag, bias, zeros, to, Accumulate::Set);
        if let Some(numbers) = &mut self.numbers {
            let columns = B::view(&numbers.columns);
            let values = numbers.values.view_mut(cx.rows);
            cx.backend.expand(inputs, columns, x, values);
            let shape = MatmulShape::nn(cx.rows, self.outputs, numbers.count);
            let weights = B::slice(parameters, numbers.weights.clone());
            let (values, to) = (numbers.values.view(cx.rows), B::reborrow(&mut y));
            cx.backend
                .matmul(shape, values, weights, to, Accumulate::Add);
        }
        for (weights, bag) in &self.categories {
            let bag = Bag { inputs, ..*bag };
            let weights = B::slice(parameters, weights.clone());
            let to = B::reborrow(&mut y);
            cx.backend.gather_bags(bag, weights, x, to, Accumulate::Add);
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
        let dy = || B::shared(&io.dy);
        for (weights, bag) in self.categories.iter().rev() {
            let bag = Bag { inputs, ..*bag };
            let (gradient, write) = grads.tensor(weights);
            cx.backend.scatter_bags(bag, io.x, dy(), gradient, write);
            grads.done(weights.start);
        }
        if let Some(numbers) = &self.numbers {
            let shape = MatmulShape::tn(numbers.count, self.outputs, cx.rows);
            let (gradient, write) = grads.tensor(&numbers.weights);
            cx.backend
                .matmul(shape, numbers.values.view(cx.rows), dy(), gradient, write);
        }
        let (gradient, write) = grads.tensor(&self.bias);
        cx.backend.sum_rows(self.outputs, dy(), gradient, write);
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let mut sum = match &self.numbers {
            Some(_) => {
                let slots = self.spec.numbers.iter().flat_map(|slots| slots.clone());
                let values = graph.slots(&x, slots);
                let weights = graph.weight("numbers");
                graph.map("MatMul", &values, &[&weights], &[], &[self.outputs])
            }
            None => {
                // Rows of zeros, whatever is in them.
                let shape = [x.shape()[0], self.outputs];
                let zeros = vec![0.0; shape.iter().product()];
                let weights = graph.constant("no weights", &shape, &zeros);
                graph.map("MatMul", &x, &[&weights], &[], &[self.outputs])
            }
        };
        let bias = graph.weight("bias");
        sum = graph.apply("Add", &sum, &[&bias]);
        for (name, ids) in &self.spec.categories {
            let weights = weights_of(name);
            let weights = (weights.as_str(), self.outputs);
            let part = bag(graph, &x, ids, weights, self.spec.combiner);
            sum = graph.sum(sum, &part);
        }
        Ok(sum)
    }
}

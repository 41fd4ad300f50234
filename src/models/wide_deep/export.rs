//! Columns as parts of an ONNX graph.

use std::ops::Range;

use super::Ids;
use crate::backend::Combiner;
use crate::onnx::{Attribute, Graph, Value};

/// The numbers in these slots of `x`.
pub(super) fn numbers(
    graph: &mut Graph<'_>,
    x: &Value,
    slots: impl Iterator<Item = usize>,
) -> Value {
    let slots: Vec<i64> = slots.map(|slot| slot as i64).collect();
    let places = graph.integers(&slots);
    let axis = [("axis", Attribute::Int(1))];
    graph.map("Gather", x, &[&places], &axis, &[slots.len()])
}

/// The values one behind the other.
pub(super) fn joined(graph: &mut Graph<'_>, values: &[Value]) -> Option<Value> {
    let (first, others) = values.split_first()?;
    if others.is_empty() {
        return Some(first.clone());
    }
    let width = values.iter().map(|value| value.shape()[0]).sum();
    let others: Vec<&str> = others.iter().map(Value::name).collect();
    let axis = [("axis", Attribute::Int(1))];
    Some(graph.map("Concat", first, &others, &axis, &[width]))
}

/// How often each id is there, or the sum of its weights.
pub(super) fn indicator(graph: &mut Graph<'_>, x: &Value, ids: &Ids) -> Value {
    let len = ids.slots.len();
    let found = numbers(graph, x, ids.slots.clone());
    let found = deepened(graph, &found);
    let all: Vec<f32> = (0..ids.count).map(|id| id as f32).collect();
    let all = graph.constant(&format!("ids below {}", ids.count), &[ids.count], &all);
    let shape = [len, ids.count];
    let is_there = graph.map("Equal", &found, &[&all], &[], &shape);
    let mut counted = graph.numbers_of(&is_there);
    if let Some(weights) = weights(graph, x, ids) {
        let weights = deepened(graph, &weights);
        counted = graph.map("Mul", &counted, &[weights.name()], &[], &shape);
    }
    summed(graph, &counted, ids.count)
}

/// The rows of the layer's weight `table` that the ids name, combined.
pub(super) fn bag(
    graph: &mut Graph<'_>,
    x: &Value,
    ids: &Ids,
    (table, width): (&str, usize),
    combiner: Combiner,
) -> Value {
    let len = ids.slots.len();
    let found = numbers(graph, x, ids.slots.clone());
    let zero = graph.number(0.0);
    let rows = graph.apply("Max", &found, &[&zero]);
    let rows = graph.integers_of(&rows);
    let table = graph.weight(table);
    let shape = [len, width];
    let rows = graph.lookup(&table, &rows, width);
    let is_none = graph.apply("Less", &found, &[&zero]);
    let ones = weights(graph, x, ids);
    let one = graph.number(1.0);
    let given = ones.as_ref().map_or(one.as_str(), Value::name);
    let factors = graph.apply("Where", &is_none, &[&zero, given]);
    let factors = match combiner {
        Combiner::Sum => factors,
        Combiner::Mean | Combiner::Sqrtn => {
            let total = match combiner {
                Combiner::Sqrtn => {
                    let squares = graph.apply("Mul", &factors, &[factors.name()]);
                    let sum = kept(graph, &squares);
                    graph.apply("Sqrt", &sum, &[])
                }
                Combiner::Sum | Combiner::Mean => kept(graph, &factors),
            };
            // Without an id there is nothing to divide by, and nothing to divide.
            let is_nothing = graph.apply("Equal", &total, &[&zero]);
            let total = graph.apply("Where", &is_nothing, &[&one, total.name()]);
            graph.apply("Div", &factors, &[total.name()])
        }
    };
    let factors = deepened(graph, &factors);
    let weighted = graph.map("Mul", &rows, &[factors.name()], &[], &shape);
    summed(graph, &weighted, width)
}

fn weights(graph: &mut Graph<'_>, x: &Value, ids: &Ids) -> Option<Value> {
    let first = ids.weights?;
    let slots: Range<usize> = first..first + ids.slots.len();
    Some(numbers(graph, x, slots))
}

/// `[len]` as `[len, 1]`.
fn deepened(graph: &mut Graph<'_>, x: &Value) -> Value {
    let axes = graph.integers(&[2]);
    graph.map("Unsqueeze", x, &[&axes], &[], &[x.shape()[0], 1])
}

/// `[len, width]` summed to `[width]`.
fn summed(graph: &mut Graph<'_>, x: &Value, width: usize) -> Value {
    let axes = graph.integers(&[1]);
    let keep = [("keepdims", Attribute::Int(0))];
    graph.map("ReduceSum", x, &[&axes], &keep, &[width])
}

/// `[len]` summed to `[1]`.
fn kept(graph: &mut Graph<'_>, x: &Value) -> Value {
    let axes = graph.integers(&[1]);
    let keep = [("keepdims", Attribute::Int(1))];
    graph.map("ReduceSum", x, &[&axes], &keep, &[1])
}

//! Columns as parts of an ONNX graph.

use std::ops::Range;

use super::Ids;
use crate::backend::Combiner;
use crate::onnx::{Attribute, Graph, Value};

/// How often each id is there, or the sum of its weights.
pub(super) fn indicator(graph: &mut Graph<'_>, x: &Value, ids: &Ids) -> Value {
    let len = ids.slots.len();
    let found = graph.slots(x, ids.slots.clone());
    let found = graph.deepened(&found);
    let all: Vec<f32> = (0..ids.count).map(|id| id as f32).collect();
    let all = graph.constant(&format!("ids below {}", ids.count), &[ids.count], &all);
    let shape = [len, ids.count];
    let is_there = graph.map("Equal", &found, &[&all], &[], &shape);
    let mut counted = graph.numbers_of(&is_there);
    if let Some(weights) = weights(graph, x, ids) {
        let weights = graph.deepened(&weights);
        counted = graph.map("Mul", &counted, &[weights.name()], &[], &shape);
    }
    graph.summed(&counted, ids.count)
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
    let found = graph.slots(x, ids.slots.clone());
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
    let factors = graph.deepened(&factors);
    let weighted = graph.map("Mul", &rows, &[factors.name()], &[], &shape);
    graph.summed(&weighted, width)
}

fn weights(graph: &mut Graph<'_>, x: &Value, ids: &Ids) -> Option<Value> {
    let first = ids.weights?;
    let slots: Range<usize> = first..first + ids.slots.len();
    Some(graph.slots(x, slots))
}

/// `[len]` summed to `[1]`.
fn kept(graph: &mut Graph<'_>, x: &Value) -> Value {
    let axes = graph.integers(&[1]);
    let keep = [("keepdims", Attribute::Int(1))];
    graph.map("ReduceSum", x, &[&axes], &keep, &[1])
}

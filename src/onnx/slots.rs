//! Rows as slots that are chosen, joined and summed.

use super::{Attribute, Graph, Value};

impl Graph<'_> {
    /// The numbers in these slots of `x`.
    pub(crate) fn slots(&mut self, x: &Value, slots: impl Iterator<Item = usize>) -> Value {
        let slots: Vec<i64> = slots.map(|slot| slot as i64).collect();
        let places = self.integers(&slots);
        let axis = [("axis", Attribute::Int(1))];
        self.map("Gather", x, &[&places], &axis, &[slots.len()])
    }

    /// The values one behind the other; none of none.
    pub(crate) fn joined(&mut self, values: &[Value]) -> Option<Value> {
        let (first, others) = values.split_first()?;
        if others.is_empty() {
            return Some(first.clone());
        }
        let width = values.iter().map(|value| value.shape()[0]).sum();
        let others: Vec<&str> = others.iter().map(Value::name).collect();
        let axis = [("axis", Attribute::Int(1))];
        Some(self.map("Concat", first, &others, &axis, &[width]))
    }

    /// `[len]` as `[len, 1]`.
    pub(crate) fn deepened(&mut self, x: &Value) -> Value {
        let axes = self.integers(&[2]);
        self.map("Unsqueeze", x, &[&axes], &[], &[x.shape()[0], 1])
    }

    /// `[len, width]` summed to `[width]`.
    pub(crate) fn summed(&mut self, x: &Value, width: usize) -> Value {
        let axes = self.integers(&[1]);
        let keep = [("keepdims", Attribute::Int(0))];
        self.map("ReduceSum", x, &[&axes], &keep, &[width])
    }

    /// Which of the intervals between `boundaries` each number of `x` is in, closed on the left. Those of
    /// each further number are counted on from those of the one before.
    pub(crate) fn buckets(&mut self, x: &Value, boundaries: &[f32]) -> Value {
        let (count, len) = (boundaries.len(), x.shape()[0]);
        let axes = self.integers(&[1]);
        let numbers = self.map("Unsqueeze", x, &[&axes], &[], &[1, len]);
        let boundaries = self.constant(
            &format!("boundaries {boundaries:?}"),
            &[count, 1],
            boundaries,
        );
        let shape = [count, len];
        let is_passed = self.map("GreaterOrEqual", &numbers, &[&boundaries], &[], &shape);
        let passed = self.numbers_of(&is_passed);
        let buckets = self.summed(&passed, len);
        if len == 1 {
            return buckets;
        }
        let firsts: Vec<f32> = (0..len).map(|place| (place * (count + 1)) as f32).collect();
        let firsts = self.constant(&format!("first buckets {firsts:?}"), &[len], &firsts);
        self.apply("Add", &buckets, &[&firsts])
    }
}

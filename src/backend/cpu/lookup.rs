//! Rows of a table by index, and what becomes of columns that are categories.

use super::Cpu;
use super::buffer::prefetch;
use crate::backend::{Accumulate, Bag, COLUMN, Combiner, Field, Lookup};

/// Rows that are asked for before they are copied: more than the processor waits for at a time, and few enough
/// for its smallest cache.
const AHEAD: usize = 64;

impl Lookup for Cpu {
    fn gather_bags(
        &mut self,
        bag: Bag,
        table: &[f32],
        x: &[f32],
        y: &mut [f32],
        write: Accumulate,
    ) {
        bag.samples(x.len(), y.len());
        let rows = table.len() / bag.width;
        let is_single = bag.len == 1 && bag.weights.is_none();
        let samples = x.chunks_exact(bag.inputs);
        for (sample, y) in samples.zip(y.chunks_exact_mut(bag.outputs)) {
            let y = &mut y[bag.offset..bag.offset + bag.width];
            if write == Accumulate::Set {
                y.fill(0.0);
            }
            if is_single {
                // Short enough for the processor to wait for many rows at a time.
                if let Some(row) = row(sample[bag.first], rows) {
                    let start = row * bag.width;
                    for (y, value) in y.iter_mut().zip(&table[start..start + bag.width]) {
                        *y += value;
                    }
                }
                continue;
            }
            each_row(bag, sample, rows, |row, factor| {
                let start = row * bag.width;
                for (y, value) in y.iter_mut().zip(&table[start..start + bag.width]) {
                    *y += factor * value;
                }
            });
        }
    }

    fn scatter_bags(
        &mut self,
        bag: Bag,
        x: &[f32],
        dy: &[f32],
        gradient: &mut [f32],
        write: Accumulate,
    ) {
        bag.samples(x.len(), dy.len());
        let rows = gradient.len() / bag.width;
        if write == Accumulate::Set {
            gradient.fill(0.0);
        }
        let samples = x.chunks_exact(bag.inputs);
        for (sample, dy) in samples.zip(dy.chunks_exact(bag.outputs)) {
            let dy = &dy[bag.offset..bag.offset + bag.width];
            each_row(bag, sample, rows, |row, factor| {
                let start = row * bag.width;
                for (sum, dy) in gradient[start..start + bag.width].iter_mut().zip(dy) {
                    *sum += factor * dy;
                }
            });
        }
    }

    fn take_rows(&mut self, field: Field, indices: &[f32], table: &[f32], rows: &mut [f32]) {
        let records = field.records(table.len(), indices.len(), rows.len());
        for (to, indices) in rows
            .chunks_mut(AHEAD * field.width)
            .zip(indices.chunks(AHEAD))
        {
            ahead(field, indices, records, table);
            for (to, &index) in to.chunks_exact_mut(field.width).zip(indices) {
                match row(index, records) {
                    Some(row) => copy(&table[start(field, row)..][..field.width], to),
                    None => to.fill(0.0),
                }
            }
        }
    }

    fn put_rows(&mut self, field: Field, indices: &[f32], rows: &[f32], table: &mut [f32]) {
        let records = field.records(table.len(), indices.len(), rows.len());
        for (from, indices) in rows.chunks(AHEAD * field.width).zip(indices.chunks(AHEAD)) {
            ahead(field, indices, records, table);
            for (from, &index) in from.chunks_exact(field.width).zip(indices) {
                if let Some(row) = row(index, records) {
                    copy(from, &mut table[start(field, row)..][..field.width]);
                }
            }
        }
    }

    fn expand(&mut self, inputs: usize, columns: &[f32], x: &[f32], y: &mut [f32]) {
        let columns = columns.as_chunks::<COLUMN>().0;
        for (x, y) in x
            .chunks_exact(inputs)
            .zip(y.chunks_exact_mut(columns.len()))
        {
            for (y, &[first, len, weights, index]) in y.iter_mut().zip(columns) {
                let (first, len) = (first as usize, len as usize);
                let inputs = &x[first..first + len];
                match (len, index < 0.0) {
                    (0, _) => {}
                    (_, true) => *y = inputs[0],
                    (_, false) => {
                        let weights = (weights >= 0.0).then(|| &x[weights as usize..][..len]);
                        *y = count(index, inputs, weights);
                    }
                }
            }
        }
    }
}

/// Where the field starts in this row of a table.
fn start(field: Field, row: usize) -> usize {
    row * field.record + field.offset
}

/// Asks for the field of all these rows, so that copying does not wait for one after the other where a table is
/// larger than the caches.
fn ahead(field: Field, indices: &[f32], records: usize, table: &[f32]) {
    for row in indices.iter().filter_map(|&index| row(index, records)) {
        prefetch(&table[start(field, row)..][..field.width]);
    }
}

/// Copies a few elements, in a loop that is shorter than a call.
fn copy(from: &[f32], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}

/// The sum of the weights of the inputs that are `index`.
fn count(index: f32, inputs: &[f32], weights: Option<&[f32]>) -> f32 {
    let mut sum = 0.0;
    for (place, &input) in inputs.iter().enumerate() {
        if input == index {
            sum += weights.map_or(1.0, |weights| weights[place]);
        }
    }
    sum
}

/// Calls `body` with each row of a table of `rows` that `sample` has an index of, and what it is
/// multiplied by.
fn each_row(bag: Bag, sample: &[f32], rows: usize, mut body: impl FnMut(usize, f32)) {
    let indices = &sample[bag.first..bag.first + bag.len];
    let weight = |place: usize| bag.weights.map_or(1.0, |first| sample[first + place]);
    let share = share(bag.combiner, indices, weight);
    for (place, &index) in indices.iter().enumerate() {
        if let Some(row) = row(index, rows) {
            body(row, share * weight(place));
        }
    }
}

/// What the rows of a sample are multiplied by, beside their weights.
fn share(combiner: Combiner, indices: &[f32], weight: impl Fn(usize) -> f32) -> f32 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (place, &index) in indices.iter().enumerate() {
        if !is_none(index) {
            let weight = weight(place);
            sum += weight;
            squares += weight * weight;
        }
    }
    match combiner {
        Combiner::Sum => 1.0,
        Combiner::Mean if sum != 0.0 => 1.0 / sum,
        Combiner::Sqrtn if squares != 0.0 => 1.0 / f32::sqrt(squares),
        Combiner::Mean | Combiner::Sqrtn => 0.0,
    }
}

/// Whether an index stands for no row.
fn is_none(index: f32) -> bool {
    index < 0.0
}

/// The row an index means, of `rows`. A float is cast to the integer below it; NaN to 0.
fn row(index: f32, rows: usize) -> Option<usize> {
    (!is_none(index)).then(|| (index as usize).min(rows.saturating_sub(1)))
}

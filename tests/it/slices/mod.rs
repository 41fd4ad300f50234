//! Kernels give the same bits wherever their slices start, whatever rows stand around a row, and with
//! every instruction set. Plain products and update rules have the like beside their code.

mod normalization;
mod products;
mod values;

use std::array::from_fn;
use std::ops::Range;

use ringstep::backend::Precision;
use ringstep::backend::cpu::{Buffer, Cpu, InstructionSet};

/// Where slices start, in elements from the start of a cache line: four of them.
const OFFSETS: Range<usize> = 0..64;

/// Rows of every matrix: a few more than there are offsets, so that each can be the first row, too.
const ROWS: usize = 70;

/// Stands around what a kernel reads: it shows in whatever is computed from it.
const AROUND_READS: f32 = f32::NAN;

/// Stands around what a kernel writes.
const AROUND_WRITES: f32 = -7.25;

/// What a kernel reads or writes.
struct Array {
    values: Vec<f32>,
    /// Elements of a row; `None` where all rows share the array.
    width: Option<usize>,
    /// Whether a kernel says what is left in it.
    is_result: bool,
}

impl Array {
    /// What belongs to `rows`.
    fn part(&self, rows: &Range<usize>) -> &[f32] {
        match self.width {
            Some(width) => &self.values[rows.start * width..rows.end * width],
            None => &self.values,
        }
    }
}

/// A row of `width` numbers for each of [`ROWS`] rows.
fn rows(width: usize, seed: u32) -> Array {
    Array {
        values: numbers(ROWS * width, seed),
        width: Some(width),
        is_result: true,
    }
}

/// Numbers that all rows share.
fn shared(len: usize, seed: u32) -> Array {
    Array {
        values: numbers(len, seed),
        width: None,
        is_result: true,
    }
}

/// An array in which anything may be left.
fn scratch(array: Array) -> Array {
    Array {
        is_result: false,
        ..array
    }
}

/// Numbers from -8 to 8 that look random, among them both zeros and ones past every saturation.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let number = |i: usize| match (i + seed as usize) % 29 {
        3 => 0.0,
        11 => -0.0,
        17 => 120.0,
        23 => -120.0,
        _ => {
            let key = (i as u32 ^ (seed << 16)).wrapping_mul(2_654_435_761);
            (key >> 8) as f32 / (1 << 20) as f32 - 8.0
        }
    };
    (0..len).map(number).collect()
}

/// `array` with other values.
fn mapped(mut array: Array, value: impl Fn(f32) -> f32) -> Array {
    array.values.iter_mut().for_each(|x| *x = value(*x));
    array
}

/// Positive numbers, as variances are.
fn positive(array: Array) -> Array {
    mapped(array, |x| 0.1 + x.abs())
}

/// Whole numbers from 0 to below `end`, as classes and indices are.
fn indices(array: Array, end: u32) -> Array {
    mapped(array, |x| ((x.to_bits() >> 7) % end) as f32)
}

/// A slice that starts so many elements behind the start of a cache line, and what lies around it.
struct Placed {
    memory: Buffer<f32>,
    inside: Range<usize>,
    around: f32,
}

impl Placed {
    fn new(values: &[f32], offset: usize, around: f32) -> Self {
        let start = OFFSETS.end + offset;
        let inside = start..start + values.len();
        let mut memory = Buffer::zeroed(inside.end + OFFSETS.end).unwrap();
        memory.fill(around);
        memory[inside.clone()].copy_from_slice(values);
        Self {
            memory,
            inside,
            around,
        }
    }

    fn read(&self) -> &[f32] {
        &self.memory[self.inside.clone()]
    }

    fn write(&mut self) -> &mut [f32] {
        &mut self.memory[self.inside.clone()]
    }

    fn assert_untouched_around(&self, what: &str) {
        let (before, after) = (
            &self.memory[..self.inside.start],
            &self.memory[self.inside.end..],
        );
        let untouched = before.iter().chain(after).all(|&x| x == self.around);
        assert!(untouched, "{what}: writes outside its slice");
    }
}

/// Calls `kernel` with its slices at every offset: all at the same one, and all at different ones;
/// and on some of the rows only. Nothing of that may change a bit. `kernel` gets the number of the
/// first row, what it reads, and what it writes, which holds the values of `writes` before.
fn assert_same_bits<const R: usize, const W: usize>(
    name: &str,
    reads: [Array; R],
    writes: [Array; W],
    kernel: impl Fn(&mut Cpu, usize, [&[f32]; R], [&mut [f32]; W]),
) {
    assert_same_bits_in(Precision::F32, name, reads, writes, kernel);
}

/// The same of products in a precision.
fn assert_same_bits_in<const R: usize, const W: usize>(
    precision: Precision,
    name: &str,
    reads: [Array; R],
    writes: [Array; W],
    kernel: impl Fn(&mut Cpu, usize, [&[f32]; R], [&mut [f32]; W]),
) {
    let mut first: Option<[Vec<u32>; W]> = None;
    for set in InstructionSet::ALL {
        let Some(cpu) = Cpu::with_instructions(set) else {
            continue;
        };
        let mut cpu = cpu.with_precision(precision);
        let mut run = |what: &str, rows: &Range<usize>, offset: &dyn Fn(usize) -> usize| {
            let read: [Placed; R] =
                from_fn(|i| Placed::new(reads[i].part(rows), offset(i), AROUND_READS));
            let mut written: [Placed; W] =
                from_fn(|i| Placed::new(writes[i].part(rows), offset(R + i), AROUND_WRITES));
            kernel(
                &mut cpu,
                rows.start,
                read.each_ref().map(Placed::read),
                written.each_mut().map(Placed::write),
            );
            from_fn(|i| {
                written[i].assert_untouched_around(what);
                match writes[i].is_result {
                    true => bits(written[i].read()),
                    false => Vec::new(),
                }
            })
        };
        let what = format!("{name}, {}, {precision}", set.name());
        let whole = run(&what, &(0..ROWS), &|_| 0);
        for (after, before) in whole.iter().zip(&writes) {
            assert_ne!(*after, bits(&before.values), "{what}: does nothing");
        }
        assert_eq!(*first.get_or_insert_with(|| whole.clone()), whole, "{what}");
        for offset in OFFSETS {
            let what = format!("{what}, offset {offset}");
            let together = run(&what, &(0..ROWS), &|_| offset);
            assert!(together == whole, "{what}");
            // An odd factor: each slice comes to every offset.
            let apart = run(&what, &(0..ROWS), &|i| (offset * (2 * i + 1) + i) % 64);
            assert!(apart == whole, "{what}: slices apart");

            let part = offset..ROWS - offset / 16;
            let cut = run(&what, &part, &|_| offset);
            for ((cut, whole), array) in cut.iter().zip(&whole).zip(&writes) {
                if let (Some(width), true) = (array.width, array.is_result) {
                    let same = *cut == whole[part.start * width..part.end * width];
                    assert!(same, "{what}: rows {part:?} alone");
                }
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

//! Rows by index: the bits of the CPU.

use ringstep::backend::{Accumulate, Lookup, Memory};
use ringstep::random::Stream;

use crate::twins::{Inset, assert_same_bits, cuda, normals, twins};

/// Rows of the table, elements of a row, indices. The last tables have more rows, and longer ones, than a
/// launch has warps for.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 1, 33),
    (7, 3, 0),
    (5, 31, 40),
    (33, 33, 100),
    (100, 257, 31),
    (257, 4, 300),
    (4500, 2, 65),
    (130, 2085, 100),
];

/// Whole numbers below `rows`, some of them often.
fn indices(rows: usize, count: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "indices");
    let mut index = || stream.below(rows as u32).min(stream.below(rows as u32));
    (0..count).map(|_| index() as f32).collect()
}

fn gathered<B: Lookup>(
    backend: &mut B,
    width: usize,
    (table, indices): (&[f32], &[f32]),
    before: usize,
) -> Vec<f32> {
    let table = Inset::new(backend, before, table);
    let indices_inset = Inset::new(backend, before + 1, indices);
    let mut y = Inset::room(backend, before, indices.len() * width);
    backend.gather_rows(width, table.view(), indices_inset.view(), y.view_mut());
    y.download(backend)
}

fn scattered<B: Lookup>(
    backend: &mut B,
    width: usize,
    rows: usize,
    indices: &[f32],
    write: Accumulate,
    before: usize,
) -> Vec<f32> {
    let dy = normals(5, indices.len() * width);
    let dy = Inset::new(backend, before, &dy);
    let indices = Inset::new(backend, before + 1, indices);
    let mut gradient = Inset::new(backend, before, &normals(6, rows * width));
    let to = gradient.view_mut();
    backend.scatter_rows(width, indices.view(), dy.view(), to, write);
    gradient.download(backend)
}

#[test]
fn rows_are_gathered_and_scattered() {
    let mut cuda = cuda();
    for (rows, width, count) in SHAPES {
        let (table, indices) = (normals(4, rows * width), indices(rows, count));
        let (cpu, gpu) = twins!(on &mut cuda, gathered, width, (&table, &indices), 1);
        assert_same_bits(&cpu, &gpu);
        for write in [Accumulate::Set, Accumulate::Add] {
            let (cpu, gpu) = twins!(on &mut cuda, scattered, width, rows, &indices, write, 3);
            assert_same_bits(&cpu, &gpu);
        }
    }
}

#[test]
fn an_index_that_is_none_means_the_nearest_row() {
    let mut cuda = cuda();
    let indices = [
        f32::NAN,
        -1.0,
        f32::NEG_INFINITY,
        -0.0,
        0.9,
        1.5,
        4.0,
        4.999,
        5.0,
        1e9,
        3e38,
        f32::INFINITY,
    ];
    let (rows, width) = (5, 3);
    let table = normals(7, rows * width);
    let (cpu, gpu) = twins!(on &mut cuda, gathered, width, (&table, &indices), 0);
    assert_same_bits(&cpu, &gpu);
    let (cpu, gpu) = twins!(on &mut cuda, scattered, width, rows, &indices, Accumulate::Set, 0);
    assert_same_bits(&cpu, &gpu);
}

#[test]
fn one_row_sums_all_in_order() {
    let mut cuda = cuda();
    let indices = [2.0; 200];
    for write in [Accumulate::Set, Accumulate::Add] {
        let (cpu, gpu) = twins!(on &mut cuda, scattered, 40, 4, &indices, write, 0);
        assert_same_bits(&cpu, &gpu);
    }
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice_or_on_the_other_rows() {
    let mut cuda = cuda();
    let (rows, width) = (9, 35);
    let indices = indices(rows, 50);
    let table = normals(8, rows * width);
    let expected = gathered(&mut cuda, width, (&table, &indices), 0);
    let sums = scattered(&mut cuda, width, rows, &indices, Accumulate::Add, 0);
    for before in 1..8 {
        let moved = gathered(&mut cuda, width, (&table, &indices), before);
        assert_same_bits(&expected, &moved);
        let moved = scattered(&mut cuda, width, rows, &indices, Accumulate::Add, before);
        assert_same_bits(&sums, &moved);
    }
    // A table of more rows is shared by more warps.
    let more = scattered(&mut cuda, width, 300, &indices, Accumulate::Set, 0);
    let few = scattered(&mut cuda, width, rows, &indices, Accumulate::Set, 0);
    assert_same_bits(&few, &more[..rows * width]);
    cuda.synchronize().unwrap();
}

//! Rows by index, and columns of categories: the bits of the CPU.

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Accumulate, Bag, Column, Combiner, Field, Lookup, Memory};
use ringstep::random::Stream;

use crate::twins::{Inset, assert_same_bits, cuda, for_random_sizes, normals, twins};

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
    let (bag, x) = (Bag::rows(width), indices_inset.view());
    backend.gather_bags(bag, table.view(), x, y.view_mut(), Accumulate::Set);
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
    backend.scatter_bags(Bag::rows(width), indices.view(), dy.view(), to, write);
    gradient.download(backend)
}

fn check(cuda: &mut Cuda, rows: usize, width: usize, count: usize) {
    let (table, indices) = (normals(4, rows * width), indices(rows, count));
    let (cpu, gpu) = twins!(on cuda, gathered, width, (&table, &indices), 1);
    assert_same_bits(&cpu, &gpu);
    for write in [Accumulate::Set, Accumulate::Add] {
        let (cpu, gpu) = twins!(on cuda, scattered, width, rows, &indices, write, 3);
        assert_same_bits(&cpu, &gpu);
    }
}

#[test]
fn rows_are_gathered_and_scattered() {
    let mut cuda = cuda();
    for (rows, width, count) in SHAPES {
        check(&mut cuda, rows, width, count);
    }
}

#[test]
fn random_numbers_of_rows_elements_and_indices() {
    let mut cuda = cuda();
    for_random_sizes(8, 6, [300, 100, 200], |[rows, width, count]| {
        check(&mut cuda, rows, width, count);
        let bag = bag(width, Some(6), Combiner::Mean);
        let (cpu, gpu) = twins!(on &mut cuda, bagged, bag, (count, rows), Accumulate::Add);
        assert_same_bits(&cpu.concat(), &gpu.concat());
    });
}

#[test]
fn an_index_that_is_outside_means_the_last_row_and_a_negative_one_none() {
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
    let means = [0, -1, -1, 0, 0, 1, 4, 4, 4, 4, 4, 4];
    for (y, row) in gpu.chunks_exact(width).zip(means) {
        match usize::try_from(row) {
            Ok(row) => assert_eq!(y, &table[row * width..(row + 1) * width]),
            Err(_) => assert_eq!(y, [0.0; 3]),
        }
    }
    let (cpu, gpu) = twins!(on &mut cuda, scattered, width, rows, &indices, Accumulate::Set, 0);
    assert_same_bits(&cpu, &gpu);
}

/// Samples of nine numbers: a bag of three indices from the third on, weights from the seventh.
fn bag(width: usize, weights: Option<usize>, combiner: Combiner) -> Bag {
    Bag {
        width,
        inputs: 9,
        first: 2,
        len: 3,
        weights,
        combiner,
        outputs: width + 5,
        offset: 4,
    }
}

/// What a bag gathers, and the gradient of its table.
fn bagged<B: Lookup>(
    backend: &mut B,
    bag: Bag,
    (samples, rows): (usize, usize),
    write: Accumulate,
) -> [Vec<f32>; 2] {
    let mut x = normals(11, samples * bag.inputs);
    let mut indices = indices(rows, samples * bag.len).into_iter();
    for (number, sample) in x.chunks_exact_mut(bag.inputs).enumerate() {
        for index in &mut sample[bag.first..bag.first + bag.len] {
            *index = indices.next().unwrap();
        }
        // No row for one of them, for two, for all.
        sample[bag.first + 1..bag.first + 1 + number % 3].fill(-1.0);
        if number % 5 == 4 {
            sample[bag.first] = -1.0;
        }
    }
    let x = Inset::new(backend, 1, &x);
    let table = Inset::new(backend, 2, &normals(12, rows * bag.width));
    let mut y = Inset::new(backend, 3, &normals(13, samples * bag.outputs));
    backend.gather_bags(bag, table.view(), x.view(), y.view_mut(), write);
    let dy = Inset::new(backend, 1, &normals(14, samples * bag.outputs));
    let mut gradient = Inset::new(backend, 2, &normals(15, rows * bag.width));
    backend.scatter_bags(bag, x.view(), dy.view(), gradient.view_mut(), write);
    [y.download(backend), gradient.download(backend)]
}

#[test]
fn bags_of_rows_are_combined_by_weight_and_leave_other_columns_alone() {
    let mut cuda = cuda();
    let others = normals(13, 40 * 8);
    for combiner in [Combiner::Sum, Combiner::Mean, Combiner::Sqrtn] {
        for (weights, write) in [(None, Accumulate::Set), (Some(6), Accumulate::Add)] {
            let bag = bag(3, weights, combiner);
            let (cpu, gpu) = twins!(on &mut cuda, bagged, bag, (40, 7), write);
            for (cpu, gpu) in cpu.iter().zip(&gpu) {
                assert_same_bits(cpu, gpu);
            }
            for (y, other) in gpu[0].chunks_exact(8).zip(others.chunks_exact(8)) {
                assert_eq!((&y[..4], &y[7..]), (&other[..4], &other[7..]));
            }
        }
    }
}

fn moved_and_expanded<B: Lookup>(backend: &mut B) -> [Vec<f32>; 3] {
    let mut table = Inset::new(backend, 1, &normals(16, 50 * 7));
    let indices = Inset::new(backend, 2, &[7.0, 0.0, -1.0, 49.0]);
    let mut rows = Inset::new(backend, 3, &normals(17, 4 * 3));
    let field = |offset| Field {
        record: 7,
        offset,
        width: 3,
    };
    backend.put_rows(field(4), indices.view(), rows.view(), table.view_mut());
    backend.take_rows(field(2), indices.view(), table.view(), rows.view_mut());
    let counted = |index, weights| Column::Count {
        index,
        first: 1,
        len: 2,
        weights,
    };
    let columns = [
        Column::Copy(5),
        counted(1, None),
        Column::Other,
        counted(0, Some(3)),
        Column::Copy(0),
    ];
    let numbers: Vec<f32> = columns.iter().flat_map(|column| column.numbers()).collect();
    let columns = Inset::new(backend, 0, &numbers);
    let x = [
        [0.5, 1.0, 1.0, 3.0, 4.0, 2.5],
        [-0.5, 0.0, -1.0, 0.25, 4.0, -7.0],
    ];
    let x = Inset::new(backend, 1, x.as_flattened());
    let mut y = Inset::new(backend, 2, &[9.0; 10]);
    backend.expand(6, columns.view(), x.view(), y.view_mut());
    [table, rows, y].map(|array| array.download(backend))
}

#[test]
fn fields_of_records_are_moved_and_columns_expanded() {
    let (cpu, gpu) = twins!(moved_and_expanded);
    assert_eq!(cpu, gpu);
    let [table, rows, y] = gpu;
    let (before, put) = (normals(16, 50 * 7), normals(17, 4 * 3));
    let mut expected = before.clone();
    for (row, values) in [(7, &put[..3]), (0, &put[3..6]), (49, &put[9..])] {
        expected[row * 7 + 4..][..3].copy_from_slice(values);
    }
    assert_eq!(table, expected);
    for (row, values) in [(7, &rows[..3]), (0, &rows[3..6]), (49, &rows[9..])] {
        assert_eq!(values, &expected[row * 7 + 2..][..3]);
    }
    assert_eq!(rows[6..9], [0.0; 3]);
    assert_eq!(y[..5], [2.5, 2.0, 9.0, 0.0, 0.5]);
    assert_eq!(y[5..], [-7.0, 0.0, 9.0, 0.25, -0.5]);
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

//! Batch and layer normalisation.

use ringstep::backend::{Affine, Normalize, Normalized};

use super::*;

#[test]
fn of_batch_normalisation() {
    let epsilon = 1e-3;
    // All groups of columns: of sixteen, of four, of one.
    for columns in [1, 23] {
        let values = |seed| rows(columns, seed);
        let column = |seed| shared(columns, seed);
        assert_same_bits(
            &format!("column_moments of {columns}"),
            [values(1)],
            [column(2), column(3)],
            |cpu, _, [x], [mean, variance]| cpu.column_moments(columns, x, mean, variance),
        );
        assert_same_bits(
            &format!("normalize_columns of {columns}"),
            [
                values(1),
                column(2),
                positive(column(3)),
                column(4),
                column(5),
            ],
            [values(6), values(7)],
            |cpu, _, [x, mean, variance, scale, offset], [plain, affine]| {
                let none = Affine {
                    scale: None,
                    offset: None,
                };
                cpu.normalize_columns(epsilon, x, mean, variance, none, plain);
                let both = Affine {
                    scale: Some(scale),
                    offset: Some(offset),
                };
                cpu.normalize_columns(epsilon, x, mean, variance, both, affine);
            },
        );
        assert_same_bits(
            &format!("column_gradients of {columns}"),
            [values(1), column(2), positive(column(3)), values(4)],
            [shared(2 * columns, 5)],
            |cpu, _, [x, mean, variance, dy], [sums]| {
                cpu.column_gradients(epsilon, x, mean, variance, dy, sums);
            },
        );
    }
}

#[test]
fn of_the_gradient_of_batch_normalisation() {
    let columns = 23;
    let column = |seed| shared(columns, seed);
    let reads = || {
        let moments = (column(2), positive(column(3)));
        let sums = shared(2 * columns, 5);
        [
            rows(columns, 1),
            moments.0,
            moments.1,
            column(4),
            sums,
            rows(columns, 6),
        ]
    };
    assert_same_bits(
        "normalize_columns_backward with constant moments",
        reads(),
        [rows(columns, 7), rows(columns, 8)],
        |cpu, _, [x, mean, variance, scale, _, dy], [plain, scaled]| {
            let of = Normalized { x, mean, variance };
            cpu.normalize_columns_backward(1e-3, of, None, None, dy, plain);
            cpu.normalize_columns_backward(1e-3, of, Some(scale), None, dy, scaled);
        },
    );
    // The number of rows is part of the gradient here: only the whole can be compared.
    let whole = |seed| shared(ROWS * columns, seed);
    let mut all = reads();
    (all[0].width, all[5].width) = (None, None);
    assert_same_bits(
        "normalize_columns_backward",
        all,
        [whole(7), whole(8)],
        |cpu, _, [x, mean, variance, scale, sums, dy], [plain, scaled]| {
            let of = Normalized { x, mean, variance };
            cpu.normalize_columns_backward(1e-3, of, None, Some(sums), dy, plain);
            cpu.normalize_columns_backward(1e-3, of, Some(scale), Some(sums), dy, scaled);
        },
    );
}

#[test]
fn of_layer_normalisation() {
    for columns in [3, 37] {
        let values = |seed| rows(columns, seed);
        let column = |seed| shared(columns, seed);
        assert_same_bits(
            &format!("normalize_rows of {columns}"),
            [values(1), column(2), column(3)],
            [values(4), rows(2, 5)],
            |cpu, _, [x, scale, offset], [y, moments]| {
                let affine = Affine {
                    scale: Some(scale),
                    offset: Some(offset),
                };
                cpu.normalize_rows(columns, 1e-3, x, affine, y, moments);
            },
        );
        assert_same_bits(
            &format!("normalize_rows_backward of {columns}"),
            [values(1), positive(rows(2, 2)), column(3), values(4)],
            [shared(2 * columns, 5), values(6)],
            |cpu, _, [x, moments, scale, dy], [sums, dx]| {
                cpu.normalize_rows_backward(x, moments, Some(scale), dy, sums, Some(dx));
            },
        );
    }
}

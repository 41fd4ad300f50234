//! Functions of elements and of rows, losses, windows and lookups.

use ringstep::backend::cpu::Cpu;
use ringstep::backend::{
    Accumulate, Activate, Activation, Bag, Compared, DropoutKey, Lookup, Loss, Losses, Normalize,
    Padding, Pool, PoolGeometry, Pooling,
};

use super::*;

const ACTIVATIONS: [Activation; 9] = [
    Activation::Linear,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.3 },
    Activation::Elu { alpha: 1.7 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
];

#[test]
fn of_activations() {
    for activation in ACTIVATIONS {
        let name = format!("{activation:?}");
        assert_same_bits(&name, [rows(3, 1)], [rows(3, 2)], |cpu, _, [x], [y]| {
            cpu.activate(activation, x, y);
        });
        // The identity has nothing to do in place, nor its gradient.
        if activation == Activation::Linear {
            continue;
        }
        assert_same_bits(&name, [], [rows(3, 1)], |cpu, _, [], [y]| {
            cpu.activate_in_place(activation, y);
        });
        let name = format!("gradient of {name}");
        assert_same_bits(&name, [rows(3, 3)], [rows(3, 4)], |cpu, _, [x], [dy]| {
            cpu.activate_backward(activation, x, dy);
        });
    }
}

#[test]
fn of_additions_and_sums() {
    assert_same_bits(
        "add",
        [rows(3, 1), rows(3, 2)],
        [rows(3, 3)],
        |cpu, _, [a, b], [sum]| cpu.add(a, b, sum),
    );
    assert_same_bits(
        "add_assign",
        [rows(3, 1)],
        [rows(3, 2)],
        |cpu, _, [a], [sum]| {
            cpu.add_assign(a, sum);
        },
    );
    assert_same_bits("scale", [rows(3, 1)], [rows(3, 2)], |cpu, _, [x], [y]| {
        cpu.scale(0.3, x, y);
    });
    for columns in [1, 37] {
        for write in [Accumulate::Set, Accumulate::Add] {
            assert_same_bits(
                &format!("sum_rows, {columns} columns, {write:?}"),
                [rows(columns, 1)],
                [shared(columns, 2)],
                |cpu, _, [x], [sums]| cpu.sum_rows(columns, x, sums, write),
            );
        }
    }
}

#[test]
fn of_softmax() {
    for columns in [2, 10, 37] {
        let name = format!("softmax of {columns}");
        let arrays = ([rows(columns, 1)], [rows(columns, 2)]);
        assert_same_bits(&name, arrays.0, arrays.1, |cpu, _, [x], [y]| {
            cpu.softmax(columns, x, y);
        });
        let name = format!("gradient of {name}");
        let arrays = ([rows(columns, 1)], [rows(columns, 2)]);
        assert_same_bits(&name, arrays.0, arrays.1, |cpu, _, [y], [dy]| {
            cpu.softmax_backward(columns, y, dy);
        });
    }
}

#[test]
fn of_dropout() {
    for columns in [1, 10, 37] {
        let name = format!("dropout of {columns}");
        let arrays = ([rows(columns, 1)], [rows(columns, 2)]);
        assert_same_bits(&name, arrays.0, arrays.1, |cpu, first_row, [x], [y]| {
            let key = DropoutKey {
                seed: 1 << 40,
                step: 7,
                layer: 3,
                first_sample: 100 + first_row as u64,
            };
            cpu.dropout(key, 0.4, columns, x, y);
        });
    }
}

#[test]
fn of_losses() {
    let smoothing = 0.1;
    for loss in [
        Loss::SoftmaxCrossEntropy { smoothing },
        Loss::SigmoidCrossEntropy { smoothing },
        Loss::SquaredError,
        Loss::AbsoluteError,
        Loss::Huber { delta: 1.5 },
    ] {
        let dense = || mapped(rows(11, 2), |x| (0.5 + x / 16.0).clamp(0.0, 1.0));
        loss_keeps_its_bits(&format!("{loss:?}"), loss, dense());
        if matches!(loss, Loss::SoftmaxCrossEntropy { .. }) {
            let classes = indices(rows(1, 2), 11);
            loss_keeps_its_bits(&format!("{loss:?} of classes"), loss, classes);
        }
    }
}

/// With and without weights: the report, whose numbers are written down as bits, and the gradient.
fn loss_keeps_its_bits(name: &str, loss: Loss, targets: Array) {
    let weights = positive(rows(1, 3));
    assert_same_bits(
        name,
        [rows(11, 1), targets, weights],
        [rows(11, 4), rows(11, 5), shared(16, 6)],
        |cpu, _, [outputs, targets, weights], [gradient, weighted, reports]| {
            let all = [(None, gradient), (Some(weights), weighted)];
            for ((weights, gradient), reported) in all.into_iter().zip(reports.chunks_mut(8)) {
                let compared = Compared {
                    outputs,
                    targets,
                    weights,
                };
                let mut report = [0.0; 4];
                let count = outputs.len() / 11;
                cpu.loss(loss, count, compared, &mut report, Some(gradient));
                for (halves, number) in reported.chunks_mut(2).zip(report) {
                    halves[0] = f32::from_bits(number.to_bits() as u32);
                    halves[1] = f32::from_bits((number.to_bits() >> 32) as u32);
                }
            }
        },
    );
}

#[test]
fn of_pooling() {
    for channels in [1, 19] {
        for (window, strides, padding) in [
            ([2, 2], [2, 2], Padding::Valid),
            ([3, 2], [2, 1], Padding::Same),
        ] {
            let geometry = |count| {
                PoolGeometry::new(count, [5, 4, channels], window, strides, padding).unwrap()
            };
            let (x, y) = (geometry(1).in_elements(), geometry(1).out_elements());
            for pooling in [Pooling::Max, Pooling::Average] {
                let name = format!("{pooling:?} of {window:?}, {channels} channels");
                assert_same_bits(
                    &name,
                    [rows(x, 1)],
                    [rows(y, 2)],
                    |cpu, _, [images], [pooled]| {
                        cpu.pool(pooling, &geometry(images.len() / x), images, pooled);
                    },
                );
                let (images, mut pooled) = (rows(x, 1), rows(y, 2));
                let all = &geometry(ROWS);
                Cpu::new().pool(pooling, all, &images.values, &mut pooled.values);
                assert_same_bits(
                    &format!("gradient of {name}"),
                    [images, pooled],
                    [scratch(rows(y, 2)), rows(x, 3)],
                    |cpu, _, [images, pooled], [dy, dx]| {
                        let geometry = geometry(images.len() / x);
                        cpu.pool_backward(pooling, &geometry, images, pooled, dy, dx);
                    },
                );
            }
        }
    }
}

#[test]
fn of_lookup() {
    let (width, entries) = (21, 13);
    assert_same_bits(
        "gather_bags",
        [
            shared(entries * width, 1),
            indices(rows(1, 2), entries as u32),
        ],
        [rows(width, 3)],
        |cpu, _, [table, indices], [y]| {
            cpu.gather_bags(Bag::rows(width), table, indices, y, Accumulate::Set);
        },
    );
    for write in [Accumulate::Set, Accumulate::Add] {
        assert_same_bits(
            &format!("scatter_bags, {write:?}"),
            [indices(rows(1, 1), entries as u32), rows(width, 2)],
            [shared(entries * width, 3)],
            |cpu, _, [indices, dy], [gradient]| {
                cpu.scatter_bags(Bag::rows(width), indices, dy, gradient, write);
            },
        );
    }
}

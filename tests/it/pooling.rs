//! The pooling kernels against plain loops, and what ties, borders and NaN do.

use proptest::prelude::*;
use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Padding, Pool, PoolGeometry, Pooling};

fn run(pooling: Pooling, g: &PoolGeometry, x: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let mut cpu = Cpu::new();
    let mut y = vec![f32::NAN; g.rows * g.out_elements()];
    let mut dx = vec![f32::NAN; x.len()];
    cpu.pool(pooling, g, x, &mut y);
    cpu.pool_backward(pooling, g, x, &y, &mut dy.to_vec(), &mut dx);
    (y, dx)
}

/// The places of every window, each with the place of its output.
fn windows(g: &PoolGeometry) -> Vec<(usize, Vec<usize>)> {
    let inside = |start: usize, window: usize, pad: usize, extent: usize| {
        (start..start + window)
            .filter(move |&at| at >= pad && at - pad < extent)
            .map(move |at| at - pad)
    };
    let mut found = Vec::new();
    for image in 0..g.rows {
        for (row, column) in (0..g.out_height).flat_map(|r| (0..g.out_width).map(move |c| (r, c))) {
            for channel in 0..g.channels {
                let output =
                    ((image * g.out_height + row) * g.out_width + column) * g.channels + channel;
                let mut places = Vec::new();
                for h in inside(
                    row * g.stride_height,
                    g.window_height,
                    g.pad_top,
                    g.in_height,
                ) {
                    let across = inside(
                        column * g.stride_width,
                        g.window_width,
                        g.pad_left,
                        g.in_width,
                    );
                    for w in across {
                        let line = (image * g.in_height + h) * g.in_width;
                        places.push((line + w) * g.channels + channel);
                    }
                }
                found.push((output, places));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_geometries_match_plain_loops(
        rows in 0..4_usize,
        image in [1..10_usize, 1..10, 1..40],
        window in [1..5_usize, 1..5],
        strides in [1..5_usize, 1..5],
        same: bool,
        seed: u64,
    ) {
        let padding = if same { Padding::Same } else { Padding::Valid };
        let Some(g) = PoolGeometry::new(rows, image, window, strides, padding) else {
            prop_assert!(!same && (window[0] > image[0] || window[1] > image[1]));
            return Ok(());
        };
        // Few distinct values, so that ties are common; whole numbers, so that sums are exact.
        let whole = |i: u64| {
            let mixed = (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 61) as f32 - 3.0
        };
        let x: Vec<f32> = (0..rows * g.in_elements()).map(|i| whole(i as u64)).collect();
        let dy: Vec<f32> = (0..rows * g.out_elements()).map(|i| whole(!(i as u64))).collect();
        let (max, dmax) = run(Pooling::Max, &g, &x, &dy);
        let (mean, dmean) = run(Pooling::Average, &g, &x, &dy);
        let (mut want_dmax, mut want_dmean) = (vec![0.0; x.len()], vec![0.0_f32; x.len()]);
        for (output, places) in windows(&g) {
            let mut first = places[0];
            for &place in &places {
                if x[place] > x[first] {
                    first = place;
                }
            }
            let count = places.len() as f32;
            prop_assert_eq!(max[output], x[first]);
            prop_assert_eq!(mean[output], places.iter().map(|&place| x[place]).sum::<f32>() / count);
            want_dmax[first] += dy[output];
            for &place in &places {
                want_dmean[place] += dy[output] / count;
            }
        }
        prop_assert_eq!(dmax, want_dmax);
        prop_assert_eq!(dmean, want_dmean);
    }
}

#[test]
fn a_nan_is_its_windows_maximum_and_takes_the_gradient() {
    for hole in 0..4 {
        let g = PoolGeometry::new(1, [2, 2, 1], [2, 2], [2, 2], Padding::Valid).unwrap();
        let mut x = [1.0, 5.0, 3.0, 2.0];
        x[hole] = f32::NAN;
        let (y, dx) = run(Pooling::Max, &g, &x, &[7.0]);
        assert!(y[0].is_nan());
        assert_eq!(dx.iter().sum::<f32>(), 7.0);
    }
}

#[test]
fn a_mean_at_the_border_leaves_out_the_padding() {
    let g = PoolGeometry::new(1, [1, 3, 1], [1, 3], [1, 1], Padding::Same).unwrap();
    let (y, dx) = run(Pooling::Average, &g, &[2.0, 4.0, 6.0], &[2.0, 3.0, 4.0]);
    assert_eq!(y, [3.0, 4.0, 5.0]);
    assert_eq!(dx, [2.0, 4.0, 3.0]);
}

//! The block sums that norms are made of: the bits of the CPU, however blocks are dealt to ranks.

use std::ops::Range;

use ringstep::backend::{BLOCK, Preparation, Update};

use crate::twins::{assert_same_bits, cuda, download, normals, twins, upload};

const PREPARATION: Preparation = Preparation {
    scale: 0.7,
    limit: 0.5,
    decay: 0.99,
};

/// Block sums of `x` from `range.start` on, in an array that is longer.
fn block_sums<B: Update>(
    backend: &mut B,
    preparation: Preparation,
    x: &[f32],
    range: Range<usize>,
) -> Vec<f64> {
    let blocks = range.len().div_ceil(BLOCK);
    let x = upload(backend, x);
    let mut sums = upload(backend, &vec![-1.0; blocks + 2]);
    let part = B::slice_mut(B::view_mut(&mut sums), 1..1 + blocks);
    backend.block_sums_of_squares(preparation, B::slice(B::view(&x), range), part);
    download(backend, &sums)
}

#[test]
fn block_sums_at_every_length_and_offset() {
    let gpu = &mut cuda();
    // Beyond what one block of threads takes: 32 blocks of 64.
    for len in [0, 1, 3, 31, 33, 63, 64, 65, 257, 2048, 2049, 4200] {
        for offset in 0..4 {
            // Of very different sizes, so that another order of sums is seen.
            let mut x = normals(7, len + offset + 9);
            for (at, x) in x.iter_mut().enumerate() {
                *x *= 1.7f32.powi(at as i32 % 23);
            }
            for preparation in [Preparation::NONE, PREPARATION] {
                let range = offset..offset + len;
                let (cpu, cuda) = twins!(on gpu, block_sums, preparation, &x, range.clone());
                assert_same_bits(&cpu, &cuda);
            }
        }
    }
}

#[test]
fn block_sums_of_more_than_a_grid_takes_at_once() {
    // 4096 blocks of 256 threads, eight of which share a block of elements.
    let len = 4096 * 32 * BLOCK + 3 * BLOCK + 5;
    let x: Vec<f32> = (0..len).map(|at| (at % 8191) as f32 * 0.37).collect();
    let (cpu, cuda) = twins!(block_sums, Preparation::NONE, &x, 0..len);
    assert_same_bits(&cpu, &cuda);
}

#[test]
fn block_sums_do_not_depend_on_how_blocks_are_dealt_to_ranks() {
    let gpu = &mut cuda();
    let len = 40 * BLOCK + 17;
    let x = normals(9, len);
    let whole = block_sums(gpu, PREPARATION, &x, 0..len);
    for ranks in [2, 3, 7] {
        let each = len.div_ceil(BLOCK).div_ceil(ranks) * BLOCK;
        for start in (0..len).step_by(each) {
            let shard = start..len.min(start + each);
            let sums = block_sums(gpu, PREPARATION, &x, shard);
            let (first, blocks) = (start / BLOCK, sums.len() - 2);
            assert_same_bits(&whole[1 + first..][..blocks], &sums[1..=blocks]);
        }
    }
}

#[test]
fn what_is_not_finite_is_in_the_sum_of_its_block_only() {
    let gpu = &mut cuda();
    for (special, sum) in [(f32::NAN, f64::NAN), (f32::NEG_INFINITY, f64::INFINITY)] {
        for at in [0, 63, 64, 200, 206] {
            let mut x = normals(3, 207);
            x[at] = special;
            let (cpu, cuda) = twins!(on gpu, block_sums, Preparation::NONE, &x, 0..207);
            for (block, (cpu, cuda)) in cpu[1..5].iter().zip(&cuda[1..5]).enumerate() {
                if block == at / BLOCK {
                    assert_eq!((cuda.is_nan(), *cuda > 0.0), (sum.is_nan(), sum > 0.0));
                    assert!(!cuda.is_finite() && !cpu.is_finite());
                } else {
                    assert_eq!(cpu.to_bits(), cuda.to_bits());
                }
            }
        }
    }
}

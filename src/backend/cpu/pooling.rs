//! The largest or the mean value of windows of an image, channels last.
//!
//! All is bound by memory: the gradient of a maximum looks for the maximum again rather than to
//! read where it was, and an image's `dx` is cleared when it is about to be written.

use std::ops::Range;

use super::Cpu;
use super::simd::vectorized;
use crate::backend::{Pool, PoolGeometry, Pooling};

impl Pool for Cpu {
    fn pool(&mut self, pooling: Pooling, geometry: &PoolGeometry, x: &[f32], y: &mut [f32]) {
        check(geometry, x, y);
        match pooling {
            Pooling::Max => max(geometry, x, y),
            Pooling::Average => average(geometry, x, y),
        }
    }

    fn pool_backward(
        &mut self,
        pooling: Pooling,
        geometry: &PoolGeometry,
        x: &[f32],
        y: &[f32],
        dy: &mut [f32],
        dx: &mut [f32],
    ) {
        check(geometry, dx, dy);
        match pooling {
            Pooling::Max => {
                check(geometry, x, y);
                max_backward(geometry, x, y, dy, dx);
            }
            Pooling::Average => average_backward(geometry, dy, dx),
        }
    }
}

fn check(geometry: &PoolGeometry, x: &[f32], y: &[f32]) {
    assert_eq!(
        x.len(),
        geometry.rows * geometry.in_elements(),
        "length of the input"
    );
    assert_eq!(
        y.len(),
        geometry.rows * geometry.out_elements(),
        "length of the output"
    );
}

vectorized! {
    fn max(g: &PoolGeometry, x: &[f32], y: &mut [f32]) {
        for (x, y) in images(g, x).zip(y.chunks_exact_mut(g.out_elements())) {
            for (window, y) in windows(g).zip(y.chunks_exact_mut(g.channels)) {
                for (i, place) in window.places(g).enumerate() {
                    let x = &x[place..][..g.channels];
                    if i == 0 {
                        y.copy_from_slice(x);
                    } else {
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = if x > *y || x.is_nan() { x } else { *y };
                        }
                    }
                }
            }
        }
    }

    fn max_backward(g: &PoolGeometry, x: &[f32], y: &[f32], dy: &mut [f32], dx: &mut [f32]) {
        let gradients = dy.chunks_exact_mut(g.out_elements()).zip(dx.chunks_exact_mut(g.in_elements()));
        for ((x, y), (dy, dx)) in images(g, x).zip(y.chunks_exact(g.out_elements())).zip(gradients) {
            dx.fill(0.0);
            let places = y.chunks_exact(g.channels).zip(dy.chunks_exact_mut(g.channels));
            for (window, (y, dy)) in windows(g).zip(places) {
                for place in window.places(g) {
                    let dx = &mut dx[place..][..g.channels];
                    let x = &x[place..][..g.channels];
                    for (((dx, &x), &y), dy) in dx.iter_mut().zip(x).zip(y).zip(dy.iter_mut()) {
                        // A NaN is its window's maximum, too.
                        let is_max = x >= y || y.is_nan();
                        *dx += if is_max { *dy } else { 0.0 };
                        *dy = if is_max { 0.0 } else { *dy };
                    }
                }
            }
        }
    }

    fn average(g: &PoolGeometry, x: &[f32], y: &mut [f32]) {
        for (x, y) in images(g, x).zip(y.chunks_exact_mut(g.out_elements())) {
            for (window, y) in windows(g).zip(y.chunks_exact_mut(g.channels)) {
                y.fill(0.0);
                for place in window.places(g) {
                    for (y, &x) in y.iter_mut().zip(&x[place..][..g.channels]) {
                        *y += x;
                    }
                }
                let count = window.count();
                for y in y {
                    *y /= count;
                }
            }
        }
    }

    fn average_backward(g: &PoolGeometry, dy: &mut [f32], dx: &mut [f32]) {
        let images = dy.chunks_exact_mut(g.out_elements()).zip(dx.chunks_exact_mut(g.in_elements()));
        for (dy, dx) in images {
            dx.fill(0.0);
            for (window, dy) in windows(g).zip(dy.chunks_exact_mut(g.channels)) {
                let count = window.count();
                for dy in dy.iter_mut() {
                    *dy /= count;
                }
                for place in window.places(g) {
                    for (dx, &dy) in dx[place..][..g.channels].iter_mut().zip(dy.iter()) {
                        *dx += dy;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn images<'a>(g: &PoolGeometry, x: &'a [f32]) -> std::slice::ChunksExact<'a, f32> {
    x.chunks_exact(g.in_elements())
}

/// The part of a window that lies in the image.
struct Window {
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Window {
    /// Where the channels of each place start, row by row.
    #[inline(always)]
    fn places(&self, g: &PoolGeometry) -> impl Iterator<Item = usize> + use<> {
        let (width, channels) = (g.in_width, g.channels);
        let columns = self.columns.clone();
        self.rows.clone().flat_map(move |row| {
            columns
                .clone()
                .map(move |column| (row * width + column) * channels)
        })
    }

    #[inline(always)]
    fn count(&self) -> f32 {
        (self.rows.len() * self.columns.len()) as f32
    }
}

/// The windows of an image, row by row.
#[inline(always)]
fn windows(g: &PoolGeometry) -> impl Iterator<Item = Window> + use<> {
    let g = *g;
    (0..g.out_height).flat_map(move |row| {
        let rows = part(
            row * g.stride_height,
            g.window_height,
            g.pad_top,
            g.in_height,
        );
        (0..g.out_width).map(move |column| Window {
            rows: rows.clone(),
            columns: part(
                column * g.stride_width,
                g.window_width,
                g.pad_left,
                g.in_width,
            ),
        })
    })
}

/// What of `start..start + window`, counted from `pad` before the image, lies in `0..extent`.
#[inline(always)]
fn part(start: usize, window: usize, pad: usize, extent: usize) -> Range<usize> {
    start.saturating_sub(pad)..(start + window).saturating_sub(pad).min(extent)
}

//! Sums that do not depend on their order.
//!
//! With two ranks and two micro-batches each, gradients of 0.3, 0.1, -0.2 and 0.7 are rounded to
//! multiples of 2^-e and added as integers, so that neither the order nor the assignment of
//! micro-batches to ranks changes a bit. The exponent e of each tensor comes from the largest
//! magnitude of the step before (a maximum does not depend on the order either), with [`HEADROOM`]
//! bits to grow; a step that outgrows it, or shrinks far below it, is computed again.

use std::ops::Range;

use super::reducer::{Job, Reducer};
use crate::backend::{Accumulate, Backend, Download, Region, View};
use crate::comm::Span;

/// Bits of a fixed-point sum that hold the sign and one spare.
const RESERVED: i32 = 2;

/// Bits by which a tensor's largest value may grow from one step to the next.
const HEADROOM: i32 = 8;

/// Bits the largest value must fill; below, the step is computed again with a larger exponent.
const ENOUGH: i32 = 32;

/// Exponents a single-precision power of two can have.
const EXPONENTS: std::ops::RangeInclusive<i32> = -126..=127;

/// One power-of-two scale per tensor: part of a checkpoint.
#[derive(Debug, Clone)]
pub struct Scales {
    exponents: Vec<i32>,
    micro_batches: usize,
}

impl Scales {
    /// Scales for values around 1, for sums of at most `micro_batches` contributions.
    pub fn new(tensors: usize, micro_batches: usize) -> Self {
        let exponents = vec![exponent(1f32.to_bits(), micro_batches); tensors];
        Self {
            exponents,
            micro_batches,
        }
    }

    /// The exponents in force: an integer stands for `integer * 2^-exponent`.
    pub fn exponents(&self) -> &[i32] {
        &self.exponents
    }

    /// Goes on with the exponents of a checkpoint.
    pub fn restore(&mut self, exponents: &[i32]) {
        self.exponents.copy_from_slice(exponents);
    }

    /// Whether sums of values of these magnitudes (bit patterns, over all ranks) overflowed or lost
    /// bits that matter, so that the step has to be computed again after `adapt`.
    pub fn outgrown(&self, magnitudes: &[u32]) -> bool {
        self.exponents
            .iter()
            .zip(magnitudes)
            .any(|(&old, &magnitude)| {
                magnitude > 0
                    && !fits(magnitude, old, self.micro_batches)
                    && exponent(magnitude, self.micro_batches) != old
            })
    }

    /// Takes the exponents that suit these magnitudes; where all was zero, the old ones stay.
    pub fn adapt(&mut self, magnitudes: &[u32]) {
        for (old, &magnitude) in self.exponents.iter_mut().zip(magnitudes) {
            if magnitude > 0 {
                *old = exponent(magnitude, self.micro_batches);
            }
        }
    }
}

/// A fixed-point accumulator outside the gradient arena, for values that change the model without
/// being gradients (moving statistics): the same arithmetic in one small region.
pub(super) struct ExactSums<B: Backend> {
    ranges: Vec<Range<usize>>,
    wire: Region<i64>,
    scales: Scales,
    magnitudes: B::Buffer<u32>,
}

impl<B: Backend> ExactSums<B> {
    /// One exponent for each of `ranges`, which follow one another from 0; collective.
    pub(super) fn new(
        queue: &mut B,
        ranges: Vec<Range<usize>>,
        micro_batches: usize,
        reducer: &mut Reducer,
    ) -> Result<Self, super::TrainError> {
        let len = ranges.last().map_or(0, |range| range.end);
        Ok(Self {
            wire: reducer.allocate_i64("exact sums of state", len)?,
            scales: Scales::new(ranges.len(), micro_batches),
            magnitudes: queue.allocate("statistics magnitudes", ranges.len())?,
            ranges,
        })
    }

    /// Adds one micro-batch's values, or sets them where it is the rank's first.
    pub(super) fn add(&mut self, queue: &mut B, values: View<'_, B>, first: bool) {
        let write = if first {
            Accumulate::Set
        } else {
            Accumulate::Add
        };
        if first {
            queue.fill(B::view_mut(&mut self.magnitudes), 0);
        }
        for (index, range) in self.ranges.iter().enumerate() {
            // SAFETY: the sums are handed over only in `hand_over`, after the last micro-batch.
            let sums = unsafe { B::region_mut(&self.wire, range.clone()) };
            queue.quantize(
                B::slice(values, range.clone()),
                self.scales.exponents()[index],
                sums,
                write,
                B::slice_mut(B::view_mut(&mut self.magnitudes), index..index + 1),
            );
        }
    }

    /// Contributes zero: for a rank without a micro-batch.
    pub(super) fn contribute_nothing(&mut self, queue: &mut B) {
        queue.fill(B::view_mut(&mut self.magnitudes), 0);
        // SAFETY: as in `add`.
        queue.fill(unsafe { B::region_mut(&self.wire, 0..self.wire.len()) }, 0);
    }

    /// Hands the sums to the reducer.
    pub(super) fn hand_over(&mut self, queue: &mut B, reducer: &mut Reducer) {
        if !self.ranges.is_empty() {
            reducer.after(queue.release());
            reducer.submit(Job::AllReduce(Span {
                region: self.wire.id(),
                range: 0..self.wire.len(),
            }));
        }
    }

    /// The way to the host of bit patterns of the largest magnitudes on this rank.
    pub(super) fn magnitudes<'a>(&'a self, out: &'a mut [u32]) -> Download<'a, B> {
        Download::U32(B::view(&self.magnitudes), out)
    }

    /// The scales the sums are made with, one per range.
    pub(super) fn scales(&mut self) -> &mut Scales {
        &mut self.scales
    }

    /// The sum of one range and its exponent; valid after the reducer has run everything and
    /// the queue has acquired it.
    pub(super) fn sum(&self, index: usize) -> (B::View<'_, i64>, i32) {
        // SAFETY: handed over only between `hand_over` and the reducer's wait, within one step.
        let sum = unsafe { B::region(&self.wire, self.ranges[index].clone()) };
        (sum, self.scales.exponents()[index])
    }
}

/// `floor(log2)` of the float with these bits; infinities and NaNs count as 128.
fn log2(magnitude: u32) -> i32 {
    let exponent = (magnitude >> 23) as i32 - 127;
    // Denormal numbers are at most 2^-126; taking them for that wastes bits nobody misses.
    exponent.max(-126)
}

/// Bits a single micro-batch may fill so that the sum of all cannot overflow.
fn capacity(micro_batches: usize) -> i32 {
    64 - RESERVED - micro_batches.next_power_of_two().trailing_zeros() as i32
}

/// The exponent with which a value of this magnitude fills all but [`HEADROOM`] of its bits.
fn exponent(magnitude: u32, micro_batches: usize) -> i32 {
    let exponent = capacity(micro_batches) - HEADROOM - 1 - log2(magnitude);
    exponent.clamp(*EXPONENTS.start(), *EXPONENTS.end())
}

/// Whether a value of this magnitude neither overflows nor loses bits that matter.
fn fits(magnitude: u32, exponent: i32, micro_batches: usize) -> bool {
    let bits = log2(magnitude) + 1 + exponent;
    (ENOUGH..=capacity(micro_batches)).contains(&bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapted_scales_fit_with_room_to_grow_and_no_overflow() {
        for micro_batches in [1, 2, 3, 8, 1000] {
            for value in [1e-12f32, 3.7e-5, 1.0, 1.999_999_9, 1e12] {
                let mut scales = Scales::new(1, micro_batches);
                scales.adapt(&[value.to_bits()]);
                assert!(!scales.outgrown(&[value.to_bits()]));
                assert!(
                    !scales.outgrown(&[(value * 200.0).to_bits()]),
                    "room to grow"
                );
                assert!(
                    scales.outgrown(&[(value * 600.0).to_bits()]),
                    "overflow is seen"
                );
                let unit = 2f64.powi(scales.exponents()[0]);
                let sum = f64::from(value * 255.0) * unit * micro_batches as f64;
                assert!(sum < 2f64.powi(63), "{value} x {micro_batches} overflows");
                assert!(
                    f64::from(value) * unit > 2f64.powi(40),
                    "{value} keeps its bits"
                );
            }
        }
    }

    #[test]
    fn a_tiny_gradient_asks_for_another_scale_once() {
        let mut scales = Scales::new(2, 4);
        let tiny = [1e-30f32.to_bits(), 0];
        assert!(scales.outgrown(&tiny));
        scales.adapt(&tiny);
        assert!(!scales.outgrown(&tiny));
    }
}

//! From the gradients of micro-batches to their sum over all ranks.
//!
//! [`Reduction`] is the sink that backward writes to. What is finished is turned to what travels
//! (`reduce = "exact"`: 64-bit fixed point, or itself where the communicator sums in fixed point;
//! `"bf16"`: half the size; `"f32"`: itself) and, in the last micro-batch, handed to the reducer
//! bucket by bucket while backward goes on.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::exact::Scales;
use super::reducer::{Job, Reducer};
use crate::backend::{Accumulate, Backend, Download, Region, View, ViewMut};
use crate::comm::{CommError, ReduceMode, Span};
use crate::params::{ALIGNMENT, GradSink, Layout, buckets, partition};

/// What [`Reduction::new`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct ReductionOptions {
    /// How to add.
    pub mode: ReduceMode,
    /// Bytes of a bucket.
    pub bucket_bytes: usize,
    /// ZeRO-1: each rank gets only its shard of the sum.
    pub sharded: bool,
    /// Micro-batches in the largest global batch.
    pub micro_batches: usize,
}

/// The gradient arena and its way to the other ranks.
pub struct Reduction<B: Backend> {
    queue: B,
    layout: Arc<Layout>,
    options: ReductionOptions,
    buckets: Vec<Range<usize>>,
    tickets: Vec<u64>,
    gradients: Region<f32>,
    wire: Wire,
    /// Where the communicator sums floats in fixed point itself: the exponent of each block.
    exponents: Option<Region<i64>>,
    /// Whether it does so in this step: no rank has micro-batches to add up before.
    sums_floats: bool,
    scales: Scales,
    magnitudes: B::Buffer<u32>,
    contributed: Vec<usize>,
    watermark: usize,
    write: Accumulate,
    last: bool,
    reducer: Reducer,
}

enum Wire {
    Same,
    Bf16(Region<bf16>),
    Exact(Region<i64>),
}

impl<B: Backend> Reduction<B> {
    /// Allocates the arenas; collective.
    pub fn new(
        mut queue: B,
        layout: Arc<Layout>,
        options: ReductionOptions,
        mut reducer: Reducer,
    ) -> Result<Self, super::TrainError> {
        let world = reducer.world();
        let len = layout.arena_len(world);
        let buckets = buckets(len, ALIGNMENT * world, options.bucket_bytes);
        let gradients = reducer.allocate_f32("gradients", len)?;
        let mut exponents = None;
        let wire = match options.mode {
            ReduceMode::F32 => Wire::Same,
            ReduceMode::Bf16 => Wire::Bf16(reducer.allocate_bf16("gradients as they travel", len)?),
            ReduceMode::Exact => {
                let region = gradients.clone();
                exponents =
                    reducer.call(move |communicator| communicator.sum_in_fixed_point(&region))?;
                // Integers are stored only where a rank may have several micro-batches to add up.
                let stored = exponents.is_none() || options.micro_batches > world;
                let len = if stored { len } else { 0 };
                Wire::Exact(reducer.allocate_i64("exact sums of gradients", len)?)
            }
        };
        let tensors = layout.tensors().len();
        Ok(Self {
            exponents,
            sums_floats: false,
            magnitudes: queue.allocate("gradient magnitudes", tensors)?,
            queue,
            scales: Scales::new(tensors, options.micro_batches),
            contributed: vec![0; tensors],
            tickets: Vec::with_capacity(buckets.len()),
            buckets,
            gradients,
            wire,
            watermark: len,
            write: Accumulate::Set,
            last: false,
            layout,
            options,
            reducer,
        })
    }

    /// The way to the other ranks, for everything but gradients.
    pub fn reducer(&mut self) -> &mut Reducer {
        &mut self.reducer
    }

    /// Arena ranges whose sums this rank receives, in arena order: all of it in one, unless it has a shard of
    /// each bucket.
    pub fn owned(&self) -> Vec<Range<usize>> {
        if !self.options.sharded {
            return std::iter::once(0..self.gradients.len()).collect();
        }
        let mut owned: Vec<_> = self
            .buckets
            .iter()
            .map(|bucket| self.own_piece(bucket))
            .collect();
        owned.reverse();
        owned
    }

    /// The buckets, in the order they are reduced.
    pub fn buckets(&self) -> &[Range<usize>] {
        &self.buckets
    }

    /// The scales of exact sums, one per tensor.
    pub fn scales(&mut self) -> &mut Scales {
        &mut self.scales
    }

    /// Forgets the step before; the next has `micro_batches` over all ranks.
    pub fn begin_step(&mut self, micro_batches: usize) {
        self.tickets.clear();
        self.queue.fill(B::view_mut(&mut self.magnitudes), 0);
        self.sums_floats = false;
        if let Some(table) = &self.exponents
            && micro_batches <= self.reducer.world()
        {
            self.sums_floats = true;
            for (tensor, &exponent) in self.layout.tensors().iter().zip(self.scales.exponents()) {
                let blocks = tensor.offset / ALIGNMENT..tensor.range().end.div_ceil(ALIGNMENT);
                // SAFETY: nobody reads the table but sums, and none runs between steps.
                unsafe { table.slice_mut(blocks) }.fill(i64::from(exponent));
            }
        }
    }

    /// Starts a micro-batch: this rank's first sets, its last hands over.
    pub fn begin_micro_batch(&mut self, first: bool, last: bool) {
        self.watermark = self.gradients.len();
        self.write = if first {
            Accumulate::Set
        } else {
            Accumulate::Add
        };
        self.last = last;
        self.contributed.fill(0);
    }

    /// Contributes zero: for a rank without a micro-batch.
    pub fn contribute_nothing(&mut self) {
        let all = 0..self.gradients.len();
        // SAFETY: no bucket has been handed over in this step.
        unsafe {
            match &self.wire {
                Wire::Same => self.queue.fill(B::region_mut(&self.gradients, all), 0.0),
                Wire::Bf16(wire) => self.queue.fill(B::region_mut(wire, all), bf16::ZERO),
                Wire::Exact(_) if self.sums_floats => {
                    self.queue.fill(B::region_mut(&self.gradients, all), 0.0);
                }
                Wire::Exact(wire) => self.queue.fill(B::region_mut(wire, all), 0),
            }
        }
        self.last = true;
        self.hand_over(0);
    }

    /// The name of a tensor whose gradient the last micro-batch did not finish.
    pub fn unfinished(&self) -> Option<&str> {
        let mut tensors = self.layout.tensors().iter().zip(&self.contributed);
        let missing = tensors.find(|(tensor, count)| **count < tensor.contributions);
        missing.map(|(tensor, _)| tensor.name.as_str())
    }

    /// The way to the host of bit patterns of the largest magnitudes of this rank's gradients, one per
    /// tensor: of its sums over micro-batches, or where sums are exact of what it adds up.
    pub fn magnitudes<'a>(&'a self, out: &'a mut [u32]) -> Download<'a, B> {
        Download::U32(B::view(&self.magnitudes), out)
    }

    /// Whether sums of these magnitudes, over all ranks, have to be made again with other scales.
    pub fn outgrown(&self, magnitudes: &[u32]) -> bool {
        matches!(self.wire, Wire::Exact(_)) && self.scales.outgrown(magnitudes)
    }

    /// Takes the scales that suit these magnitudes, where sums are exact.
    pub fn adapt(&mut self, magnitudes: &[u32]) {
        if matches!(self.wire, Wire::Exact(_)) {
            self.scales.adapt(magnitudes);
        }
    }

    /// Waits for the sums and turns them back to floats.
    pub fn finish(&mut self) -> Result<(), CommError> {
        for index in 0..self.buckets.len() {
            self.reducer.wait(self.tickets[index])?;
            self.queue.acquire();
            let piece = self.own_piece(&self.buckets[index]);
            // SAFETY: the bucket's collective is over on this rank, so the memory is its own again
            // until the next step hands it over.
            unsafe {
                match &self.wire {
                    Wire::Same => {}
                    Wire::Exact(_) if self.sums_floats => {}
                    Wire::Bf16(wire) => self.queue.widen(
                        B::region(wire, piece.clone()),
                        B::region_mut(&self.gradients, piece),
                    ),
                    Wire::Exact(wire) => {
                        for (tensor, _, part) in self.layout.intersect(piece) {
                            self.queue.dequantize(
                                B::region(wire, part.clone()),
                                self.scales.exponents()[tensor],
                                B::region_mut(&self.gradients, part),
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The sums: valid in [`Self::owned`] between `finish` and the next `begin_step`.
    pub fn sums(&mut self) -> (View<'_, B>, &mut Reducer) {
        let all = 0..self.gradients.len();
        // SAFETY: no bucket is handed over outside a step, and the borrow of `self` keeps a step
        // from beginning while the view lives.
        (
            unsafe { B::region(&self.gradients, all) },
            &mut self.reducer,
        )
    }

    fn own_piece(&self, bucket: &Range<usize>) -> Range<usize> {
        if !self.options.sharded {
            return bucket.clone();
        }
        let piece = partition(bucket.len(), self.reducer.world(), self.reducer.rank());
        bucket.start + piece.start..bucket.start + piece.end
    }

    /// Hands over all buckets that start at `from` or later.
    fn hand_over(&mut self, from: usize) {
        while let Some(bucket) = self
            .buckets
            .get(self.tickets.len())
            .filter(|b| b.start >= from)
        {
            let region = match &self.wire {
                Wire::Same => self.gradients.id(),
                Wire::Bf16(wire) => {
                    // SAFETY: the bucket is finished and not handed over yet.
                    unsafe {
                        self.queue.narrow(
                            B::region(&self.gradients, bucket.clone()),
                            B::region_mut(wire, bucket.clone()),
                        );
                    }
                    wire.id()
                }
                Wire::Exact(_) if self.sums_floats => self.gradients.id(),
                Wire::Exact(wire) => wire.id(),
            };
            let span = Span {
                region,
                range: bucket.clone(),
            };
            let job = if self.options.sharded {
                Job::ReduceScatter(span)
            } else {
                Job::AllReduce(span)
            };
            self.reducer.after(self.queue.release());
            let ticket = self.reducer.submit(job);
            self.tickets.push(ticket);
        }
    }
}

impl<B: Backend> GradSink<B> for Reduction<B> {
    fn grads(&mut self, range: Range<usize>) -> (ViewMut<'_, B>, Accumulate) {
        assert!(
            range.end <= self.watermark,
            "gradient {range:?} was handed over already"
        );
        let tensor = self
            .layout
            .tensors()
            .partition_point(|tensor| tensor.range().end <= range.start);
        let first = self.contributed[tensor] == 0;
        self.contributed[tensor] += 1;
        // In fixed point each micro-batch is added after conversion, so its floats start afresh.
        let fresh = matches!(self.wire, Wire::Exact(_));
        let write = match first {
            true if fresh => Accumulate::Set,
            true => self.write,
            false => Accumulate::Add,
        };
        // SAFETY: below the watermark everything is this thread's; `self` is borrowed meanwhile.
        (unsafe { B::region_mut(&self.gradients, range) }, write)
    }

    fn done(&mut self, from: usize) {
        assert!(
            from <= self.watermark,
            "gradients are finished from the end"
        );
        let finished = from..std::mem::replace(&mut self.watermark, from);
        let wire = match &self.wire {
            Wire::Exact(wire) if !self.sums_floats => Some(wire),
            _ => None,
        };
        // Where floats are added to floats, what is not finite stays so until the last micro-batch.
        if wire.is_some() || self.last {
            for (tensor, _, part) in self.layout.intersect(finished) {
                let magnitude = B::slice_mut(B::view_mut(&mut self.magnitudes), tensor..tensor + 1);
                // SAFETY: this range was below the watermark until now and is handed over below.
                unsafe {
                    let values = B::region(&self.gradients, part.clone());
                    match wire {
                        None => self.queue.magnitude(values, magnitude),
                        Some(wire) => self.queue.quantize(
                            values,
                            self.scales.exponents()[tensor],
                            B::region_mut(wire, part),
                            self.write,
                            magnitude,
                        ),
                    }
                }
            }
        }
        if self.last {
            self.hand_over(from);
        }
    }
}

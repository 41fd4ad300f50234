//! The CPU backend: plain slices, work done where it is called.

mod activation;
mod buffer;
mod convolution;
mod fixed_point;
mod instructions;
mod lookup;
mod loss;
mod matmul;
mod normalization;
mod peak;
mod pooling;
mod round;
mod simd;
mod update;

use std::ops::Range;

pub use buffer::Buffer;
#[cfg(target_arch = "x86_64")]
pub(crate) use fixed_point::has_avx512;
pub(crate) use fixed_point::power_of_two;
pub use instructions::InstructionSet;

use super::{BackendError, Download, Element, Fence, Memory, Precision, Region};
use crate::memory::available;

/// One CPU thread that stands in for a device.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    instructions: InstructionSet,
    precision: Precision,
}

impl Cpu {
    /// A backend for the calling thread.
    pub fn new() -> Self {
        let instructions = InstructionSet::detect();
        let precision = Precision::F32;
        Self {
            instructions,
            precision,
        }
    }

    /// The same backend with products of operands that are rounded to `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// A backend that uses `instructions` even where there are faster ones; `None` where the
    /// machine lacks them.
    pub fn with_instructions(instructions: InstructionSet) -> Option<Self> {
        let precision = Precision::F32;
        instructions.is_available().then_some(Self {
            instructions,
            precision,
        })
    }

    /// What its kernels use.
    pub fn instructions(&self) -> InstructionSet {
        self.instructions
    }

    /// What operands of its products are rounded to.
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory for Cpu {
    type Buffer<T: Element> = Buffer<T>;
    type View<'a, T: Element> = &'a [T];
    type ViewMut<'a, T: Element> = &'a mut [T];

    fn allocate<T: Element>(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Buffer<T>, BackendError> {
        Buffer::zeroed(len).ok_or(BackendError::OutOfMemory {
            what,
            bytes: len.saturating_mul(size_of::<T>()),
        })
    }

    fn room(&self) -> Option<u64> {
        available()
    }

    fn view<T: Element>(buffer: &Buffer<T>) -> &[T] {
        buffer
    }

    fn view_mut<T: Element>(buffer: &mut Buffer<T>) -> &mut [T] {
        buffer
    }

    unsafe fn region<T: Element>(region: &Region<T>, range: Range<usize>) -> &[T] {
        // SAFETY: the caller's promise is the same.
        unsafe { region.slice(range) }
    }

    unsafe fn region_mut<T: Element>(region: &Region<T>, range: Range<usize>) -> &mut [T] {
        // SAFETY: the caller's promise is the same.
        unsafe { region.slice_mut(range) }
    }

    fn len<T: Element>(view: &[T]) -> usize {
        view.len()
    }

    fn len_mut<T: Element>(view: &&mut [T]) -> usize {
        view.len()
    }

    fn slice<'long: 'short, 'short, T: Element>(
        view: Self::View<'long, T>,
        range: Range<usize>,
    ) -> Self::View<'short, T> {
        &view[range]
    }

    fn slice_mut<'long: 'short, 'short, T: Element>(
        view: Self::ViewMut<'long, T>,
        range: Range<usize>,
    ) -> Self::ViewMut<'short, T> {
        &mut view[range]
    }

    fn split_mut<'long: 'short, 'short, T: Element>(
        view: Self::ViewMut<'long, T>,
        middle: usize,
    ) -> (Self::ViewMut<'short, T>, Self::ViewMut<'short, T>) {
        view.split_at_mut(middle)
    }

    fn reborrow<'a, T: Element>(view: &'a mut &mut [T]) -> &'a mut [T] {
        view
    }

    fn shared<'a, T: Element>(view: &'a &mut [T]) -> &'a [T] {
        view
    }

    fn upload<T: Element>(&mut self, from: &[T], to: &mut [T]) {
        to.copy_from_slice(from);
    }

    fn stage<'a, T: Element>(&mut self, host: &'a [T], _: &'a mut Buffer<T>) -> Self::View<'a, T> {
        host
    }

    fn staged<'a, T: Element>(host: &'a [T], _: &'a Buffer<T>) -> Self::View<'a, T> {
        host
    }

    fn download<T: Element>(&mut self, from: &[T], to: &mut [T]) {
        to.copy_from_slice(from);
    }

    fn collect<const N: usize>(
        &mut self,
        downloads: [Download<'_, Self>; N],
    ) -> Result<(), BackendError> {
        for download in downloads {
            match download {
                Download::F64(from, to) => to.copy_from_slice(from),
                Download::U32(from, to) => to.copy_from_slice(from),
            }
        }
        Ok(())
    }

    fn copy<T: Element>(&mut self, from: &[T], to: &mut [T]) {
        to.copy_from_slice(from);
    }

    fn fill<T: Element>(&mut self, to: &mut [T], value: T) {
        to.fill(value);
    }

    /// Work is done where it is called.
    fn release(&mut self) -> Fence {
        Fence::PAST
    }

    fn acquire(&mut self) {}

    fn synchronize(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("cpu {}", self.instructions.name())
    }
}

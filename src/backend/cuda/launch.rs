//! How a kernel is started: its grid, its arguments, and where failures go.

use std::ffi::c_void;
use std::marker::PhantomData;

use bytemuck::NoUninit;
use cudarc::driver::result;

use super::Cuda;
use super::kernels::Kernel;
use super::view::{View, ViewMut};
use crate::backend::Element;

/// Most parameters a kernel has.
const MAX_ARGUMENTS: usize = 32;

/// Threads of a block of an element-wise kernel.
const ELEMENT_THREADS: u32 = 256;

/// Most blocks of an element-wise kernel: several for each multiprocessor of the largest GPUs.
const ELEMENT_BLOCKS: usize = 4096;

/// How many threads run a kernel, and the shared memory each block asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    pub(super) threads: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub(super) shared_bytes: u32,
}

impl Grid {
    pub(super) fn new(blocks: [u32; 3], threads: [u32; 3]) -> Self {
        let shared_bytes = 0;
        Self {
            blocks,
            threads,
            shared_bytes,
        }
    }

    /// For a kernel whose threads stride over `len` elements.
    pub(super) fn elements(len: usize) -> Self {
        let blocks = len.div_ceil(ELEMENT_THREADS as usize).min(ELEMENT_BLOCKS);
        Self::new([blocks as u32, 1, 1], [ELEMENT_THREADS, 1, 1])
    }

    /// For a kernel whose threads stride over `len` elements in groups of four, `Quads`.
    pub(super) fn quads(len: usize) -> Self {
        Self::elements(len.div_ceil(4))
    }
}

/// One parameter of a kernel.
///
/// A view passes its address, anything else its bytes: a number the size it has in Rust (`usize` is
/// `size_t`), a `#[repr(C)]` structure its fields.
#[derive(Clone, Copy)]
pub(super) struct Argument<'a> {
    value: *const c_void,
    lifetime: PhantomData<&'a ()>,
}

impl<'a, T: NoUninit> From<&'a T> for Argument<'a> {
    fn from(value: &'a T) -> Self {
        Self::at(value)
    }
}

impl<'a, T: Element> From<&'a View<'_, T>> for Argument<'a> {
    fn from(view: &'a View<'_, T>) -> Self {
        Self::at(&view.pointer)
    }
}

impl<'a, T: Element> From<&'a ViewMut<'_, T>> for Argument<'a> {
    fn from(view: &'a ViewMut<'_, T>) -> Self {
        Self::at(&view.pointer)
    }
}

impl<'a> Argument<'a> {
    fn at<T>(value: &'a T) -> Self {
        Self {
            value: std::ptr::from_ref(value).cast(),
            lifetime: PhantomData,
        }
    }
}

impl Cuda {
    /// Queues `kernel` on the compute stream, with one argument for each of its parameters, in
    /// order. Nothing happens where the grid is empty; a failure is kept for `synchronize`.
    ///
    /// The views among the arguments must be as long as the kernel's contract says.
    pub(super) fn launch(&self, kernel: Kernel, grid: Grid, arguments: &[Argument<'_>]) {
        if grid.blocks.contains(&0) || grid.threads.contains(&0) {
            return;
        }
        let device = &*self.device;
        device.bind();
        let Some(function) = device.functions.get(device, kernel) else {
            return;
        };
        let mut values = [std::ptr::null_mut(); MAX_ARGUMENTS];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = argument.value.cast_mut();
        }
        let [x, y, z] = grid.blocks;
        let [threads_x, threads_y, threads_z] = grid.threads;
        // SAFETY: the function was made from `kernel`'s source in this context; the driver copies
        // the arguments before it returns. That they are what the source declares is what each
        // caller and its test are for.
        let launched = unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (threads_x, threads_y, threads_z),
                grid.shared_bytes,
                device.compute,
                &mut values[..arguments.len()],
            )
        };
        device.check(kernel.name(), launched);
    }
}

//! Kernels with their arguments, and products of a library, one behind the other.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction};

use crate::backend::cuda::cublaslt::{Planned, Products};
use crate::backend::cuda::device::Device;
use crate::backend::cuda::kernels::Kernel;
use crate::backend::cuda::launch::{Argument, Grid};

/// Most parameters a kernel has.
const MAX_ARGUMENTS: usize = 32;

/// What is launched in this order. Keeps its memory when it is cleared.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    launches: Vec<Launch>,
    /// Where each argument of each launch begins, in words.
    arguments: Vec<u32>,
    words: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Launch {
    work: Work,
    /// Where its arguments begin among those of the batch.
    first_argument: usize,
    first_word: usize,
}

/// What is launched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Work {
    Kernel {
        kernel: Kernel,
        function: CUfunction,
        grid: Grid,
    },
    /// cuBLASLt's, with the number of the library among those that are kept. It has no arguments: with
    /// another plan or address it is another.
    Product { library: usize, planned: Planned },
}

impl Batch {
    pub(super) fn push(&mut self, work: Work, arguments: &[Argument<'_>]) {
        assert!(arguments.len() <= MAX_ARGUMENTS, "{work:?}");
        self.launches.push(Launch {
            work,
            first_argument: self.arguments.len(),
            first_word: self.words.len(),
        });
        for argument in arguments {
            self.arguments.push(self.words.len() as u32);
            let (whole, rest) = argument.bytes().as_chunks::<8>();
            let whole = whole.iter().map(|bytes| u64::from_ne_bytes(*bytes));
            self.words.extend(whole);
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                self.words.push(u64::from_ne_bytes(last));
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.launches.clear();
        self.arguments.clear();
        self.words.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.launches.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// Whether the same is launched on the same grids, whatever the arguments.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.launches == other.launches && self.arguments == other.arguments
    }

    /// Takes all arguments of `other`, which is like this.
    pub(super) fn copy_arguments(&mut self, other: &Self) {
        self.words.copy_from_slice(&other.words);
    }

    /// Takes the arguments of one launch of `other`, which is like this; whether they differed.
    pub(super) fn update(&mut self, number: usize, other: &Self) -> bool {
        let words = self.words_of(number);
        let (own, others) = (&mut self.words[words.clone()], &other.words[words]);
        let differ = own != others;
        if differ {
            own.copy_from_slice(others);
        }
        differ
    }

    fn words_of(&self, number: usize) -> Range<usize> {
        let next = self.launches.get(number + 1);
        self.launches[number].first_word..next.map_or(self.words.len(), |next| next.first_word)
    }

    pub(super) fn works(&self) -> impl Iterator<Item = Work> + '_ {
        self.launches.iter().map(|launch| launch.work)
    }

    /// Calls with the parameters of a kernel as the driver wants them; not for a product.
    pub(super) fn with_parameters<R>(
        &self,
        number: usize,
        call: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> R,
    ) -> R {
        let launch = &self.launches[number];
        let Work::Kernel {
            kernel,
            function,
            grid,
        } = launch.work
        else {
            unreachable!("a product has no parameters");
        };
        let next = self.launches.get(number + 1);
        let end = next.map_or(self.arguments.len(), |next| next.first_argument);
        let arguments = &self.arguments[launch.first_argument..end];
        let mut values = [std::ptr::null_mut::<c_void>(); MAX_ARGUMENTS];
        for (value, &word) in values.iter_mut().zip(arguments) {
            // The driver copies them and writes nothing.
            *value = self.words[word as usize..].as_ptr().cast_mut().cast();
        }
        let [x, y, z] = grid.blocks;
        let [threads_x, threads_y, threads_z] = grid.threads;
        call(&sys::CUDA_KERNEL_NODE_PARAMS {
            func: function,
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: threads_x,
            blockDimY: threads_y,
            blockDimZ: threads_z,
            sharedMemBytes: kernel.dynamic_shared_bytes(),
            kernelParams: values.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: std::ptr::null_mut(),
        })
    }

    /// Launches one after another; a failure is kept under its name.
    pub(super) fn launch(&self, device: &Device, libraries: &[Arc<Products>]) {
        for (number, work) in self.works().enumerate() {
            match work {
                Work::Kernel { kernel, .. } => {
                    let launched = self.with_parameters(number, |node| {
                        // SAFETY: the function was made from the kernel's source in this context; the
                        // driver copies the arguments before it returns. That they are what the source
                        // declares is what each caller of `Cuda::launch` and its test are for.
                        unsafe {
                            sys::cuLaunchKernel(
                                node.func,
                                node.gridDimX,
                                node.gridDimY,
                                node.gridDimZ,
                                node.blockDimX,
                                node.blockDimY,
                                node.blockDimZ,
                                node.sharedMemBytes,
                                device.compute,
                                node.kernelParams,
                                node.extra,
                            )
                        }
                    });
                    device.check(kernel.name(), launched.result());
                }
                Work::Product { library, planned } => {
                    if let Err(problem) = libraries[library].run(&planned, device.compute) {
                        device.fail_library(problem);
                    }
                }
            }
        }
    }
}

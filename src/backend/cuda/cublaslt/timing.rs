//! Which is quicker for each product that was asked for: own kernels or cuBLASLt.

use std::sync::Arc;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUevent, CUevent_flags};

use super::plan::Operands;
use super::{Products, Rule};
use crate::backend::cuda::device::PRODUCT;
use crate::backend::cuda::{Buffer, Cuda, View, ViewMut};
use crate::backend::{BackendError, MatmulCall, MatmulChoice, Memory, TimedMatmul};

/// Measurements of a product, of which the quickest counts.
const ROUNDS: usize = 3;

/// Seconds that a measurement takes at least, where so many calls are not too many.
const SECONDS: f64 = 1e-3;

/// Most calls of a measurement.
const MOST_CALLS: usize = 20;

impl Cuda {
    /// Times every product that was asked for, by own kernels and by cuBLASLt, and chooses the quicker.
    /// Those for whose arrays there is no memory are left out.
    ///
    /// # Errors
    /// If the device fails.
    pub fn time_products(&mut self) -> Result<Vec<TimedMatmul>, BackendError> {
        let Some(products) = self.library.clone() else {
            return Ok(Vec::new());
        };
        let seen = match &products.state().rule {
            Rule::Seen(calls) => calls.clone(),
            Rule::All | Rule::Chosen(_) => Vec::new(),
        };
        // The graphs that are remembered shall be those of steps.
        let with_graphs = std::mem::take(&mut self.device.queue().with_graphs);
        let timed = self.time_each(&products, seen);
        self.device.queue().with_graphs = with_graphs;
        timed
    }

    fn time_each(
        &mut self,
        products: &Arc<Products>,
        calls: Vec<MatmulCall>,
    ) -> Result<Vec<TimedMatmul>, BackendError> {
        let mut timed = Vec::new();
        for call in calls {
            match self.time_product(products, call) {
                Ok(product) => timed.push(product),
                Err(error @ BackendError::OutOfDeviceMemory { .. }) => {
                    tracing::warn!("{call:?} is not timed, and computed by own kernels: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(timed)
    }

    fn time_product(
        &mut self,
        products: &Arc<Products>,
        call: MatmulCall,
    ) -> Result<TimedMatmul, BackendError> {
        let [m, n, k] = [call.shape.m, call.shape.n, call.shape.k];
        let mut arrays = Vec::new();
        for len in [m * k, k * n, n, m * n] {
            let mut array: Buffer<f32> = self.allocate("timing a product", len)?;
            // Not zeros, which take less power and so less time.
            self.fill(array.view_mut(), 0.7);
            arrays.push(array);
        }
        let [a, b, bias, c] = &arrays[..] else {
            unreachable!("four arrays were made");
        };
        let operands = (a.view(), b.view());
        let stored = (Operands::Stored, [operands.0.pointer, operands.1.pointer]);
        let bias = call.bias.then(|| bias.view());
        // Nobody else has the array.
        let c = || {
            let View { pointer, len, .. } = c.view();
            ViewMut::new(pointer, len)
        };
        let kernels = Self {
            library: None,
            ..self.clone()
        };
        let by_kernels = self.seconds(|| {
            kernels.multiply(
                call.shape,
                operands,
                bias,
                (call.write, call.activation),
                c(),
            );
        })?;
        // Where it has no algorithm nothing is queued.
        let by_library = match self.hand_over(products, call, stored, bias, &c()) {
            Ok(true) => self.seconds(|| {
                // It has its plan by now.
                let _ = self.hand_over(products, call, stored, bias, &c());
            }),
            Ok(false) => Ok(f64::INFINITY),
            Err(problem) => Err(self.device.library_failure(problem)),
        };
        let by_library = match by_library {
            Ok(seconds) => seconds.is_finite().then_some(seconds),
            Err(BackendError::Device {
                operation: PRODUCT,
                problem,
                ..
            }) => {
                tracing::warn!("own kernels multiply: cuBLASLt says {problem}");
                None
            }
            Err(failure) => return Err(failure),
        };
        Ok(TimedMatmul {
            call,
            kernels_us: by_kernels * 1e6,
            cublaslt_us: by_library.map(|seconds| seconds * 1e6),
            chosen: match by_library {
                Some(seconds) if seconds < by_kernels => MatmulChoice::Cublaslt,
                _ => MatmulChoice::Kernels,
            },
        })
    }

    /// Seconds that the device takes for what `call` queues: the quickest of a few measurements.
    fn seconds(&self, call: impl Fn()) -> Result<f64, BackendError> {
        let timer = self.done("cuEventCreate", Timer::new())?;
        let measure = |calls: usize| {
            let record = |event| {
                // SAFETY: event and stream exist.
                self.queue("cuEventRecord", |stream| unsafe {
                    result::event::record(event, stream)
                });
            };
            record(timer.start);
            (0..calls).for_each(|_| call());
            record(timer.end);
            self.device.synchronize();
            self.device.take_failure().map_or(Ok(()), Err)?;
            // SAFETY: both were recorded and are over.
            let elapsed = unsafe { result::event::elapsed(timer.start, timer.end) };
            let milliseconds = self.done("cuEventElapsedTime", elapsed)?;
            Ok(f64::from(milliseconds) / 1e3 / calls as f64)
        };
        // The first compiles the kernel, or makes the plan.
        measure(1)?;
        let calls = (SECONDS / measure(1)?.max(1e-9)).ceil() as usize;
        let calls = calls.clamp(1, MOST_CALLS);
        (0..ROUNDS).try_fold(f64::INFINITY, |least, _| Ok(least.min(measure(calls)?)))
    }
}

/// Two events that take the time.
struct Timer {
    start: CUevent,
    end: CUevent,
}

impl Timer {
    fn new() -> Result<Self, DriverError> {
        let event = || result::event::create(CUevent_flags::CU_EVENT_DEFAULT);
        Ok(Self {
            start: event()?,
            end: event()?,
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        for event in [self.start, self.end] {
            // SAFETY: made once, destroyed once.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

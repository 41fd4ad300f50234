//! One GPU: its context, the two streams of work and what orders them, and the first failure.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUevent_flags, CUresult};

use super::kernels::Functions;
use super::packed::Room;
use super::pinned::{Landing, Staging};
use super::queue::Queue;
use crate::backend::{BackendError, Fence, Precision};

/// Memory of a device that kernels use between two launches of one call, in bytes.
pub(super) const SCRATCH_BYTES: usize = 32 << 20;

/// Fences that can be outstanding; beyond, a wait for an old one is a wait for a newer one.
const FENCES: usize = 64;

/// What fails where cuBLASLt does.
pub(super) const PRODUCT: &str = "a product by cuBLASLt";

/// A GPU as one rank uses it.
///
/// Ranks that share a GPU share its context, and have a `Device` each.
pub(super) struct Device {
    pub(super) ordinal: usize,
    pub(super) name: String,
    pub(super) capability: Capability,
    /// Number of multiprocessors.
    pub(super) processors: usize,
    pub(super) compute: sys::CUstream,
    /// The communicator's stream.
    pub(super) reduce: sys::CUstream,
    pub(super) functions: Functions,
    /// Kernels that the compute stream is to be given.
    queue: Mutex<Queue>,
    pub(super) staging: Mutex<Staging>,
    pub(super) landing: Mutex<Landing>,
    /// [`SCRATCH_BYTES`] of memory for the compute stream.
    pub(super) scratch: sys::CUdeviceptr,
    /// For packed operands of one product on the compute stream.
    pub(super) room: Mutex<Room>,
    /// Number of fences so far.
    released: AtomicU64,
    /// Fence `n` is the last recording of event `n % FENCES`, or lies before it.
    fences: [sys::CUevent; FENCES],
    /// What the reduce stream had been given when compute last waited for it.
    reduced: sys::CUevent,
    /// What happened first since somebody asked.
    first_failure: Mutex<Option<BackendError>>,
    context: sys::CUcontext,
    device: sys::CUdevice,
}

// SAFETY: the driver's handles may be used from any thread whose current context is the device's,
// and every use binds it first; everything else is behind a mutex.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Compute capability: what a GPU's instructions are called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// Generation.
    pub major: u32,
    /// Variant.
    pub minor: u32,
}

impl Capability {
    /// What such a GPU can take products in.
    pub fn precisions(self) -> impl Iterator<Item = Precision> {
        let all = Precision::ALL.into_iter();
        all.filter(move |precision| self.lacks(*precision).is_none())
    }

    /// The least whose tensor cores take operands of `precision`, where that is more than this one.
    pub(super) fn lacks(self, precision: Precision) -> Option<Self> {
        let (major, minor) = match precision {
            Precision::F32 => return None,
            Precision::F16 => (7, 5),
            Precision::Tf32 | Precision::Bf16 => (8, 0),
        };
        let least = Self { major, minor };
        (self < least).then_some(least)
    }
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Device {
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>, BackendError> {
        let count = count()?;
        if ordinal >= count {
            let there = match count {
                0 => "there is none".to_owned(),
                1 => "there is only GPU 0".to_owned(),
                _ => format!("there are {count}, numbered from 0"),
            };
            return Err(BackendError::NoDevice {
                problem: format!("no GPU {ordinal}: {there}"),
                remedy: "`nvidia-smi -L` lists them; CUDA_VISIBLE_DEVICES hides some",
            });
        }
        Self::open_existing(ordinal)
    }

    fn open_existing(ordinal: usize) -> Result<Arc<Self>, BackendError> {
        let during = |operation| move |error| failure(ordinal, operation, error);
        // A device number is below the count, which is an `i32`.
        let device = result::device::get(ordinal as i32).map_err(during("cuDeviceGet"))?;
        let attribute = |attribute| {
            // SAFETY: the device exists.
            unsafe { result::device::get_attribute(device, attribute) }
                .map(|value| value as u32)
                .map_err(during("cuDeviceGetAttribute"))
        };
        let capability = Capability {
            major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        };
        let processors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize;
        let name = result::device::get_name(device).map_err(during("cuDeviceGetName"))?;
        // SAFETY: the device exists; released when the last handle is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }
            .map_err(during("cuDevicePrimaryCtxRetain"))?;
        // From here on a failure leaves the context retained until the process ends.
        // SAFETY: retained above.
        unsafe { result::ctx::set_current(context) }.map_err(during("cuCtxSetCurrent"))?;
        let priorities = result::stream::get_priority_range();
        let (_, greatest) = priorities.map_err(during("cuCtxGetStreamPriorityRange"))?;
        let stream = |priority| {
            let kind = result::stream::StreamKind::NonBlocking;
            result::stream::create_with_priority(kind, priority).map_err(during("cuStreamCreate"))
        };
        let event = || {
            let flags = CUevent_flags::CU_EVENT_DISABLE_TIMING;
            result::event::create(flags).map_err(during("cuEventCreate"))
        };
        let mut fences = [std::ptr::null_mut(); FENCES];
        for fence in &mut fences {
            *fence = event()?;
        }
        Ok(Arc::new(Self {
            ordinal,
            name,
            capability,
            processors,
            compute: stream(0)?,
            // What other ranks wait for goes first.
            reduce: stream(greatest)?,
            functions: Functions::new(),
            queue: Mutex::new(Queue::new()),
            staging: Mutex::new(Staging::new()),
            landing: Mutex::new(Landing::new()),
            scratch: allocate(ordinal, "scratch", SCRATCH_BYTES)?,
            room: Mutex::new(Room::new()),
            released: AtomicU64::new(0),
            fences,
            reduced: event()?,
            first_failure: Mutex::new(None),
            context,
            device,
        }))
    }

    /// # Errors
    /// Where tensor cores do not take operands of `precision`.
    pub(super) fn takes(&self, precision: Precision) -> Result<(), BackendError> {
        let Self {
            ordinal,
            capability,
            ..
        } = self;
        let Some(least) = capability.lacks(precision) else {
            return Ok(());
        };
        Err(BackendError::NoDevice {
            problem: format!(
                "GPU {ordinal} has compute capability {capability}; products of {precision} need {least}"
            ),
            remedy: "use a newer GPU, or `--precision f32`",
        })
    }

    /// Makes the device's context the calling thread's.
    pub(super) fn bind(&self) {
        // SAFETY: the context is retained as long as `self` lives.
        self.check("cuCtxSetCurrent", unsafe {
            result::ctx::set_current(self.context)
        });
    }

    /// What was launched and is not on the compute stream yet. Its lock is never contended for long: one
    /// thread launches a rank's kernels.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the compute stream all kernels that wait, with the context bound: what comes next comes
    /// behind them.
    pub(super) fn flush(&self) {
        self.bind();
        self.queue().flush(self);
    }

    /// Keeps a failure of `operation` for [`Device::take_failure`]; whether there is none.
    pub(super) fn check(&self, operation: &'static str, result: Result<(), DriverError>) -> bool {
        if let Err(error) = result {
            self.fail(self.failure(operation, error));
        }
        result.is_ok()
    }

    /// Keeps what cuBLASLt said when it did not take a product.
    pub(super) fn fail_library(&self, problem: String) {
        self.fail(self.library_failure(problem));
    }

    pub(super) fn library_failure(&self, problem: String) -> BackendError {
        BackendError::Device {
            device: self.ordinal,
            operation: PRODUCT,
            problem,
        }
    }

    pub(super) fn failure(&self, operation: &'static str, error: DriverError) -> BackendError {
        failure(self.ordinal, operation, error)
    }

    /// Keeps `failure` unless there was one before.
    pub(super) fn fail(&self, failure: BackendError) {
        let mut kept = self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(failure);
    }

    pub(super) fn take_failure(&self) -> Option<BackendError> {
        let mut kept = self
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.take()
    }

    /// The point behind what the compute stream has been given.
    pub(super) fn release(&self) -> Fence {
        self.flush();
        let number = self.released.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: event and stream live as long as `self`.
        self.check("cuEventRecord", unsafe {
            result::event::record(self.fence(number), self.compute)
        });
        Fence(number)
    }

    /// Lets what the reduce stream is given from now on begin after `fence`.
    pub(super) fn after(&self, Fence(number): Fence) -> Result<(), DriverError> {
        self.bind();
        wait_event(self.reduce, self.fence(number))
    }

    /// Lets what the compute stream is given from now on begin after what the reduce stream has
    /// been given.
    pub(super) fn acquire(&self) {
        self.flush();
        // SAFETY: event and stream live as long as `self`.
        let recorded = unsafe { result::event::record(self.reduced, self.reduce) };
        let waiting = recorded.and_then(|()| wait_event(self.compute, self.reduced));
        self.check("cuStreamWaitEvent", waiting);
    }

    fn fence(&self, number: u64) -> sys::CUevent {
        self.fences[number as usize % FENCES]
    }

    /// The GPU's own name, not one of this process.
    pub(super) fn uuid(&self) -> Result<[u8; 16], DriverError> {
        let uuid = result::device::get_uuid(self.device)?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// Waits for the compute stream.
    pub(super) fn synchronize(&self) {
        self.flush();
        // SAFETY: the stream lives as long as `self`.
        self.check("cuStreamSynchronize", unsafe {
            result::stream::synchronize(self.compute)
        });
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {}: {}", self.ordinal, self.name)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.bind();
        // SAFETY: every buffer holds the device alive, so nobody uses these any more; what fails
        // here has failed before, and has been reported then.
        unsafe {
            let _ = result::stream::synchronize(self.compute);
            let _ = result::stream::synchronize(self.reduce);
            if let Ok(queue) = self.queue.get_mut() {
                queue.free();
            }
            self.functions.unload();
            if let Ok(staging) = self.staging.get_mut() {
                staging.free();
            }
            if let Ok(landing) = self.landing.get_mut() {
                landing.free();
            }
            let _ = result::free_sync(self.scratch);
            if let Ok(room) = self.room.get_mut() {
                room.free();
            }
            for event in self.fences.into_iter().chain([self.reduced]) {
                let _ = result::event::destroy(event);
            }
            let _ = result::stream::destroy(self.compute);
            let _ = result::stream::destroy(self.reduce);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

/// So many bytes, with any content, of the GPU whose context is bound; `what` names them in an error.
pub(super) fn allocate(
    ordinal: usize,
    what: &'static str,
    bytes: usize,
) -> Result<sys::CUdeviceptr, BackendError> {
    // SAFETY: a context is bound; whoever reads the memory has written it.
    unsafe { result::malloc_sync(bytes) }.map_err(|error| match (error.0, result::mem_get_info()) {
        (CUresult::CUDA_ERROR_OUT_OF_MEMORY, Ok((free, total))) => {
            BackendError::OutOfDeviceMemory {
                what,
                device: ordinal,
                bytes,
                free,
                total,
            }
        }
        _ => failure(ordinal, "cuMemAlloc", error),
    })
}

fn failure(device: usize, operation: &'static str, error: DriverError) -> BackendError {
    BackendError::Device {
        device,
        operation,
        problem: describe(error),
    }
}

fn wait_event(stream: sys::CUstream, event: sys::CUevent) -> Result<(), DriverError> {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: both belong to the device at hand, which the caller keeps.
    unsafe { result::stream::wait_event(stream, event, flags) }
}

/// The oldest CUDA whose drivers have all functions that are called, and take what NVRTC makes.
const OLDEST: (u32, u32) = (12, 0);

/// The version of CUDA that the driver is of: major and minor. It is loaded.
///
/// # Errors
/// If it does not say.
pub(super) fn version() -> Result<(u32, u32), BackendError> {
    let mut version = 0;
    // SAFETY: the driver was found; a number is written.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    asked.map_err(|error| BackendError::NoDevice {
        problem: format!("the CUDA driver says no version: {}", describe(error)),
        remedy: "see whether `nvidia-smi` works",
    })?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// Number of GPUs that this process sees.
///
/// # Errors
/// Where there is no driver, or it cannot start, or is too old.
pub(super) fn count() -> Result<usize, BackendError> {
    // SAFETY: loads the driver's library, which does nothing before `cuInit`.
    if !unsafe { sys::is_culib_present() } {
        return Err(BackendError::NoDevice {
            problem: "no CUDA driver: libcuda.so.1 was not found".to_owned(),
            remedy: "install NVIDIA's driver (`nvidia-smi` must work), or use `--device cpu`",
        });
    }
    match result::init() {
        Ok(()) => {}
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(0),
        Err(error) => {
            return Err(BackendError::NoDevice {
                problem: format!("the CUDA driver does not start: {}", describe(error)),
                remedy: "see whether `nvidia-smi` works, or use `--device cpu`",
            });
        }
    }
    let version = version()?;
    if version < OLDEST {
        let ((major, minor), (oldest, _)) = (version, OLDEST);
        return Err(BackendError::NoDevice {
            problem: format!(
                "the CUDA driver is of CUDA {major}.{minor}; ringstep needs one of {oldest}.0 or later"
            ),
            remedy: "install NVIDIA's driver 525 or later, or use `--device cpu`",
        });
    }
    let count = result::device::get_count().map_err(|error| BackendError::NoDevice {
        problem: format!(
            "the CUDA driver does not count its GPUs: {}",
            describe(error)
        ),
        remedy: "see whether `nvidia-smi` works, or use `--device cpu`",
    })?;
    Ok(count.max(0) as usize)
}

/// What the driver calls an error, and what to do about the common ones.
pub(super) fn describe(error: DriverError) -> String {
    let text = |text: Result<&CStr, DriverError>| {
        text.map_or_else(
            |_| format!("error {}", error.0 as u32),
            |text| text.to_string_lossy().into_owned(),
        )
    };
    let (name, said) = (text(error.error_name()), text(error.error_string()));
    let remedy = match error.0 {
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_ASSERT => {
            "; an earlier kernel did it: CUDA_LAUNCH_BLOCKING=1 with `--set train.graphs=false` names it, \
             compute-sanitizer its line"
        }
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => "; use a smaller micro_batch or model",
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            "; the hardware failed: `nvidia-smi -q` says more, and another GPU may go on with `--resume`"
        }
        _ => "",
    };
    format!("{name}: {}{remedy}", said.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_precision_begins_with_a_capability() {
        let lacks = |major, minor, precision| {
            let least = Capability { major, minor }.lacks(precision);
            least.map_or_else(String::new, |least| least.to_string())
        };
        for (precision, expected) in [
            (Precision::F32, ["", "", "", ""]),
            (Precision::F16, ["7.5", "", "", ""]),
            (Precision::Bf16, ["8.0", "8.0", "", ""]),
            (Precision::Tf32, ["8.0", "8.0", "", ""]),
        ] {
            let actual = [(7, 2), (7, 5), (8, 0), (9, 0)];
            let actual = actual.map(|(major, minor)| lacks(major, minor, precision));
            assert_eq!(actual, expected, "{precision}");
        }
    }
}

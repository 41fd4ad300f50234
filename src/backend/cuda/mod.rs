//! The CUDA backend: one GPU, work queued on its compute stream.
//!
//! The driver and NVRTC are loaded when a GPU is first asked for; nothing here needs them at build
//! time. Calls return nothing: the first failure is kept and handed out by `synchronize`.

mod activation;
mod buffer;
mod cache;
mod compile;
mod convolution;
mod cublaslt;
mod device;
mod fixed_point;
mod hopper;
mod kernels;
mod launch;
mod lookup;
mod loss;
mod matmul;
mod normalization;
mod packed;
mod peak;
mod pinned;
mod pooling;
mod product;
mod queue;
mod survey;
mod transfer;
mod update;
mod view;

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdeviceptr, CUstream};

pub use buffer::Buffer;
pub use compile::{Compilation, compile_every_kernel};
pub use cublaslt::{Halves, Library as Cublaslt, find as cublaslt};
pub use device::Capability;
pub use peak::Units;
pub use queue::GraphCounts;
pub use survey::{Found, compiler, driver, kernel_cache};
pub(crate) use transfer::Mirrored;
pub use view::{View, ViewMut};

use self::cublaslt::Products;
use self::device::{Device, SCRATCH_BYTES};
use self::kernels::Kernel;
use self::launch::Grid;
use self::packed::Multiplier;
use super::{BackendError, Download, Element, Fence, Memory, Precision, Region};

/// A handle on one GPU: its memory and its queue of work.
#[derive(Debug, Clone)]
pub struct Cuda {
    /// What multiplies beside own kernels; one for all clones. Before the device, whose context it ends in.
    library: Option<Arc<Products>>,
    device: Arc<Device>,
    precision: Precision,
    /// What multiplies packed operands, where products may be made so.
    packed: Option<Multiplier>,
}

impl Cuda {
    /// The GPU with this number among those the process sees.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where there is no driver or no such GPU, or NVRTC does not compile for
    /// it, [`BackendError::Device`] where it cannot be used.
    pub fn new(ordinal: usize) -> Result<Self, BackendError> {
        Self::open(ordinal, Precision::F32)
    }

    /// The same with products as [`Cuda::with_precision`] says. What the GPU does not take is refused before
    /// NVRTC is looked for.
    ///
    /// # Errors
    /// Those of both.
    pub fn open(ordinal: usize, precision: Precision) -> Result<Self, BackendError> {
        let device = Device::open(ordinal)?;
        device.takes(precision)?;
        let is_known = compile::check(device.capability)?;
        Ok(Self {
            precision,
            packed: Multiplier::of(device.capability)
                .filter(|multiplier| is_known || *multiplier != Multiplier::Wgmma),
            library: None,
            device,
        })
    }

    /// The same GPU with products of operands that are rounded to `precision`, by tensor cores.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where the GPU's tensor cores do not take such operands.
    pub fn with_precision(self, precision: Precision) -> Result<Self, BackendError> {
        self.device.takes(precision)?;
        Ok(Self { precision, ..self })
    }

    /// The same GPU with all products by instructions that newer GPUs have too. Without it, those of many
    /// terms, rounded to 16 bits, are computed by wgmma where there is compute capability 9.0.
    #[must_use]
    pub fn without_wgmma(self) -> Self {
        Self {
            packed: self.packed.map(|_| Multiplier::MmaSync),
            ..self
        }
    }

    /// The same GPU with operands rounded by every tile that reads them. Without it, those of many terms that
    /// are rounded to 16 bits are packed before; sums are then added in another order.
    #[must_use]
    pub fn without_packing(self) -> Self {
        Self {
            packed: None,
            ..self
        }
    }

    /// Number of GPUs that the process sees.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where there is no driver.
    pub fn count() -> Result<usize, BackendError> {
        device::count()
    }

    /// Looks for all that computing on a GPU takes: a driver with a GPU, and NVRTC. Opens no GPU.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] with what is missing.
    pub fn find() -> Result<(), BackendError> {
        if device::count()? == 0 {
            return Err(BackendError::NoDevice {
                problem: "the CUDA driver has no GPU".to_owned(),
                remedy: "see whether `nvidia-smi` lists one, or use `--device cpu`",
            });
        }
        compile::compiler_version()
            .map(drop)
            .map_err(|problem| BackendError::NoDevice {
                problem,
                remedy: "or use `--device cpu`",
            })
    }

    /// The GPU's number.
    pub fn ordinal(&self) -> usize {
        self.device.ordinal
    }

    /// What the GPU is called.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// Which instructions it has.
    pub fn capability(&self) -> Capability {
        self.device.capability
    }

    /// Memory that belongs to whoever queues the next launches, aligned to 256 bytes and with any
    /// content: the next call of anything may overwrite it.
    pub(super) fn scratch<T: Element>(&self, len: usize) -> ViewMut<'_, T> {
        assert!(
            len <= SCRATCH_BYTES / size_of::<T>(),
            "scratch for {len} elements"
        );
        ViewMut::new(self.device.scratch, len)
    }

    /// The same GPU, whose kernels wait for each other and are launched together, as CUDA graphs, where
    /// they come again and again. For all handles on it; changes no bit.
    #[must_use]
    pub fn with_graphs(self) -> Self {
        self.device.queue().with_graphs = true;
        self
    }

    /// How often graphs were used on this GPU.
    pub fn graph_counts(&self) -> GraphCounts {
        self.device.queue().counts()
    }

    /// Queues one call of the driver on the compute stream, behind all kernels.
    fn queue(
        &self,
        operation: &'static str,
        call: impl FnOnce(CUstream) -> Result<(), DriverError>,
    ) {
        self.device.flush();
        self.device.check(operation, call(self.device.compute));
    }
}

impl Memory for Cuda {
    type Buffer<T: Element> = Buffer<T>;
    type View<'a, T: Element> = View<'a, T>;
    type ViewMut<'a, T: Element> = ViewMut<'a, T>;

    fn allocate<T: Element>(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Buffer<T>, BackendError> {
        Buffer::zeroed(&self.device, what, len)
    }

    fn view<T: Element>(buffer: &Buffer<T>) -> View<'_, T> {
        buffer.view()
    }

    fn view_mut<T: Element>(buffer: &mut Buffer<T>) -> ViewMut<'_, T> {
        buffer.view_mut()
    }

    unsafe fn region<T: Element>(region: &Region<T>, range: Range<usize>) -> View<'_, T> {
        View::new(region.as_ptr() as CUdeviceptr, region.len()).slice(range)
    }

    unsafe fn region_mut<T: Element>(region: &Region<T>, range: Range<usize>) -> ViewMut<'_, T> {
        ViewMut::new(region.as_ptr() as CUdeviceptr, region.len()).slice(range)
    }

    fn len<T: Element>(view: View<'_, T>) -> usize {
        view.len
    }

    fn len_mut<T: Element>(view: &ViewMut<'_, T>) -> usize {
        view.len
    }

    fn slice<'long: 'short, 'short, T: Element>(
        view: View<'long, T>,
        range: Range<usize>,
    ) -> View<'short, T> {
        view.slice(range)
    }

    fn slice_mut<'long: 'short, 'short, T: Element>(
        view: ViewMut<'long, T>,
        range: Range<usize>,
    ) -> ViewMut<'short, T> {
        view.slice(range)
    }

    fn split_mut<'long: 'short, 'short, T: Element>(
        view: ViewMut<'long, T>,
        middle: usize,
    ) -> (ViewMut<'short, T>, ViewMut<'short, T>) {
        let (pointer, len) = (view.pointer, view.len);
        let whole = || ViewMut::new(pointer, len);
        (whole().slice(0..middle), whole().slice(middle..len))
    }

    fn reborrow<'a, T: Element>(view: &'a mut ViewMut<'_, T>) -> ViewMut<'a, T> {
        ViewMut::new(view.pointer, view.len)
    }

    fn shared<'a, T: Element>(view: &'a ViewMut<'_, T>) -> View<'a, T> {
        View::new(view.pointer, view.len)
    }

    fn upload<T: Element>(&mut self, from: &[T], to: ViewMut<'_, T>) {
        assert_eq!(from.len(), to.len, "upload of another length");
        let device = &*self.device;
        device.flush();
        let staging = device.staging.lock();
        let mut staging = staging.unwrap_or_else(PoisonError::into_inner);
        staging.upload(device, bytemuck::cast_slice(from), to.pointer);
    }

    fn stage<'a, T: Element>(&mut self, host: &'a [T], staging: &'a mut Buffer<T>) -> View<'a, T> {
        self.upload(host, staging.view_mut().slice(0..host.len()));
        Self::staged(host, staging)
    }

    fn staged<'a, T: Element>(host: &'a [T], staging: &'a Buffer<T>) -> View<'a, T> {
        staging.view().slice(0..host.len())
    }

    fn download<T: Element>(&mut self, from: View<'_, T>, to: &mut [T]) {
        assert_eq!(from.len, to.len(), "download of another length");
        if to.is_empty() {
            return;
        }
        // SAFETY: both hold so many elements; the copy is over before `to` is anybody's again.
        self.queue("cuMemcpyDtoHAsync", |stream| unsafe {
            result::memcpy_dtoh_async(to, from.pointer, stream)
        });
        self.device.synchronize();
    }

    fn collect<const N: usize>(
        &mut self,
        downloads: [Download<'_, Self>; N],
    ) -> Result<(), BackendError> {
        let mut parts = downloads.map(|download| match download {
            Download::F64(from, to) => from.bytes_to(to),
            Download::U32(from, to) => from.bytes_to(to),
        });
        let landing = self.device.landing.lock();
        let mut landing = landing.unwrap_or_else(PoisonError::into_inner);
        landing.collect(&self.device, &mut parts);
        self.device.take_failure().map_or(Ok(()), Err)
    }

    fn copy<T: Element>(&mut self, from: View<'_, T>, to: ViewMut<'_, T>) {
        assert_eq!(from.len, to.len, "copy of another length");
        let kernel = by_size::<T>([Kernel::Copy16, Kernel::Copy32, Kernel::Copy64]);
        let len = to.len;
        let arguments = [(&len).into(), (&from).into(), (&to).into()];
        self.launch(kernel, Grid::quads(len), &arguments);
    }

    fn fill<T: Element>(&mut self, to: ViewMut<'_, T>, value: T) {
        let kernel = by_size::<T>([Kernel::Fill16, Kernel::Fill32, Kernel::Fill64]);
        let len = to.len;
        let arguments = [(&value).into(), (&len).into(), (&to).into()];
        self.launch(kernel, Grid::elements(len), &arguments);
    }

    fn release(&mut self) -> Fence {
        self.device.release()
    }

    fn acquire(&mut self) {
        self.device.acquire();
    }

    fn synchronize(&mut self) -> Result<(), BackendError> {
        self.device.synchronize();
        self.device.take_failure().map_or(Ok(()), Err)
    }

    fn fingerprint(&self) -> String {
        let compiler = match compile::compiler_version() {
            Ok((major, minor)) => format!("NVRTC {major}.{minor}"),
            Err(_) => "no NVRTC".to_owned(),
        };
        let library = self
            .library
            .as_ref()
            .and_then(|library| library.is_asked_for());
        // What it chooses depends on more than the capability.
        let library = library.map_or_else(String::new, |version| {
            let processors = self.device.processors;
            format!(" cuBLASLt {version} on {processors} multiprocessors")
        });
        let packed = self.packed.map_or("no packing", Multiplier::name);
        format!(
            "cuda {} {compiler} {packed}{library}",
            self.device.capability
        )
    }
}

impl<T: Element> View<'_, T> {
    /// What a copy of all of it to the host is from and to.
    fn bytes_to<'a>(&self, to: &'a mut [T]) -> (CUdeviceptr, &'a mut [u8]) {
        assert_eq!(self.len, to.len(), "download of another length");
        (self.pointer, bytemuck::cast_slice_mut(to))
    }
}

/// The kernel of `memory.cu` for elements of this size.
fn by_size<T: Element>([of_16, of_32, of_64]: [Kernel; 3]) -> Kernel {
    match size_of::<T>() {
        2 => of_16,
        4 => of_32,
        8 => of_64,
        _ => unreachable!("elements have 2, 4 or 8 bytes"),
    }
}

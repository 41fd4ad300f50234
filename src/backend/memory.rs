//! Memory of a backend: buffers, the slices cut from them, and copies to and from the host.

use std::marker::PhantomData;
use std::ops::Range;

/// A value a backend can store. Sealed: kernels know this list.
pub trait Element:
    Copy + Default + PartialEq + Send + Sync + std::fmt::Debug + bytemuck::Pod + sealed::Sealed
{
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty),*) => {$(
        impl sealed::Sealed for $element {}
        impl Element for $element {}
    )*};
}
elements!(f32, f64, i32, u32, i64, half::bf16);

/// What can go wrong on a device.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The device cannot hold a buffer.
    #[error("no memory for {what}: {bytes} bytes asked; use a smaller micro_batch or model")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked, in bytes.
        bytes: usize,
    },
    /// A GPU cannot hold a buffer.
    #[error(
        "no memory for {what} on GPU {device}: {bytes} bytes asked, {free} of {total} free; use a \
         smaller micro_batch or model, or a GPU that nobody else uses"
    )]
    OutOfDeviceMemory {
        /// What the memory was for.
        what: &'static str,
        /// The GPU's number.
        device: usize,
        /// How much was asked, in bytes.
        bytes: usize,
        /// How much the GPU had left, in bytes.
        free: usize,
        /// How much it has, in bytes.
        total: usize,
    },
    /// No GPU can be used, or not this one.
    #[error("{problem}; {remedy}")]
    NoDevice {
        /// What is missing.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A call of the driver, or something queued before it, failed.
    #[error("{operation} failed on GPU {device}: {problem}")]
    Device {
        /// The GPU's number.
        device: usize,
        /// The call, or the kernel.
        operation: &'static str,
        /// What the driver said, and what to do about it.
        problem: String,
    },
    /// A GPU's kernels could not be compiled or loaded.
    #[error("cannot build {file} for GPU {device}: {problem}")]
    Kernels {
        /// The GPU's number.
        device: usize,
        /// The source.
        file: &'static str,
        /// What the compiler or the driver said, and what to do about it.
        problem: String,
    },
}

/// Memory that other ranks may read or write: an arena registered with the communicator.
///
/// A region is a raw cell. Whoever turns a range of it into a slice asserts that no other rank and
/// no other thread touches that range meanwhile; the order of collectives is what makes it so.
/// Cloning copies the handle, not the memory; the communicator that made it keeps it alive for as
/// long as any clone exists.
#[derive(Debug, Clone)]
pub struct Region<T> {
    start: *mut T,
    len: usize,
    /// The name its communicator knows it by.
    id: usize,
    _keep: std::sync::Arc<dyn RegionOwner>,
    element: PhantomData<T>,
}

/// Whatever keeps a region's memory mapped; dropped with the last handle.
pub trait RegionOwner: Send + Sync + std::fmt::Debug {}

// SAFETY: a region is only an address and a length; every access goes through the unsafe methods
// below, whose callers promise exclusive or shared use of the range.
unsafe impl<T: Send> Send for Region<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Region<T> {}

impl<T: Element> Region<T> {
    /// Wraps memory that `keep` holds.
    ///
    /// # Safety
    /// `start` must stay valid for `len` elements for as long as `keep` lives.
    pub unsafe fn new(
        start: *mut T,
        len: usize,
        id: usize,
        keep: std::sync::Arc<dyn RegionOwner>,
    ) -> Self {
        Self {
            start,
            len,
            id,
            _keep: keep,
            element: PhantomData,
        }
    }

    /// Length in elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The name its communicator knows it by.
    pub fn id(&self) -> usize {
        self.id
    }

    /// The same memory under another name, for a communicator around the one that made it.
    pub(crate) fn with_id(&self, id: usize) -> Self {
        Self { id, ..self.clone() }
    }

    /// Address of the first element.
    pub fn as_ptr(&self) -> *mut T {
        self.start
    }

    /// The elements of `range`, in host memory.
    ///
    /// # Safety
    /// Nobody writes the range while the slice lives, and the region is host memory.
    pub unsafe fn slice(&self, range: Range<usize>) -> &[T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside its region"
        );
        // SAFETY: in bounds by the assertion; unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// The elements of `range`, in host memory, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the slice lives, and the region is host memory.
    #[expect(
        clippy::mut_from_ref,
        reason = "a region is a raw cell; the caller promises exclusivity"
    )]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range outside its region"
        );
        // SAFETY: in bounds by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// A point in a queue of work that others wait for: see [`Memory::release`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fence(pub(super) u64);

impl Fence {
    /// What has happened already: there is nothing to wait for.
    pub const PAST: Self = Self(0);
}

/// A copy to the host, one of several that [`Memory::collect`] makes together.
pub enum Download<'a, B: Memory> {
    /// Of doubles.
    F64(B::View<'a, f64>, &'a mut [f64]),
    /// Of whole numbers or bit patterns.
    U32(B::View<'a, u32>, &'a mut [u32]),
}

/// Buffers, slices and copies. Lengths and ranges are in elements, never bytes.
///
/// A clone is another handle on the same device and the same queue of work.
pub trait Memory: Clone + Sized + Send + 'static {
    /// Memory owned by the caller.
    type Buffer<T: Element>: Send;
    /// A read-only slice.
    type View<'a, T: Element>: Copy + Send;
    /// An exclusive slice.
    type ViewMut<'a, T: Element>: Send;

    /// A zeroed buffer of `len` elements; `what` names it in the error.
    fn allocate<T: Element>(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<Self::Buffer<T>, BackendError>;

    /// Bytes that can still be allocated, where the device says so beforehand.
    fn room(&self) -> Option<u64> {
        None
    }

    /// All of a buffer.
    fn view<T: Element>(buffer: &Self::Buffer<T>) -> Self::View<'_, T>;

    /// All of a buffer, to write.
    fn view_mut<T: Element>(buffer: &mut Self::Buffer<T>) -> Self::ViewMut<'_, T>;

    /// A range of a region.
    ///
    /// # Safety
    /// Nobody writes the range while the view lives.
    unsafe fn region<T: Element>(region: &Region<T>, range: Range<usize>) -> Self::View<'_, T>;

    /// A range of a region, to write.
    ///
    /// # Safety
    /// Nobody else reads or writes the range while the view lives.
    unsafe fn region_mut<T: Element>(
        region: &Region<T>,
        range: Range<usize>,
    ) -> Self::ViewMut<'_, T>;

    /// Length of a view.
    fn len<T: Element>(view: Self::View<'_, T>) -> usize;

    /// Length of an exclusive view.
    fn len_mut<T: Element>(view: &Self::ViewMut<'_, T>) -> usize;

    /// A part of a view, for the same or a shorter time.
    fn slice<'long: 'short, 'short, T: Element>(
        view: Self::View<'long, T>,
        range: Range<usize>,
    ) -> Self::View<'short, T>;

    /// A part of an exclusive view, which is given up.
    fn slice_mut<'long: 'short, 'short, T: Element>(
        view: Self::ViewMut<'long, T>,
        range: Range<usize>,
    ) -> Self::ViewMut<'short, T>;

    /// Two disjoint parts, before and from `middle`.
    fn split_mut<'long: 'short, 'short, T: Element>(
        view: Self::ViewMut<'long, T>,
        middle: usize,
    ) -> (Self::ViewMut<'short, T>, Self::ViewMut<'short, T>);

    /// The same exclusive view for a shorter time.
    fn reborrow<'a, T: Element>(view: &'a mut Self::ViewMut<'_, T>) -> Self::ViewMut<'a, T>;

    /// An exclusive view to read for a while.
    fn shared<'a, T: Element>(view: &'a Self::ViewMut<'_, T>) -> Self::View<'a, T>;

    /// Copies host values in. Lengths must be equal.
    fn upload<T: Element>(&mut self, from: &[T], to: Self::ViewMut<'_, T>);

    /// Host values where kernels can read them: copied into `staging` first by a device that cannot
    /// read the host's memory.
    fn stage<'a, T: Element>(
        &mut self,
        host: &'a [T],
        staging: &'a mut Self::Buffer<T>,
    ) -> Self::View<'a, T>;

    /// What [`Self::stage`] made of the same values, where `staging` has not been used since.
    fn staged<'a, T: Element>(host: &'a [T], staging: &'a Self::Buffer<T>) -> Self::View<'a, T>;

    /// Copies values out to the host, after all queued work. Lengths must be equal.
    fn download<T: Element>(&mut self, from: Self::View<'_, T>, to: &mut [T]);

    /// Copies values out to the host, after all queued work, waits once for all of it, and reports the first
    /// failure among it. Lengths must be equal.
    fn collect<const N: usize>(
        &mut self,
        downloads: [Download<'_, Self>; N],
    ) -> Result<(), BackendError>;

    /// Copies within the device. Lengths must be equal.
    fn copy<T: Element>(&mut self, from: Self::View<'_, T>, to: Self::ViewMut<'_, T>);

    /// Writes `value` everywhere.
    fn fill<T: Element>(&mut self, to: Self::ViewMut<'_, T>, value: T);

    /// The point behind all work queued so far. A communicator that is told of it
    /// ([`Communicator::after`](crate::comm::Communicator::after)) touches memory only behind it;
    /// nobody waits here.
    fn release(&mut self) -> Fence;

    /// Lets what is queued from now on begin only after all that the communicator has done or
    /// queued so far; nobody waits here.
    fn acquire(&mut self);

    /// Waits for all queued work and reports the first failure among it.
    fn synchronize(&mut self) -> Result<(), BackendError>;

    /// What chooses this backend's bits: device, instruction set, kernel table. Part of the
    /// fingerprint that ranks compare.
    fn fingerprint(&self) -> String;
}

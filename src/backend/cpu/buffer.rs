//! A zeroed, 64-byte aligned array, so that vector loads of whole cache lines never straddle two.

use std::alloc::{Layout, alloc, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::backend::Element;
use crate::memory::available;

/// Alignment in bytes: a cache line, and one AVX-512 register.
const ALIGNMENT: usize = 64;

/// Bytes of a huge page. All arrays of as much are put into such, for the sake of tables: rows that are looked
/// up here and there would else each wait for the address of their page.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes below which nobody asks how much memory is free.
const WORTH_ASKING: usize = 64 << 20;

/// A fixed-length array on the heap whose first element starts a cache line.
#[derive(Debug)]
pub struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: the buffer owns its elements, as a `Box<[T]>` does.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// `len` zeros, or `None` where memory is short.
    pub fn zeroed(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        // The system may promise memory that it does not have, and end the process that uses it.
        if layout.size() >= WORTH_ASKING
            && available().is_some_and(|free| layout.size() as u64 > free)
        {
            return None;
        }
        if layout.size() == 0 {
            return Some(Self {
                start: NonNull::dangling(),
                len,
            });
        }
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        if layout.align() == HUGE_PAGE {
            ask_for_huge_pages(start, layout.size());
        }
        // SAFETY: the memory is as large as the layout; every element type is valid when zeroed (Pod).
        unsafe { start.write_bytes(0, layout.size()) };
        Some(Self {
            start: start.cast(),
            len,
        })
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(len).ok()?;
        let alignment = match layout.size() {
            HUGE_PAGE.. => HUGE_PAGE,
            _ => ALIGNMENT,
        };
        layout.align_to(alignment).ok()
    }
}

/// Asks for huge pages where the system leaves that to programs; it may have none.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(start: NonNull<u8>, len: usize) {
    // SAFETY: the range was just allocated, begins with a page and is nobody else's; advice does not change
    // what is in it.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

/// Elsewhere the system decides.
#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}

/// Asks for elements to be brought into the cache, without waiting for them.
#[cfg(target_arch = "x86_64")]
pub(super) fn prefetch(elements: &[f32]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in elements.chunks(ALIGNMENT / size_of::<f32>()) {
        // SAFETY: every x86-64 has the instruction, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Elsewhere whoever reads them waits.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch(_: &[f32]) {}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len).filter(|layout| layout.size() > 0) {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` holds `len` initialised elements.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `start` holds `len` initialised elements, borrowed exclusively with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

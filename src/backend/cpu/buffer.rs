//! A zeroed, 64-byte aligned array, so that vector loads of whole cache lines never straddle two.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::backend::Element;

/// Alignment in bytes: a cache line, and one AVX-512 register.
const ALIGNMENT: usize = 64;

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
        if layout.size() == 0 {
            return Some(Self {
                start: NonNull::dangling(),
                len,
            });
        }
        // SAFETY: the layout's size is not zero; every element type is valid when zeroed (Pod).
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            start: start.cast(),
            len,
        })
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Option<Layout> {
        Layout::array::<T>(len).ok()?.align_to(ALIGNMENT).ok()
    }
}

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

//! Slices of device memory. Only this file and the buffers know addresses.

use std::marker::PhantomData;
use std::ops::Range;

use cudarc::driver::sys::CUdeviceptr;

use crate::backend::Element;

/// A read-only slice of device memory.
#[derive(Debug)]
pub struct View<'a, T> {
    pub(super) pointer: CUdeviceptr,
    pub(super) len: usize,
    memory: PhantomData<&'a [T]>,
}

/// An exclusive slice of device memory.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    pub(super) pointer: CUdeviceptr,
    pub(super) len: usize,
    memory: PhantomData<&'a mut [T]>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T: Element> View<'a, T> {
    /// The `len` elements at `pointer`, which the caller keeps for `'a`.
    pub(super) fn new(pointer: CUdeviceptr, len: usize) -> Self {
        let memory = PhantomData;
        Self {
            pointer,
            len,
            memory,
        }
    }

    /// What a kernel is given for an input it may not have: a null pointer and no elements.
    pub(super) fn or_null(view: Option<Self>) -> Self {
        view.unwrap_or_else(|| Self::new(0, 0))
    }

    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Self::new(advance::<T>(self.pointer, self.len, &range), range.len())
    }
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// The `len` elements at `pointer`, which the caller keeps and lends to nobody else for `'a`.
    pub(super) fn new(pointer: CUdeviceptr, len: usize) -> Self {
        let memory = PhantomData;
        Self {
            pointer,
            len,
            memory,
        }
    }

    /// What a kernel is given for an output it may not have: a null pointer and no elements.
    pub(super) fn or_null(view: Option<Self>) -> Self {
        view.unwrap_or_else(|| Self::new(0, 0))
    }

    pub(super) fn slice(self, range: Range<usize>) -> Self {
        Self::new(advance::<T>(self.pointer, self.len, &range), range.len())
    }
}

/// Address of the first element of `range`.
fn advance<T>(pointer: CUdeviceptr, len: usize, range: &Range<usize>) -> CUdeviceptr {
    assert!(
        range.start <= range.end && range.end <= len,
        "range {range:?} of {len} elements"
    );
    pointer + (range.start * size_of::<T>()) as CUdeviceptr
}

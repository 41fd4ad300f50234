//! Operands of a product that are rounded to 16 bits once, in memory of their own, and not by every tile
//! that reads them.

use std::sync::PoisonError;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::device::{Device, allocate};
use super::kernels::Kernel;
use super::launch::Grid;
use super::product::is_wide;
use super::{Cuda, View};
use crate::backend::{Form, MatmulShape, Precision};

/// Edges and terms that a block packs.
const TILE: usize = 64;

/// Threads of that block.
const THREADS: u32 = 256;

/// A packed operand: rows of A, or columns of B.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed {
    /// `[edges, row]` numbers of 16 bits; aligned to 128 bytes.
    pub(super) pointer: CUdeviceptr,
    pub(super) edges: usize,
    /// The number of terms, or more: a multiple of 64. Behind the terms are zeros.
    pub(super) row: usize,
}

impl Cuda {
    /// Queues the kernel that packs both operands of a product. They stay until the next call. `None`, and
    /// a failure kept, where there is no memory for them.
    pub(super) fn pack(
        &self,
        MatmulShape { form, m, n, k }: MatmulShape,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) -> Option<[Packed; 2]> {
        let kernel = match self.precision {
            Precision::Bf16 => Kernel::PackBf16,
            Precision::F16 => Kernel::PackF16,
            Precision::F32 | Precision::Tf32 => unreachable!("these have more than 16 bits"),
        };
        let row = k.next_multiple_of(TILE);
        let bytes = |edges: usize| edges * row * size_of::<u16>();
        let pointer = self.device.room(bytes(m) + bytes(n))?;
        let packed = |pointer, edges| Packed {
            pointer,
            edges,
            row,
        };
        let packed = [packed(pointer, m), packed(pointer + bytes(m) as u64, n)];
        let (a_straight, b_straight) = match form {
            Form::NN => (false, true),
            Form::NT => (false, false),
            Form::TN => (true, true),
        };
        let a = Operand::new(a, packed[0], k, a_straight);
        let b = Operand::new(b, packed[1], k, b_straight);
        let tiles = u32::try_from(a.tiles + b.tiles).expect("operands have fewer than 2^32 tiles");
        let grid = Grid::new([tiles, 1, 1], [THREADS, 1, 1]);
        self.launch(kernel, grid, &[(&a).into(), (&b).into()]);
        Some(packed)
    }
}

/// `Operand` of `pack.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Operand {
    from: CUdeviceptr,
    to: CUdeviceptr,
    edges: usize,
    terms: usize,
    row: usize,
    tiles: usize,
    straight: u32,
    wide: u32,
}

impl Operand {
    /// `straight`: whether neighbours in memory lie along the edge.
    fn new(from: View<'_, f32>, to: Packed, terms: usize, straight: bool) -> Self {
        let Packed {
            pointer,
            edges,
            row,
        } = to;
        Self {
            from: from.pointer,
            to: pointer,
            edges,
            terms,
            row,
            tiles: edges.div_ceil(TILE) * (row / TILE),
            straight: straight.into(),
            wide: is_wide(from.pointer, terms).into(),
        }
    }
}

/// Device memory that is as large as the largest product so far has needed.
pub(super) struct Room {
    /// Null where there is none.
    pointer: CUdeviceptr,
    bytes: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            pointer: 0,
            bytes: 0,
        }
    }

    /// Gives the memory back; the device's context is bound, and nothing uses it any more.
    pub(super) fn free(&mut self) {
        if self.pointer != 0 {
            // SAFETY: allocated in `Device::room`, and freed once. What fails here has failed before.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
        *self = Self::new();
    }
}

impl Device {
    /// Memory for the next launches on the compute stream, aligned to 256 bytes; `bytes` is not 0. Where
    /// there was never so much asked before it waits for the stream and allocates: not in later steps of the
    /// same shapes.
    fn room(&self, bytes: usize) -> Option<CUdeviceptr> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > room.bytes {
            self.synchronize();
            room.free();
            match allocate(self.ordinal, "packed operands of a product", bytes) {
                Ok(pointer) => *room = Room { pointer, bytes },
                Err(failure) => {
                    self.fail(failure);
                    return None;
                }
            }
        }
        Some(room.pointer)
    }
}

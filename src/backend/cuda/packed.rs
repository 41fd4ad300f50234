//! Products of many terms whose operands are rounded to 16 bits once, in memory of their own, and not by
//! every tile that reads them.

use std::sync::PoisonError;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::device::{Capability, Device, allocate};
use super::hopper;
use super::kernels::Kernel;
use super::launch::Grid;
use super::product::{
    Output, PROCESSORS, Plan, Product, Slices, TABLE_ELEMENTS, Target, Tile, is_wide,
};
use super::{Cuda, View};
use crate::backend::{Form, MatmulShape, Precision};

/// What multiplies packed operands. It decides bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Multiplier {
    /// What compute capability 9.0 alone has, of `hopper`.
    Wgmma,
    /// What 8.0 and all newer have.
    MmaSync,
}

impl Multiplier {
    /// The best that this GPU and its driver have.
    pub(super) fn of(capability: Capability) -> Option<Self> {
        match capability.lacks(Precision::Bf16) {
            None if hopper::is_possible(capability) => Some(Self::Wgmma),
            None => Some(Self::MmaSync),
            Some(_) => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wgmma => "wgmma",
            Self::MmaSync => "mma.sync",
        }
    }
}

/// Fewest terms of a product that is computed this way. It decides bits, so it knows neither rows nor columns.
///
/// The estimate, for an H100: packing moves `6 k (m + n)` bytes through memory, at 3 TB/s. Multiplying takes
/// `m n k / 90e12` seconds where tiles read `f32` from the L2 cache (180 TFLOP/s), and `m n k / 300e12` from
/// packed operands. So packing pays where `m n / (m + n)` is more than 260, whatever `k` is: from 520 rows and
/// columns on. The launch more, 3 microseconds, pays from `m n k = 4e8` on, which is 740 cubed. Where sums have
/// 1024 terms, rows and columns are mostly of that order; where they have fewer, products are often small. What
/// loses is many terms with few rows: up to twice the time, where reading B takes all of it. Other GPUs than those of
/// compute capability 9.0 gain less from packing, as `mma.sync` multiplies slower than `wgmma`; no estimate was made
/// for them, and the threshold is the same.
const FEWEST_TERMS: usize = 1024;

/// Terms of a slice, where there are not too many: or somewhat less, so that slices have as many each.
const SLICE: usize = 512;

/// Most slices.
const MOST_SLICES: usize = 16;

/// What a slice's terms are a multiple of: `hopper.cu` stages so many at a time, `packed.cu` half of them.
pub(super) const STEP: u32 = 64;

/// Rows and columns of the tile that a block of `packed.cu` computes, and its threads.
const MULTIPLIED: u32 = 128;
const MULTIPLIERS: u32 = 256;

/// Shared memory of such a block: stages of half a step's terms.
pub(super) const RING_BYTES: u32 = 4 * (2 * MULTIPLIED * STEP / 2 * 2);

// What a block can have on every GPU since 8.0.
const _: () = assert!(RING_BYTES <= 99 << 10);

/// How the terms of every sum are cut. It decides bits, as [`Slices`] does elsewhere.
fn slices(terms: usize) -> Slices {
    Slices::cut(terms, SLICE, MOST_SLICES, STEP as usize)
}

/// Edges and terms that a block packs.
const TILE: usize = 64;

/// Threads of that block.
const THREADS: u32 = 256;

/// A packed operand, rows of A or columns of B: `Packed` of `packed.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Packed {
    /// `[edges, row]` numbers of 16 bits; aligned to 128 bytes.
    pub(super) pointer: CUdeviceptr,
    pub(super) edges: usize,
    /// The number of terms, or more: a multiple of 64. Behind the terms are zeros.
    pub(super) row: usize,
}

/// The row of a packed operand of so many terms.
pub(super) fn row(terms: usize) -> usize {
    terms.next_multiple_of(TILE)
}

/// How many numbers both packed operands of a product are.
pub(super) fn len(MatmulShape { m, n, k, .. }: MatmulShape) -> usize {
    (m + n) * row(k)
}

impl Cuda {
    /// What computes products of so many terms this way, where they are.
    pub(super) fn takes_packed(&self, terms: usize) -> Option<Multiplier> {
        let is_half = matches!(self.precision, Precision::Bf16 | Precision::F16);
        self.packed.filter(|_| is_half && terms >= FEWEST_TERMS)
    }

    /// `output = a · b`, as [`Cuda::takes_packed`] says.
    pub(super) fn multiply_packed(
        &self,
        multiplier: Multiplier,
        shape: MatmulShape,
        (a, b): (View<'_, f32>, View<'_, f32>),
        output: Output<'_>,
    ) {
        let MatmulShape { m, n, k, .. } = shape;
        if m == 0 || n == 0 {
            return;
        }
        let Some(operands) = self.pack(shape, a, b) else {
            return;
        };
        let slices = slices(k);
        let tiles = Tile::Large.count(m, n);
        let plan = Plan {
            tile: Tile::Large,
            is_split: 2 * tiles <= PROCESSORS && slices.count * m * n <= TABLE_ELEMENTS,
        };
        // At most `MOST_SLICES`.
        let tables = if plan.is_split {
            slices.count as u32
        } else {
            1
        };
        let tiles = u32::try_from(tiles).expect("a product has fewer than 2^32 tiles");
        self.write_sums(plan, slices, output, |target| {
            let product = Product::new([m, n, k], slices, [false; 2], &target);
            let blocks = [tiles, tables];
            match multiplier {
                Multiplier::Wgmma => self.multiply_grouped(&product, operands, &target, blocks),
                Multiplier::MmaSync => self.multiply_staged(&product, operands, &target, blocks),
            }
        });
    }

    /// Queues the kernel that multiplies packed operands by `mma.sync`: tiles, or as many tables of them.
    fn multiply_staged(
        &self,
        product: &Product,
        [a, b]: [Packed; 2],
        target: &Target<'_>,
        [tiles, tables]: [u32; 2],
    ) {
        let arguments = [
            product.into(),
            (&a).into(),
            (&b).into(),
            (&target.bias).into(),
            (&target.c).into(),
        ];
        let grid = Grid::new([tiles, tables, 1], [MULTIPLIERS, 1, 1]);
        self.launch(Kernel::MatmulPacked, grid, &arguments);
    }

    /// Queues the kernel that packs both operands of a product. They stay until the next call. `None`, and
    /// a failure kept, where there is no memory for them.
    fn pack(&self, shape: MatmulShape, a: View<'_, f32>, b: View<'_, f32>) -> Option<[Packed; 2]> {
        let pointer = self.device.room(len(shape) * size_of::<u16>())?;
        Some(self.pack_into(pointer, shape, a, b))
    }

    /// The same into memory that is as long as [`len`] says, and aligned to 128 bytes.
    pub(super) fn pack_into(
        &self,
        pointer: CUdeviceptr,
        MatmulShape { form, m, n, k }: MatmulShape,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) -> [Packed; 2] {
        assert!(
            matches!(self.precision, Precision::Bf16 | Precision::F16),
            "{} has more than 16 bits",
            self.precision
        );
        let row = row(k);
        let packed = |pointer, edges| Packed {
            pointer,
            edges,
            row,
        };
        let a_bytes = m * row * size_of::<u16>();
        let packed = [packed(pointer, m), packed(pointer + a_bytes as u64, n)];
        let (a_straight, b_straight) = match form {
            Form::NN => (false, true),
            Form::NT => (false, false),
            Form::TN => (true, true),
        };
        let a = Operand::new(a, packed[0], k, a_straight);
        let b = Operand::new(b, packed[1], k, b_straight);
        let tiles = u32::try_from(a.tiles + b.tiles).expect("operands have fewer than 2^32 tiles");
        let grid = Grid::new([tiles, 1, 1], [THREADS, 1, 1]);
        self.launch(Kernel::Pack, grid, &[(&a).into(), (&b).into()]);
        packed
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_multiply_packed_operands_by_what_they_have() {
        let of = |major, minor| Multiplier::of(Capability { major, minor });
        assert_eq!(of(7, 5), None);
        for (major, minor) in [(8, 0), (8, 9), (10, 0), (12, 0)] {
            assert_eq!(of(major, minor), Some(Multiplier::MmaSync));
        }
    }

    #[test]
    fn slices_are_whole_stages_and_neither_short_nor_many() {
        for terms in [1024, 1025, 4096, 8191, 12_544, 1 << 20] {
            let slices = slices(terms);
            assert!(slices.terms.is_multiple_of(STEP as usize));
            assert!(slices.terms > SLICE / 2 && slices.count <= MOST_SLICES);
            assert!(slices.terms * (slices.count - 1) < terms);
            assert!(slices.terms * slices.count >= terms);
        }
        assert_eq!(slices(4096).count, 8);
    }
}

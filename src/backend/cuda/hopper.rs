//! Products by what compute capability 9.0 alone has: TMA, which fetches tiles, and wgmma, which
//! multiplies them.

use std::ffi::c_void;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

use super::device::Capability;
use super::kernels::Kernel;
use super::launch::Grid;
use super::packed::Packed;
use super::product::{Output, PROCESSORS, Plan, Product, Slices, TABLE_ELEMENTS, Tile};
use super::{Cuda, View};
use crate::backend::{MatmulShape, Precision};

/// The GPUs that have it, and no others: its code runs neither on older nor on newer ones.
pub(super) const HOPPER: Capability = Capability { major: 9, minor: 0 };

/// Fewest terms of a product that is computed this way. It decides bits, so it knows neither rows nor columns.
///
/// The estimate, for an H100: packing moves `6 k (m + n)` bytes through memory, at 3 TB/s. Multiplying takes
/// `m n k / 90e12` seconds where tiles read `f32` from the L2 cache (180 TFLOP/s), and `m n k / 300e12` from
/// packed operands. So packing pays where `m n / (m + n)` is more than 260, whatever `k` is: from 520 rows and
/// columns on. The launch more, 3 microseconds, pays from `m n k = 4e8` on, which is 740 cubed. Where sums have
/// 1024 terms, rows and columns are mostly of that order; where they have fewer, products are often small. What
/// loses is many terms with few rows: up to twice the time, where reading B takes all of it.
const FEWEST_TERMS: usize = 1024;

/// Terms of a slice, where there are not too many: or somewhat less, so that slices have as many each.
const SLICE: usize = 512;

/// Most slices.
const MOST_SLICES: usize = 16;

/// Rows and columns of a tile.
const TILE: u32 = 128;

/// Terms of a stage: rows of 128 bytes.
const STEP: u32 = 64;

/// Stages of the ring of `hopper.cu`.
const STAGES: u32 = 6;

/// Two warpgroups that multiply, and a warp that fetches.
const THREADS: u32 = 2 * 128 + 32;

/// Shared memory of a block: stages, two barriers for each, and what aligns them to 1024 bytes.
pub(super) const RING_BYTES: u32 = STAGES * (2 * TILE * STEP * 2 + 2 * 8) + 1024;

// What a block can have.
const _: () = assert!(RING_BYTES <= 227 << 10);

/// How the terms of every sum are cut. It decides bits, as [`Slices`] does elsewhere.
fn slices(terms: usize) -> Slices {
    Slices::cut(terms, SLICE, MOST_SLICES, STEP as usize)
}

/// Whether there is a GPU for it, and a driver that describes matrices for it.
pub(super) fn is_possible(capability: Capability) -> bool {
    type Encode = unsafe extern "C" fn();
    // SAFETY: the driver is loaded, for there is a GPU; the function is only looked for.
    capability == HOPPER
        && unsafe { sys::culib().get::<Encode>(b"cuTensorMapEncodeTiled\0") }.is_ok()
}

impl Cuda {
    /// Whether products of so many terms are computed this way.
    pub(super) fn takes_packed(&self, terms: usize) -> bool {
        let is_half = matches!(self.precision, Precision::Bf16 | Precision::F16);
        self.takes_wgmma && is_half && terms >= FEWEST_TERMS
    }

    /// `output = a · b`, as [`Cuda::takes_packed`] says.
    pub(super) fn multiply_packed(
        &self,
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
        let [Some(a), Some(b)] = operands.map(|operand| self.tensor_map(operand)) else {
            return;
        };
        let slices = slices(k);
        let tiles = Tile::Large.count(m, n);
        let plan = Plan {
            tile: Tile::Large,
            is_split: 2 * tiles <= PROCESSORS && slices.count * m * n <= TABLE_ELEMENTS,
        };
        // As many blocks as run at a time, each of which computes tile after tile.
        let blocks = tiles.min(self.device.processors) as u32;
        let tables = if plan.is_split { slices.count } else { 1 };
        self.write_sums(plan, slices, output, |target| {
            let product = Product::new([m, n, k], slices, [false; 2], &target);
            let arguments = [
                (&product).into(),
                (&a).into(),
                (&b).into(),
                (&target.bias).into(),
                (&target.c).into(),
            ];
            // At most `MOST_SLICES` tables.
            let grid = Grid::new([blocks, tables as u32, 1], [THREADS, 1, 1]);
            self.launch(Kernel::MatmulGrouped, grid, &arguments);
        });
    }

    /// Describes a packed operand; `None`, and a failure kept, where the driver refuses.
    fn tensor_map(&self, operand: Packed) -> Option<TensorMap> {
        let map = TensorMap::new(operand, self.precision);
        let refused = map.as_ref().err().copied();
        self.device
            .check("cuTensorMapEncodeTiled", refused.map_or(Ok(()), Err));
        map.ok()
    }
}

/// What TMA is told of a packed operand: `CUtensorMap`.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct TensorMap([u64; 16]);

impl TensorMap {
    fn new(operand: Packed, precision: Precision) -> Result<Self, DriverError> {
        let Packed {
            pointer,
            edges,
            row,
        } = operand;
        let element = match precision {
            Precision::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let (extents, strides) = ([row as u64, edges as u64], [2 * row as u64]);
        let (tile, steps) = ([STEP, TILE], [1, 1]);
        let mut map = Self([0; 16]);
        // SAFETY: the driver reads two extents, one stride, two of the tile and two steps, and writes 128
        // bytes, aligned to 64.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                std::ptr::from_mut(&mut map).cast(),
                element,
                2,
                pointer as *mut c_void,
                extents.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()?;
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

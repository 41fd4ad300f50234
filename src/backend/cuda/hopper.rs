//! Products of packed operands by what compute capability 9.0 alone has: TMA, which fetches tiles, and
//! wgmma, which multiplies them.

use std::ffi::c_void;

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

use super::Cuda;
use super::device::Capability;
use super::kernels::Kernel;
use super::launch::Grid;
use super::packed::{Packed, STEP};
use super::product::{Product, Target};
use crate::backend::Precision;

/// The GPUs that have it, and no others: its code runs neither on older nor on newer ones.
pub(super) const HOPPER: Capability = Capability { major: 9, minor: 0 };

/// Rows and columns of a tile.
const TILE: u32 = 128;

/// Stages of the ring of `hopper.cu`.
const STAGES: u32 = 6;

/// Two warpgroups that multiply, and a warp that fetches.
const THREADS: u32 = 2 * 128 + 32;

/// Shared memory of a block: stages, two barriers for each, and what aligns them to 1024 bytes.
pub(super) const RING_BYTES: u32 = STAGES * (2 * TILE * STEP * 2 + 2 * 8) + 1024;

// What a block can have.
const _: () = assert!(RING_BYTES <= 227 << 10);
// A row of a stage has 128 bytes.
const _: () = assert!(2 * STEP == 128);

/// Whether there is a GPU for it, and a driver that describes matrices for it.
pub(super) fn is_possible(capability: Capability) -> bool {
    type Encode = unsafe extern "C" fn();
    // SAFETY: the driver is loaded, for there is a GPU; the function is only looked for.
    capability == HOPPER
        && unsafe { sys::culib().get::<Encode>(b"cuTensorMapEncodeTiled\0") }.is_ok()
}

impl Cuda {
    /// Queues the kernel that multiplies packed operands: tiles, or as many tables of them.
    pub(super) fn multiply_grouped(
        &self,
        product: &Product,
        operands: [Packed; 2],
        target: &Target<'_>,
        [tiles, tables]: [u32; 2],
    ) {
        let [Some(a), Some(b)] = operands.map(|operand| self.tensor_map(operand)) else {
            return;
        };
        // As many blocks as run at a time, each of which computes tile after tile.
        let blocks = tiles.min(self.device.processors as u32);
        let arguments = [
            product.into(),
            (&a).into(),
            (&b).into(),
            (&target.bias).into(),
            (&target.c).into(),
        ];
        let grid = Grid::new([blocks, tables, 1], [THREADS, 1, 1]);
        self.launch(Kernel::MatmulGrouped, grid, &arguments);
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

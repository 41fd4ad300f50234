//! "Execution Control", and tensor maps ("Tensor Map Object Management").

use std::ffi::{c_int, c_uint, c_void};

use ptx_interpreter::LaunchConfig;

use crate::config::config;
use crate::entry::{driver_api, put, refuse};
use crate::error;
use crate::kernel::launch;
use crate::state::{lock, Handle};

/// `CUlaunchConfig`
#[repr(C)]
pub(super) struct CuLaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: Handle,
    attributes: *const CuLaunchAttribute,
    attribute_count: c_uint,
}

/// `CUlaunchAttribute`
#[repr(C)]
pub(super) struct CuLaunchAttribute {
    id: c_int,
    padding: [u8; 4],
    value: [u32; 16],
}

const ATTRIBUTE_COOPERATIVE: c_int = 2;
const ATTRIBUTE_CLUSTER_DIMENSION: c_int = 4;

/// Words 0, 1, ... of the fake tensor map; the interpreter decodes them.
const TENSOR_MAP_MAGIC: u64 = 0x544d_4150;

driver_api! {
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: Handle, arguments: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        let config = LaunchConfig::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared);
        launch(function, config, stream, arguments, extra)
    }

    fn cuLaunchCooperativeKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: Handle, arguments: *mut *mut c_void,
    ) {
        let mut config = LaunchConfig::new([grid_x, grid_y, grid_z], [block_x, block_y, block_z], shared);
        config.cooperative = true;
        launch(function, config, stream, arguments, std::ptr::null_mut())
    }

    fn cuLaunchKernelEx(
        config: *const CuLaunchConfig, function: Handle, arguments: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        let config = config.as_ref().ok_or(error::INVALID_VALUE)?;
        let mut plain = LaunchConfig::new(config.grid, config.block, config.shared);
        for index in 0..config.attribute_count as usize {
            let attribute = &*config.attributes.add(index);
            match attribute.id {
                ATTRIBUTE_COOPERATIVE => plain.cooperative = attribute.value[0] != 0,
                ATTRIBUTE_CLUSTER_DIMENSION if attribute.value[..3] != [1, 1, 1] => {
                    return refuse(error::NOT_SUPPORTED, format_args!("thread block clusters"));
                }
                _ => {}
            }
        }
        launch(function, plain, config.stream, arguments, extra)
    }

    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) {
        let state = lock();
        let function = state.functions.get(&function).ok_or(error::INVALID_HANDLE)?;
        let kernel = function.code()?;
        let (major, minor) = config().compute;
        put(value, match attribute {
            0 => kernel.max_threads.unwrap_or(1024).min(1024) as c_int,
            1 => function.module.static_shared_bytes(kernel) as c_int,
            2 => state.modules.get(&function.owner).map_or(0, |m| m.constants as c_int),
            3 => kernel.local_bytes as c_int,
            // The number of registers is decided by ptxas, which is not part of this.
            4 => 32,
            5 | 6 => major * 10 + minor,
            8 => function.max_dynamic_shared as c_int,
            _ => 0,
        })
    }

    fn cuFuncSetAttribute(function: Handle, attribute: c_int, value: c_int) {
        let mut state = lock();
        let function = state.functions.get_mut(&function).ok_or(error::INVALID_HANDLE)?;
        if attribute == 8 {
            if value < 0 || value > config().max_shared() {
                let limit = config().max_shared();
                let why = format_args!("{}: {value} bytes of shared memory, the limit is {limit}", function.name);
                return refuse(error::INVALID_VALUE, why);
            }
            function.max_dynamic_shared = value as u32;
        }
        Ok(())
    }

    fn cuFuncSetCacheConfig(function: Handle, _config: c_int) {
        lock().functions.get(&function).map(|_| ()).ok_or(error::INVALID_HANDLE)
    }

    fn cuTensorMapEncodeTiled(
        map: *mut [u64; 16], data_type: c_int, rank: c_uint, base: u64, dims: *const u64, strides: *const u64,
        box_dims: *const u32, element_strides: *const u32, interleave: c_int, swizzle: c_int, _l2: c_int, _fill: c_int,
    ) {
        let size: u64 = match data_type {
            0 => 1,
            1 | 6 | 9 => 2,
            2 | 3 | 7 | 10 | 11 | 12 => 4,
            _ => 8,
        };
        if rank != 2 || interleave != 0 || *element_strides != 1 || *element_strides.add(1) != 1 {
            return refuse(error::NOT_SUPPORTED, format_args!("only plain 2-D tensor maps are supported"));
        }
        let (width, height) = (u64::from(*box_dims), u64::from(*box_dims.add(1)));
        let row = width * size;
        let widest = match swizzle {
            0 => u64::MAX,
            1 => 32,
            2 => 64,
            3 => 128,
            _ => return Err(error::INVALID_VALUE),
        };
        let aligned = base.is_multiple_of(16) && (*strides).is_multiple_of(16) && row.is_multiple_of(16);
        if !aligned || width > 256 || height > 256 || row > widest {
            return refuse(error::INVALID_VALUE, format_args!("cuTensorMapEncodeTiled: bad alignment or box"));
        }
        let mut words = [0; 16];
        words[0] = TENSOR_MAP_MAGIC;
        words[1] = size | (swizzle as u64) << 16;
        words[2] = base;
        words[3] = *dims;
        words[4] = *dims.add(1);
        words[8] = *strides;
        words[12] = width | height << 32;
        put(map, words)
    }
}

//! TMA + mbarrier + wgmma: runs `hopper.cu` (needs compute capability 9.0).

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use cudarc::driver::{sys, CudaContext, DevicePtr, DeviceRepr, PushKernelArg};
use half::bf16;
use samples::{grid, load, max_error, Report, Result};

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct TensorMap([u64; 16]);
unsafe impl DeviceRepr for TensorMap {}

/// Tiles of 64 x 64 bf16 of a row-major matrix, 128-byte swizzle.
fn tensor_map(address: u64, rows: usize, columns: usize) -> Result<TensorMap> {
    let mut map = TensorMap([0; 16]);
    let dims = [columns as u64, rows as u64];
    let strides = [2 * columns as u64];
    let (tile, step) = ([64u32, 64], [1u32, 1]);
    unsafe {
        sys::cuTensorMapEncodeTiled(
            (&mut map as *mut TensorMap).cast(),
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            address as *mut _,
            dims.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            step.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
        .result()?;
    }
    Ok(map)
}

fn main() -> Result {
    let context = CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let module = load(&context, "hopper", "compute_90a")?;
    let (m, n, k) = (128usize, 192usize, 256usize);
    let make = |count: usize, factor: usize, modulus: usize| -> Vec<bf16> {
        let value = |i: usize| (i * factor % modulus) as f32 / modulus as f32 * 2.0 - 1.0;
        (0..count).map(|i| bf16::from_f32(value(i))).collect()
    };
    let (a, b) = (make(m * k, 7919, 1013), make(n * k, 6151, 997));
    let (da, db) = (stream.clone_htod(&a)?, stream.clone_htod(&b)?);
    let mut dc = unsafe { stream.alloc::<f32>(m * n)? };
    let map_a = tensor_map(da.device_ptr(&stream).0, m, k)?;
    let map_b = tensor_map(db.device_ptr(&stream).0, n, k)?;
    let kernel = module.load_function("gemm_wgmma")?;
    let (ni, ki) = (n as i32, k as i32);
    let mut launch = stream.launch_builder(&kernel);
    launch
        .arg(&map_a)
        .arg(&map_b)
        .arg(&mut dc)
        .arg(&ni)
        .arg(&ki);
    unsafe { launch.launch(grid((n as u32 / 64, m as u32 / 64, 1), (128, 1, 1), 0))? };
    let c = stream.clone_dtoh(&dc)?;
    let want = (0..m * n).map(|at| {
        let (i, j) = (at / n, at % n);
        (0..k)
            .map(|q| a[i * k + q].to_f64() * b[j * k + q].to_f64())
            .sum()
    });
    let mut report = Report::new();
    let error = max_error(c.iter().map(|v| f64::from(*v)), want);
    report.error("gemm_wgmma", error, 1e-3);
    report.finish()
}

//! What the sample programs share. They use cudarc in the usual way and know nothing of the
//! emulator; LD_LIBRARY_PATH decides which `libcuda.so` and `libnccl.so` they get.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::{CudaContext, CudaModule, LaunchConfig};
use cudarc::nvrtc::{compile_ptx_with_opts, CompileOptions};

pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Exit code of a sample that found a wrong result (a panic gives 101).
pub const WRONG_RESULT: i32 = 3;

fn kernel_dir() -> PathBuf {
    match std::env::var_os("SAMPLE_KERNELS") {
        Some(dir) => dir.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels"),
    }
}

/// Compiles `kernels/<name>.cu` with NVRTC for an architecture such as `compute_80`, and loads it.
pub fn load(context: &Arc<CudaContext>, name: &str, arch: &'static str) -> Result<Arc<CudaModule>> {
    let path = kernel_dir().join(format!("{name}.cu"));
    let source = std::fs::read_to_string(&path)?;
    let include_paths = vec![
        kernel_dir().display().to_string(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/kernels").to_string(),
    ];
    let options = CompileOptions {
        arch: Some(arch),
        include_paths,
        name: Some(format!("{name}.cu")),
        options: vec!["--std=c++17".into(), "-lineinfo".into()],
        ..CompileOptions::default()
    };
    let ptx =
        compile_ptx_with_opts(source, options).map_err(|e| format!("{}: {e:?}", path.display()))?;
    Ok(context.load_module(ptx)?)
}

/// A small deterministic generator of roughly normal numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn sample(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            sum += (self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        }
        sum
    }

    pub fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.sample()).collect()
    }
}

/// Largest difference; NaN counts as infinite.
pub fn max_error(got: impl IntoIterator<Item = f64>, want: impl IntoIterator<Item = f64>) -> f64 {
    let differences = got.into_iter().zip(want).map(|(g, w)| (g - w).abs());
    differences.fold(0.0, |worst: f64, d| {
        if d.is_nan() {
            f64::INFINITY
        } else {
            worst.max(d)
        }
    })
}

pub fn grid(grid: (u32, u32, u32), block: (u32, u32, u32), shared: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: grid,
        block_dim: block,
        shared_mem_bytes: shared,
    }
}

/// Prints one line per check and remembers failures.
pub struct Report {
    start: Instant,
    failures: u32,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    pub fn new() -> Self {
        Report {
            start: Instant::now(),
            failures: 0,
        }
    }

    pub fn error(&mut self, name: &str, error: f64, tolerance: f64) {
        let ok = error <= tolerance;
        let verdict = if ok { "ok" } else { "WRONG" };
        println!(
            "{name:32} max error {error:.3e} {verdict} {:?}",
            self.start.elapsed()
        );
        self.start = Instant::now();
        self.failures += u32::from(!ok);
    }

    pub fn check(&mut self, name: &str, ok: bool) {
        self.error(name, if ok { 0.0 } else { f64::INFINITY }, 0.0);
    }

    /// How many checks have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Ends the program, which must have no other thread at work.
    pub fn finish(self) -> Result {
        if self.failures > 0 {
            println!("{} checks failed", self.failures);
            std::process::exit(WRONG_RESULT);
        }
        println!("all checks ok");
        Ok(())
    }
}

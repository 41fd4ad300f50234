//! Runs the kernels of `training.cu` and compares them with f64 and integer references.
//!
//! `training [size]`: the size of the matrix product.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaModule, CudaStream, PushKernelArg};
use samples::{grid, load, max_error, Random, Report, Result};

struct Bench {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    random: Random,
    report: Report,
}

/// A name and its reference.
type Function = (&'static str, fn(f64) -> f64);

fn main() -> Result {
    let size = std::env::args().nth(1).map_or(Ok(100), |s| s.parse())?;
    let context = CudaContext::new(0)?;
    let mut bench = Bench {
        stream: context.new_stream()?,
        module: load(&context, "training", "compute_80")?,
        random: Random::new(7),
        report: Report::new(),
    };
    bench.matmul(size)?;
    bench.functions()?;
    bench.fixed_point()?;
    bench.philox()?;
    bench.report.finish()
}

fn blocks(n: usize, threads: u32) -> cudarc::driver::LaunchConfig {
    grid(((n as u32).div_ceil(threads), 1, 1), (threads, 1, 1), 0)
}

impl Bench {
    /// Sizes that are no multiple of the tile.
    fn matmul(&mut self, size: usize) -> Result {
        let (m, n, k) = (size - 1, size / 4 * 4, size / 8 * 8 - 4);
        let (a, b) = (self.random.vector(m * k), self.random.vector(k * n));
        let (da, db) = (self.stream.clone_htod(&a)?, self.stream.clone_htod(&b)?);
        let mut dc = unsafe { self.stream.alloc::<f32>(m * n)? };
        let kernel = self.module.load_function("matmul_blocked")?;
        let (mi, ni, ki) = (m as i32, n as i32, k as i32);
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&da).arg(&db).arg(&mut dc);
        launch.arg(&mi).arg(&ni).arg(&ki);
        let tiles = (n.div_ceil(64) as u32, m.div_ceil(64) as u32, 1);
        unsafe { launch.launch(grid(tiles, (256, 1, 1), 0))? };
        let c = self.stream.clone_dtoh(&dc)?;
        let want = (0..m * n).map(|at| {
            let (i, j) = (at / n, at % n);
            let terms = (0..k).map(|q| f64::from(a[i * k + q]) * f64::from(b[q * n + j]));
            terms.sum()
        });
        let error = max_error(c.iter().map(|v| f64::from(*v)), want);
        self.report.error("matmul_blocked", error, 1e-4);
        Ok(())
    }

    fn functions(&mut self) -> Result {
        let n = 3000;
        let x: Vec<f32> = (0..n).map(|i| (i as f32 / 300.0 - 5.0).exp()).collect();
        let functions: [Function; 12] = [
            ("expf", |x| (-x).exp()),
            ("tanhf", f64::tanh),
            ("erff", erf),
            ("logf", f64::ln),
            ("log1pf", f64::ln_1p),
            ("powf", |x| x.powf(f64::from(1.7f32))),
            ("sqrtf", f64::sqrt),
            ("rsqrtf", |x| 1.0 / x.sqrt()),
            ("expm1f", |x| (-x).exp_m1()),
            ("sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
            ("__fdividef", |x| x / 3.0),
            ("sinf + cosf", |x| x.sin() + x.cos()),
        ];
        let dx = self.stream.clone_htod(&x)?;
        let mut dy = unsafe { self.stream.alloc::<f32>(functions.len() * n)? };
        let kernel = self.module.load_function("functions")?;
        let ni = n as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut dy).arg(&ni);
        unsafe { launch.launch(blocks(n, 128))? };
        let y = self.stream.clone_dtoh(&dy)?;
        for ((name, f), got) in functions.iter().zip(y.chunks(n)) {
            let relative = got.iter().zip(&x).map(|(got, x)| {
                let want = f(f64::from(*x));
                // What underflows is compared with the smallest normal number.
                (f64::from(*got) - want) / want.abs().max(f64::from(f32::MIN_POSITIVE))
            });
            // The sum may cancel.
            let tolerance = if name.contains('+') { 1e-3 } else { 1e-6 };
            let error = max_error(relative, std::iter::repeat(0.0));
            self.report.error(name, error, tolerance);
        }
        Ok(())
    }

    fn fixed_point(&mut self) -> Result {
        let (n, scale) = (1000, 2f64.powi(40));
        let x: Vec<f32> = (0..n).map(|_| 100.0 * self.random.sample()).collect();
        let dx = self.stream.clone_htod(&x)?;
        let mut sum = self.stream.alloc_zeros::<u64>(1)?;
        let mut largest = self.stream.alloc_zeros::<u32>(1)?;
        let mut squares = self.stream.alloc_zeros::<f64>(1)?;
        let kernel = self.module.load_function("fixed_point")?;
        let ni = n as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut sum).arg(&mut largest);
        launch.arg(&mut squares).arg(&scale).arg(&ni);
        unsafe { launch.launch(blocks(n, 128))? };
        let fixed = |x: &f32| (f64::from(*x) * scale).round_ties_even() as i64;
        let want = x.iter().map(fixed).fold(0, i64::wrapping_add);
        let got = self.stream.clone_dtoh(&sum)?[0] as i64;
        self.report.check("fixed-point sum", got == want);
        let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
        let got = f32::from_bits(self.stream.clone_dtoh(&largest)?[0]);
        self.report.check("largest magnitude", got == most);
        let want: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let got = self.stream.clone_dtoh(&squares)?[0];
        self.report
            .error("f64 sum of squares", (got - want).abs() / want, 1e-14);

        let sums: Vec<i64> = x.iter().map(fixed).collect();
        let sums_on_device = self.stream.clone_htod(&sums)?;
        let mut y = unsafe { self.stream.alloc::<f32>(n)? };
        let mut z = unsafe { self.stream.alloc::<i64>(n)? };
        let kernel = self.module.load_function("from_fixed")?;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&sums_on_device).arg(&mut y).arg(&dx);
        launch.arg(&mut z).arg(&scale).arg(&ni);
        unsafe { launch.launch(blocks(n, 128))? };
        let want: Vec<f32> = sums.iter().map(|s| (*s as f64 / scale) as f32).collect();
        self.report
            .check("f32 from fixed point", self.stream.clone_dtoh(&y)? == want);
        let want: Vec<i64> = x.iter().map(|x| x.round_ties_even() as i64).collect();
        self.report
            .check("i64 from f32", self.stream.clone_dtoh(&z)? == want);
        Ok(())
    }

    fn philox(&mut self) -> Result {
        let (n, key) = (200, 0x1234_5678_9abc_def0u64);
        let mut out = unsafe { self.stream.alloc::<u32>(4 * n)? };
        let mut high = unsafe { self.stream.alloc::<u64>(n)? };
        let kernel = self.module.load_function("philox")?;
        let ni = n as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&mut out).arg(&mut high).arg(&key).arg(&ni);
        unsafe { launch.launch(blocks(n, 64))? };
        let want: Vec<u32> = (0..n as u32).flat_map(|i| philox(i, key)).collect();
        self.report
            .check("philox", self.stream.clone_dtoh(&out)? == want);
        let product = |i: u64| u128::from(key + i) * u128::from(0x9e37_79b9_7f4a_7c15u64);
        let want: Vec<u64> = (0..n as u64).map(|i| (product(i) >> 64) as u64).collect();
        self.report
            .check("64-bit mulhi", self.stream.clone_dtoh(&high)? == want);
        Ok(())
    }
}

/// Philox 4x32-10 with the counter (i, 0, 0, 0).
fn philox(i: u32, key: u64) -> [u32; 4] {
    let (mut c, mut k) = ([i, 0, 0, 0], [key as u32, (key >> 32) as u32]);
    for _ in 0..10 {
        let p = u64::from(c[0]) * 0xd251_1f53;
        let q = u64::from(c[2]) * 0xcd9e_8d57;
        let (high_p, high_q) = ((p >> 32) as u32, (q >> 32) as u32);
        c = [
            high_q ^ c[1] ^ k[0],
            q as u32,
            high_p ^ c[3] ^ k[1],
            p as u32,
        ];
        k = [
            k[0].wrapping_add(0x9e37_79b9),
            k[1].wrapping_add(0xbb67_ae85),
        ];
    }
    c
}

/// The error function by its Taylor series, or 1 where it is that to f32 precision.
fn erf(x: f64) -> f64 {
    if x > 4.0 {
        return 1.0;
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

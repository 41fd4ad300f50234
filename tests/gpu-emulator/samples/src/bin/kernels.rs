//! Runs the kernels of `basic.cu` and `more.cu` and compares them with f64 references.
//!
//! `kernels [basic|more] [size]`

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use cudarc::driver::{CudaContext, CudaModule, CudaStream, PushKernelArg};
use half::{bf16, f16};
use samples::{grid, load, max_error, Random, Report, Result};
use std::sync::Arc;

struct Bench {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    random: Random,
    report: Report,
}

fn main() -> Result {
    let which = std::env::args().nth(1).unwrap_or_default();
    let size = std::env::args().nth(2).map_or(Ok(128), |s| s.parse())?;
    let context = CudaContext::new(0)?;
    println!("device: {}", context.name()?);
    let mut report = Report::new();
    for name in ["basic", "more"] {
        if !which.is_empty() && which != name {
            continue;
        }
        let mut bench = Bench {
            stream: context.new_stream()?,
            module: load(&context, name, "compute_80")?,
            random: Random::new(1),
            report,
        };
        if name == "basic" {
            bench.matmul_tiled(size)?;
            bench.softmax()?;
            bench.matmul_mma(size)?;
            bench.adamw()?;
            bench.layernorm()?;
        } else {
            bench.flash_attention()?;
            bench.rope()?;
            bench.gelu()?;
            bench.cross_entropy()?;
            bench.half2_axpy()?;
            bench.histogram()?;
            bench.calls()?;
        }
        report = bench.report;
    }
    report.finish()
}

fn to_bf16(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|v| bf16::from_f32(*v)).collect()
}

fn to_f64(values: &[f32]) -> impl Iterator<Item = f64> + '_ {
    values.iter().map(|v| f64::from(*v))
}

impl Bench {
    /// Sizes that are no multiple of the tile.
    fn matmul_tiled(&mut self, size: usize) -> Result {
        let (m, n, k) = (size - 3, size - 7, size - 5);
        let (a, b) = (self.random.vector(m * k), self.random.vector(k * n));
        let (da, db) = (self.stream.clone_htod(&a)?, self.stream.clone_htod(&b)?);
        let mut dc = unsafe { self.stream.alloc::<f32>(m * n)? };
        let kernel = self.module.load_function("matmul_tiled")?;
        let (mi, ni, ki) = (m as i32, n as i32, k as i32);
        let mut launch = self.stream.launch_builder(&kernel);
        launch
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&mi)
            .arg(&ni)
            .arg(&ki);
        let blocks = (n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1);
        unsafe { launch.launch(grid(blocks, (16, 16, 1), 0))? };
        let c = self.stream.clone_dtoh(&dc)?;
        let want = (0..m * n).map(|at| {
            let (i, j) = (at / n, at % n);
            (0..k)
                .map(|q| f64::from(a[i * k + q]) * f64::from(b[q * n + j]))
                .sum()
        });
        self.report
            .error("matmul_tiled f32", max_error(to_f64(&c), want), 1e-4);
        Ok(())
    }

    fn softmax(&mut self) -> Result {
        let (rows, columns) = (64, 1000);
        let x: Vec<f32> = self
            .random
            .vector(rows * columns)
            .iter()
            .map(|v| 3.0 * v)
            .collect();
        let dx = self.stream.clone_htod(&x)?;
        let mut dy = unsafe { self.stream.alloc::<f32>(x.len())? };
        let kernel = self.module.load_function("softmax_rows")?;
        let ci = columns as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut dy).arg(&ci);
        unsafe { launch.launch(grid((rows as u32, 1, 1), (256, 1, 1), 0))? };
        let y = self.stream.clone_dtoh(&dy)?;
        let want = x.chunks(columns).flat_map(|row| {
            let top = to_f64(row).fold(f64::MIN, f64::max);
            let sum: f64 = to_f64(row).map(|v| (v - top).exp()).sum();
            row.iter().map(move |v| (f64::from(*v) - top).exp() / sum)
        });
        self.report
            .error("softmax", max_error(to_f64(&y), want), 1e-6);
        Ok(())
    }

    fn matmul_mma(&mut self, size: usize) -> Result {
        let s = size;
        let a = to_bf16(&self.random.vector(s * s));
        let b = to_bf16(&self.random.vector(s * s));
        let (da, db) = (self.stream.clone_htod(&a)?, self.stream.clone_htod(&b)?);
        let mut dc = unsafe { self.stream.alloc::<f32>(s * s)? };
        let kernel = self.module.load_function("matmul_bf16_mma")?;
        let si = s as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch
            .arg(&da)
            .arg(&db)
            .arg(&mut dc)
            .arg(&si)
            .arg(&si)
            .arg(&si);
        let blocks = (s as u32 / 64, s as u32 / 64, 1);
        unsafe { launch.launch(grid(blocks, (128, 1, 1), 0))? };
        let c = self.stream.clone_dtoh(&dc)?;
        let want = (0..s * s).map(|at| {
            let (i, j) = (at / s, at % s);
            (0..s)
                .map(|q| a[i * s + q].to_f64() * b[j * s + q].to_f64())
                .sum()
        });
        self.report
            .error("matmul bf16 mma", max_error(to_f64(&c), want), 1e-4);
        Ok(())
    }

    fn adamw(&mut self) -> Result {
        let n = 20_000;
        let (p, g) = (self.random.vector(n), self.random.vector(n));
        let mut dp = self.stream.clone_htod(&p)?;
        let dg = self.stream.clone_htod(&g)?;
        let mut dm = self.stream.alloc_zeros::<f32>(n)?;
        let mut dv = self.stream.alloc_zeros::<f32>(n)?;
        let mut norm = self.stream.alloc_zeros::<f32>(1)?;
        let mut dp16 = unsafe { self.stream.alloc::<bf16>(n)? };
        let kernel = self.module.load_function("adamw")?;
        let (rate, b1, b2, eps) = (1e-2f32, 0.9f32, 0.999f32, 1e-8f32);
        let (decay, c1, c2, count) = (0.1f32, 10f32, 1000f32, n as i32);
        let mut launch = self.stream.launch_builder(&kernel);
        launch
            .arg(&mut dp)
            .arg(&mut dp16)
            .arg(&dg)
            .arg(&mut dm)
            .arg(&mut dv)
            .arg(&mut norm);
        launch
            .arg(&rate)
            .arg(&b1)
            .arg(&b2)
            .arg(&eps)
            .arg(&decay)
            .arg(&c1)
            .arg(&c2)
            .arg(&count);
        unsafe { launch.launch(grid((64, 1, 1), (256, 1, 1), 0))? };
        let (q, q16) = (self.stream.clone_dtoh(&dp)?, self.stream.clone_dtoh(&dp16)?);
        let norm = f64::from(self.stream.clone_dtoh(&norm)?[0]);
        let want = to_f64(&p)
            .zip(to_f64(&g))
            .map(|(p, g)| p - 1e-2 * (g / (g.abs() + 1e-8) + 0.1 * p));
        self.report
            .error("adamw", max_error(to_f64(&q), want), 1e-5);
        let sum: f64 = to_f64(&g).map(|g| g * g).sum();
        self.report
            .error("adamw gradient norm", (norm - sum).abs() / sum, 1e-5);
        self.report.check("adamw bf16 copy", q16 == to_bf16(&q));
        Ok(())
    }

    fn layernorm(&mut self) -> Result {
        let (rows, columns) = (50, 768);
        let x: Vec<f32> = self
            .random
            .vector(rows * columns)
            .iter()
            .map(|v| v + 2.0)
            .collect();
        let (w, b) = (self.random.vector(columns), self.random.vector(columns));
        let (dx, dw, db) = (
            self.stream.clone_htod(&x)?,
            self.stream.clone_htod(&w)?,
            self.stream.clone_htod(&b)?,
        );
        let mut dy = unsafe { self.stream.alloc::<f32>(x.len())? };
        let kernel = self.module.load_function("layernorm")?;
        let (ri, ci, eps) = (rows as i32, columns as i32, 1e-5f32);
        let mut launch = self.stream.launch_builder(&kernel);
        launch
            .arg(&dx)
            .arg(&dw)
            .arg(&db)
            .arg(&mut dy)
            .arg(&ri)
            .arg(&ci)
            .arg(&eps);
        unsafe { launch.launch(grid((rows.div_ceil(4) as u32, 1, 1), (128, 1, 1), 0))? };
        let y = self.stream.clone_dtoh(&dy)?;
        let (w, b) = (&w, &b);
        let want = x.chunks(columns).flat_map(|row| {
            let mean = to_f64(row).sum::<f64>() / columns as f64;
            let variance = to_f64(row).map(|v| (v - mean).powi(2)).sum::<f64>() / columns as f64;
            let scale = 1.0 / (variance + 1e-5).sqrt();
            (0..columns).map(move |j| {
                (f64::from(row[j]) - mean) * scale * f64::from(w[j]) + f64::from(b[j])
            })
        });
        self.report
            .error("layernorm", max_error(to_f64(&y), want), 1e-5);
        Ok(())
    }

    fn flash_attention(&mut self) -> Result {
        let (heads, t, d) = (2usize, 128usize, 64usize);
        let mut make = || {
            to_bf16(
                &self
                    .random
                    .vector(heads * t * d)
                    .iter()
                    .map(|v| 2.0 * v)
                    .collect::<Vec<_>>(),
            )
        };
        let (q, k, v) = (make(), make(), make());
        for causal in [0i32, 1] {
            let (dq, dk, dv) = (
                self.stream.clone_htod(&q)?,
                self.stream.clone_htod(&k)?,
                self.stream.clone_htod(&v)?,
            );
            let mut out = unsafe { self.stream.alloc::<f32>(heads * t * d)? };
            let mut lse = unsafe { self.stream.alloc::<f32>(heads * t)? };
            let kernel = self.module.load_function("flash_fwd")?;
            let (ti, scale) = (t as i32, 0.125f32);
            let mut launch = self.stream.launch_builder(&kernel);
            launch
                .arg(&dq)
                .arg(&dk)
                .arg(&dv)
                .arg(&mut out)
                .arg(&mut lse)
                .arg(&ti)
                .arg(&causal)
                .arg(&scale);
            let shared = (64 + 32 + 32) * 72 * 2;
            unsafe { launch.launch(grid((t as u32 / 64, heads as u32, 1), (128, 1, 1), shared))? };
            let (out, lse) = (self.stream.clone_dtoh(&out)?, self.stream.clone_dtoh(&lse)?);
            let (mut want, mut want_lse) = (Vec::new(), Vec::new());
            for row in 0..heads * t {
                let (head, i) = (row / t, row % t);
                let at = |m: &[bf16], j: usize, c: usize| m[(head * t + j) * d + c].to_f64();
                let keys = if causal == 1 { i + 1 } else { t };
                let dot = |j| (0..d).map(|c| at(&q, i, c) * at(&k, j, c)).sum::<f64>() * 0.125;
                let scores: Vec<f64> = (0..keys).map(dot).collect();
                let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                want_lse.push(sum.ln());
                want.extend((0..d).map(|c| {
                    (0..keys)
                        .map(|j| scores[j].exp() / sum * at(&v, j, c))
                        .sum::<f64>()
                }));
            }
            self.report.error(
                &format!("flash_fwd causal={causal}"),
                max_error(to_f64(&out), want),
                1e-2,
            );
            self.report.error(
                "flash_fwd log-sum-exp",
                max_error(to_f64(&lse), want_lse),
                1e-3,
            );
        }
        Ok(())
    }

    fn rope(&mut self) -> Result {
        let (t, width) = (300usize, 64usize);
        let half = width / 2;
        let x = self.random.vector(t * width);
        for base in [10000f32, 1e-9] {
            let mut dx = self.stream.clone_htod(&x)?;
            let kernel = self.module.load_function("rope")?;
            let (ti, wi) = (t as i32, width as i32);
            let mut launch = self.stream.launch_builder(&kernel);
            launch.arg(&mut dx).arg(&ti).arg(&wi).arg(&base);
            unsafe {
                launch.launch(grid(
                    ((t * half).div_ceil(256) as u32, 1, 1),
                    (256, 1, 1),
                    0,
                ))?
            };
            let y = self.stream.clone_dtoh(&dx)?;
            let mut worst = 0f64;
            for (i, d) in (0..t).flat_map(|i| (0..half).map(move |d| (i, d))) {
                let angle = f64::from(i as f32 * base.powf(-2.0 * d as f32 / width as f32));
                let (sin, cos) = angle.sin_cos();
                let (a, b) = (
                    f64::from(x[i * width + d]),
                    f64::from(x[i * width + d + half]),
                );
                let error = (a * cos - b * sin - f64::from(y[i * width + d])).abs();
                // The angle itself is rounded to f32.
                worst = worst.max(error / (angle * 1e-6).max(1.0));
            }
            self.report
                .error(&format!("rope base={base:e}"), worst, 2e-4);
        }
        Ok(())
    }

    fn gelu(&mut self) -> Result {
        let n = 5000;
        let x: Vec<f32> = self.random.vector(n).iter().map(|v| 3.0 * v).collect();
        let dx = self.stream.clone_htod(&x)?;
        let mut dy = unsafe { self.stream.alloc::<f32>(n)? };
        let kernel = self.module.load_function("gelu")?;
        let ni = n as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut dy).arg(&ni);
        unsafe { launch.launch(grid((n.div_ceil(256) as u32, 1, 1), (256, 1, 1), 0))? };
        let y = self.stream.clone_dtoh(&dy)?;
        // The two forms differ by less than the tolerance.
        let want =
            to_f64(&x).map(|v| 0.5 * v * (1.0 + (0.79788456 * (v + 0.044715 * v * v * v)).tanh()));
        self.report.error("gelu", max_error(to_f64(&y), want), 1e-3);
        Ok(())
    }

    fn cross_entropy(&mut self) -> Result {
        let (rows, columns) = (50, 1003);
        let z: Vec<f32> = self
            .random
            .vector(rows * columns)
            .iter()
            .map(|v| 3.0 * v)
            .collect();
        let target: Vec<i32> = (0..rows as i32).map(|i| i * 7 % columns as i32).collect();
        let (dz, dt) = (
            self.stream.clone_htod(&z)?,
            self.stream.clone_htod(&target)?,
        );
        let mut loss = self.stream.alloc_zeros::<f32>(1)?;
        let mut positive = self.stream.alloc_zeros::<i32>(1)?;
        let kernel = self.module.load_function("cross_entropy")?;
        let ci = columns as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch
            .arg(&dz)
            .arg(&dt)
            .arg(&mut loss)
            .arg(&mut positive)
            .arg(&ci);
        unsafe { launch.launch(grid((rows as u32, 1, 1), (32, 1, 1), 0))? };
        let loss = f64::from(self.stream.clone_dtoh(&loss)?[0]);
        let positive = self.stream.clone_dtoh(&positive)?[0];
        let rows = z.chunks(columns).zip(&target);
        let want: f64 = rows
            .map(|(row, t)| {
                to_f64(row).map(f64::exp).sum::<f64>().ln() - f64::from(row[*t as usize])
            })
            .sum();
        self.report
            .error("cross_entropy", (loss - want).abs() / want, 1e-5);
        let most = z
            .chunks(columns)
            .map(|row| row.iter().filter(|v| **v > 0.0).count())
            .max();
        self.report
            .check("cross_entropy ballot", most == Some(positive as usize));
        Ok(())
    }

    fn half2_axpy(&mut self) -> Result {
        let n = 1000;
        let mut make = || -> Vec<f16> {
            self.random
                .vector(2 * n)
                .iter()
                .map(|v| f16::from_f32(*v))
                .collect()
        };
        let (x, y) = (make(), make());
        let dx = self.stream.clone_htod(&x)?;
        let mut dy = self.stream.clone_htod(&y)?;
        let kernel = self.module.load_function("half2_axpy")?;
        let (a, ni) = (0.3f32, n as i32);
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut dy).arg(&a).arg(&ni);
        unsafe { launch.launch(grid((8, 1, 1), (128, 1, 1), 0))? };
        let got = self.stream.clone_dtoh(&dy)?;
        let a = f16::from_f32(a).to_f64();
        let want = x
            .iter()
            .zip(&y)
            .map(|(x, y)| f16::from_f64(a * x.to_f64() + y.to_f64()).to_f64());
        self.report.error(
            "half2_axpy",
            max_error(got.iter().map(|v| v.to_f64()), want),
            0.0,
        );
        Ok(())
    }

    fn histogram(&mut self) -> Result {
        let n = 3000;
        let x: Vec<i32> = (0..n).map(|i| i * i % 37).collect();
        let dx = self.stream.clone_htod(&x)?;
        let mut bins = self.stream.alloc_zeros::<i32>(16)?;
        let kernel = self.module.load_function("histogram_cas")?;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&mut bins).arg(&n);
        unsafe { launch.launch(grid(((n as u32).div_ceil(128), 1, 1), (128, 1, 1), 0))? };
        let mut want = vec![0; 16];
        x.iter().for_each(|v| want[(v & 15) as usize] += 1);
        let same = self.stream.clone_dtoh(&bins)? == want;
        self.report.check("histogram_cas", same);
        Ok(())
    }

    fn calls(&mut self) -> Result {
        let n = 100;
        let x = self.random.vector(n);
        let c = [1.0f32, -2.0, 0.5, 3.0];
        let (dx, dc) = (self.stream.clone_htod(&x)?, self.stream.clone_htod(&c)?);
        let mut dy = unsafe { self.stream.alloc::<f32>(n)? };
        let kernel = self.module.load_function("calls")?;
        let ni = n as i32;
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(&dx).arg(&dc).arg(&mut dy).arg(&ni);
        unsafe { launch.launch(grid((1, 1, 1), (128, 1, 1), 0))? };
        let y = self.stream.clone_dtoh(&dy)?;
        let horner = |x: f64, terms: usize| to_f64(&c[..terms]).fold(0.0, |s, c| s * x + c);
        let want = to_f64(&x).enumerate().map(|(i, x)| {
            let v = horner(x, 4);
            let v = if i & 1 == 1 { v + horner(v, 2) } else { v };
            v + 2.0 * (i % 5) as f64
        });
        self.report
            .error("calls", max_error(to_f64(&y), want), 1e-5);
        Ok(())
    }
}

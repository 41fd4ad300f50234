//! `ringstep bench matmul`.

use std::time::Instant;

use serde::Serialize;

use super::{MatmulArguments, median};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::backend::{Accumulate, BackendError, DeviceChoice, Form, Matmul, MatmulShape};
use crate::cli::table::{Align, Table};
use crate::cli::{Failure, show};

/// Measurements of each product, of which the median counts.
const ROUNDS: usize = 7;

/// Rows of a transformer's activations: tokens of a step on one device.
const TOKENS: usize = 4096;

/// Extents of square products.
const SQUARES: [usize; 3] = [1024, 2048, 4096];

/// What a processor gets of `TOKENS` and `SQUARES`.
const CPU_TOKENS: usize = 256;
const CPU_SQUARE: usize = 1024;

/// Measures the products of training on the device that was asked for.
pub(super) fn run(arguments: &MatmulArguments) -> Result<(), Failure> {
    let report = match arguments.device.resolve() {
        DeviceChoice::Cuda(number) => {
            let mut cuda = Cuda::new(number.unwrap_or(0))?;
            let name = format!("GPU {}: {}", cuda.ordinal(), cuda.name());
            let mut products = training_products();
            products.extend(transformer_products(TOKENS));
            products.extend(SQUARES.map(square));
            measure(&mut cuda, Cuda::multiply_add, name, products, arguments)?
        }
        _ => {
            let mut cpu = Cpu::new();
            let name = format!("CPU, one thread, {}", cpu.instructions().name());
            let mut products = training_products();
            products.extend(transformer_products(CPU_TOKENS));
            products.push(square(CPU_SQUARE));
            measure(&mut cpu, Cpu::multiply_add, name, products, arguments)?
        }
    };
    match arguments.json {
        true => show(serde_json::to_string_pretty(&report)? + "\n"),
        false => show(report.table()),
    }
}

/// Layers' products in training, by name: forward, the weights' gradient and, where there is one,
/// the inputs' gradient.
pub fn training_products() -> Vec<(String, MatmulShape)> {
    // Rows (samples, or output pixels), inputs of a row, outputs, whether its inputs have gradients.
    let layers = [
        ("mlp 1", 64, 784, 512, false),
        ("mlp 2", 64, 512, 512, true),
        ("mlp 3", 64, 512, 10, true),
        ("cnn conv 1", 64 * 26 * 26, 9, 32, false),
        ("cnn conv 2", 64 * 24 * 24, 288, 64, true),
        ("cnn dense 1", 64, 9216, 128, true),
        ("cnn dense 2", 64, 128, 10, true),
        ("digits conv", 32 * 6 * 6, 9, 32, false),
        ("digits dense 1", 32, 288, 128, true),
        ("digits dense 2", 32, 128, 10, true),
    ];
    layers.into_iter().flat_map(layer).collect()
}

/// The same of a block of GPT-2's smallest model, width 768, for so many tokens.
fn transformer_products(tokens: usize) -> Vec<(String, MatmulShape)> {
    let layers = [
        ("gpt attention", tokens, 768, 3 * 768, true),
        ("gpt projection", tokens, 768, 768, true),
        ("gpt up", tokens, 768, 4 * 768, true),
        ("gpt down", tokens, 4 * 768, 768, true),
    ];
    layers.into_iter().flat_map(layer).collect()
}

fn layer(
    (name, rows, inputs, outputs, has_gradient): (&str, usize, usize, usize, bool),
) -> Vec<(String, MatmulShape)> {
    let mut products = vec![
        (
            format!("{name} forward"),
            MatmulShape::nn(rows, outputs, inputs),
        ),
        (
            format!("{name} weights"),
            MatmulShape::tn(inputs, outputs, rows),
        ),
    ];
    if has_gradient {
        products.push((
            format!("{name} inputs"),
            MatmulShape::nt(rows, inputs, outputs),
        ));
    }
    products
}

fn square(extent: usize) -> (String, MatmulShape) {
    ("square".to_owned(), MatmulShape::nn(extent, extent, extent))
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    device: String,
    /// GFLOP/s of multiply-adds that touch no memory.
    peak: f64,
    products: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    product: String,
    form: String,
    m: usize,
    n: usize,
    k: usize,
    /// Of one product, the median.
    seconds: f64,
    gigaflops: f64,
    /// Part of the peak.
    share: f64,
}

impl Report {
    fn table(&self) -> String {
        let mut table = Table::new([
            ("product", Align::Left),
            ("form", Align::Left),
            ("m", Align::Right),
            ("n", Align::Right),
            ("k", Align::Right),
            ("us", Align::Right),
            ("GFLOP/s", Align::Right),
            ("of peak", Align::Right),
        ]);
        for measured in &self.products {
            table.row([
                measured.product.clone(),
                measured.form.clone(),
                measured.m.to_string(),
                measured.n.to_string(),
                measured.k.to_string(),
                format!("{:.1}", measured.seconds * 1e6),
                format!("{:.1}", measured.gigaflops),
                format!("{:.0} %", measured.share * 100.0),
            ]);
        }
        let Self { device, peak, .. } = self;
        format!("{device}; peak of f32 multiply-adds as measured: {peak:.0} GFLOP/s\n\n{table}")
    }
}

fn measure<B: Matmul>(
    backend: &mut B,
    multiply_add: impl Fn(&mut B, usize) -> f64,
    device: String,
    products: Vec<(String, MatmulShape)>,
    arguments: &MatmulArguments,
) -> Result<Report, BackendError> {
    let divide = arguments.divide as usize;
    let rounds = (16_384 / (divide * divide)).max(1);
    let operations = multiply_add(backend, rounds);
    let mut call = |backend: &mut B| {
        multiply_add(backend, rounds);
    };
    let peak = operations / time(backend, arguments.seconds, &mut call)? / 1e9;
    let mut measured = Vec::new();
    for (product, shape) in products {
        let divided = |extent: usize| extent.div_ceil(divide);
        let MatmulShape { form, m, n, k } = shape;
        let shape = MatmulShape {
            form,
            m: divided(m),
            n: divided(n),
            k: divided(k),
        };
        let seconds = product_seconds(backend, shape, arguments.seconds)?;
        let MatmulShape { m, n, k, .. } = shape;
        let gigaflops = 2.0 * (m * n * k) as f64 / seconds / 1e9;
        measured.push(Measured {
            product,
            form: format!("{form:?}"),
            m,
            n,
            k,
            seconds,
            gigaflops,
            share: gigaflops / peak,
        });
    }
    Ok(Report {
        device,
        peak,
        products: measured,
    })
}

/// Seconds of a product, once its sums are seen to be right.
fn product_seconds<B: Matmul>(
    backend: &mut B,
    shape: MatmulShape,
    least: f64,
) -> Result<f64, BackendError> {
    let MatmulShape { form, m, n, k } = shape;
    let values = |len: usize, step: f32| -> Vec<f32> {
        (0..len).map(|index| (index as f32 * step).sin()).collect()
    };
    let (host_a, host_b) = (values(m * k, 0.7), values(k * n, 1.3));
    let mut a = backend.allocate("a factor", m * k)?;
    let mut b = backend.allocate("a factor", k * n)?;
    let mut c = backend.allocate("a product", m * n)?;
    backend.upload(&host_a, B::view_mut(&mut a));
    backend.upload(&host_b, B::view_mut(&mut b));
    let mut multiply = |backend: &mut B| {
        let c = B::view_mut(&mut c);
        backend.matmul(shape, B::view(&a), B::view(&b), c, Accumulate::Set);
    };
    let seconds = time(backend, least, &mut multiply)?;
    let mut last = [0.0];
    backend.download(B::slice(B::view(&c), m * n - 1..m * n), &mut last);
    let term = |index: usize| {
        let x = match form {
            Form::TN => host_a[index * m + m - 1],
            Form::NN | Form::NT => host_a[(m - 1) * k + index],
        };
        let y = match form {
            Form::NT => host_b[(n - 1) * k + index],
            Form::NN | Form::TN => host_b[index * n + n - 1],
        };
        f64::from(x) * f64::from(y)
    };
    let expected: f64 = (0..k).map(term).sum();
    let size: f64 = (0..k).map(|index| term(index).abs()).sum();
    // Written so that a NaN is wrong.
    let right = (f64::from(last[0]) - expected).abs() <= 1e-2 * size;
    assert!(
        right,
        "{shape:?}: the last sum is {}, not {expected}",
        last[0]
    );
    Ok(seconds)
}

/// Seconds of a call that is queued: the median over rounds of as many as take long enough.
fn time<B: Matmul>(
    backend: &mut B,
    least: f64,
    call: &mut impl FnMut(&mut B),
) -> Result<f64, BackendError> {
    let mut run = |calls: usize| {
        backend.synchronize()?;
        let start = Instant::now();
        (0..calls).for_each(|_| call(backend));
        backend.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    // The first compiles the kernel.
    run(1)?;
    let mut calls = 1;
    let mut last = run(calls)?;
    while last < least / ROUNDS as f64 {
        let wanted = least / ROUNDS as f64 / last.max(1e-9) * calls as f64 * 1.1;
        calls = (wanted as usize).clamp(calls + 1, calls * 100);
        last = run(calls)?;
    }
    let rounds = (0..ROUNDS).map(|_| run(calls));
    let rounds: Result<Vec<f64>, BackendError> = rounds.collect();
    Ok(median(rounds?) / calls as f64)
}

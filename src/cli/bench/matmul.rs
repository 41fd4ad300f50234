//! `ringstep bench matmul`.

mod report;

use std::time::Instant;

use self::report::{Measured, Report, Rival};
use super::{MatmulArguments, median};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{self, Cuda};
use crate::backend::{
    Accumulate, Activation, BackendError, DeviceChoice, Form, Matmul, MatmulChoice, MatmulShape,
    Memory, Precision,
};
use crate::cli::{Failure, show};

/// Measurements of each product, of which the median counts.
const ROUNDS: usize = 7;

/// Rows of a transformer's activations: tokens of a step on one device.
const TOKENS: usize = 4096;

/// Extents of square products; the last for tensor cores only.
const SQUARES: [usize; 4] = [1024, 2048, 4096, 8192];

/// What a processor gets of `TOKENS` and `SQUARES`.
const CPU_TOKENS: usize = 256;
const CPU_SQUARE: usize = 1024;

/// Measures the products of training on the device that was asked for.
pub(super) fn run(arguments: &MatmulArguments) -> Result<(), Failure> {
    let precision = arguments.precision;
    let report = match arguments.device.resolve() {
        DeviceChoice::Cuda(number) => {
            let mut cuda = Cuda::open(number.unwrap_or(0), precision)?;
            let found = cuda::cublaslt().map(ToString::to_string);
            let library = match &found {
                Ok(_) => Some(cuda.clone().with_matmul(MatmulChoice::Cublaslt)?),
                Err(_) => None,
            };
            let mut rivals = library.map_or(Vec::new(), |library| rivals(library, precision));
            let squares = match precision {
                Precision::F32 => &SQUARES[..3],
                _ => &SQUARES,
            };
            let mut products = products(TOKENS);
            products.extend(squares.iter().map(|&extent| square(extent)));
            let name = format!("GPU {}: {}", cuda.ordinal(), cuda.name());
            let peak = peak(&mut cuda, Cuda::multiply_add, arguments)?;
            Report {
                device: name,
                precision,
                units: cuda.units().to_string(),
                peak,
                library: Some(found.unwrap_or_else(|problem| problem)),
                products: measure(&mut cuda, &mut rivals, peak, products, arguments)?,
            }
        }
        _ => {
            let mut cpu = Cpu::new().with_precision(precision);
            let name = format!("CPU, one thread, {}", cpu.instructions().name());
            let mut products = products(CPU_TOKENS);
            products.push(square(CPU_SQUARE));
            let peak = peak(&mut cpu, Cpu::multiply_add, arguments)?;
            Report {
                device: name,
                precision,
                units: "f32 multiply-adds".to_owned(),
                peak,
                library: None,
                products: measure(&mut cpu, &mut [], peak, products, arguments)?,
            }
        }
    };
    match arguments.json {
        true => show(serde_json::to_string_pretty(&report)? + "\n"),
        false => show(report.table()),
    }
}

/// What own kernels are compared with: its name, and its seconds for a product, of which it takes at least
/// as many as it is told; `None` where it does not compute it.
type Contender = (
    String,
    Box<dyn FnMut(&Operands, f64) -> Result<Option<f64>, BackendError>>,
);

/// cuBLASLt as training calls it, with the `f32` that layers store, and, where the precision has 16 bits, with
/// operands that have had these for long: what it does in programs that store nothing wider.
fn rivals(library: Cuda, precision: Precision) -> Vec<Contender> {
    let (mut of_f32, mut of_halves) = (library.clone(), library);
    let mut rivals: Vec<Contender> = vec![(
        "cuBLASLt".to_owned(),
        Box::new(move |operands, least| operands.seconds(&mut of_f32, least).map(Some)),
    )];
    if matches!(precision, Precision::Bf16 | Precision::F16) {
        rivals.push((
            format!("cuBLASLt of {precision}"),
            Box::new(move |operands, least| operands.seconds_of_halves(&mut of_halves, least)),
        ));
    }
    rivals
}

/// What is multiplied, and what becomes of the sums: plain, or with a bias and a function.
struct Product {
    name: String,
    shape: MatmulShape,
    epilogue: Option<Activation>,
}

/// Those of training, those of a transformer with so many tokens, and some of both with their epilogues.
fn products(tokens: usize) -> Vec<Product> {
    let plain = |(name, shape): (String, MatmulShape)| Product {
        name,
        shape,
        epilogue: None,
    };
    let with_epilogue = |(name, shape, epilogue): (&str, _, _)| Product {
        name: name.to_owned(),
        shape,
        epilogue: Some(epilogue),
    };
    let (relu, gelu) = (Activation::Relu, Activation::GeluTanh);
    let epilogues = [
        ("mlp 1 + bias, relu", MatmulShape::nn(64, 512, 784), relu),
        ("mlp 2 + bias, relu", MatmulShape::nn(64, 512, 512), relu),
        (
            "cnn dense 1 + bias, relu",
            MatmulShape::nn(64, 128, 9216),
            relu,
        ),
        (
            "gpt up + bias, relu",
            MatmulShape::nn(tokens, 3072, 768),
            relu,
        ),
        (
            "gpt up + bias, gelu",
            MatmulShape::nn(tokens, 3072, 768),
            gelu,
        ),
    ];
    let all = training_products()
        .into_iter()
        .chain(transformer_products(tokens));
    let all = all.map(plain);
    all.chain(epilogues.map(with_epilogue)).collect()
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

fn square(extent: usize) -> Product {
    Product {
        name: "square".to_owned(),
        shape: MatmulShape::nn(extent, extent, extent),
        epilogue: None,
    }
}

/// GFLOP/s of the backend's multiply-adds.
fn peak<B: Matmul>(
    backend: &mut B,
    multiply_add: impl Fn(&mut B, usize) -> f64,
    arguments: &MatmulArguments,
) -> Result<f64, BackendError> {
    let divide = arguments.divide as usize;
    let rounds = (16_384 / (divide * divide)).max(1);
    let operations = multiply_add(backend, rounds);
    let mut call = |backend: &mut B| {
        multiply_add(backend, rounds);
    };
    Ok(operations / time(backend, arguments.seconds, &mut call)? / 1e9)
}

/// Measures every product by own kernels and by their rivals.
fn measure<B: Matmul>(
    own: &mut B,
    rivals: &mut [Contender],
    peak: f64,
    products: Vec<Product>,
    arguments: &MatmulArguments,
) -> Result<Vec<Measured>, BackendError> {
    let divided = |extent: usize| extent.div_ceil(arguments.divide as usize);
    let mut rows = Vec::new();
    for mut product in products {
        let MatmulShape { form, m, n, k } = product.shape;
        let [m, n, k] = [m, n, k].map(divided);
        product.shape = MatmulShape { form, m, n, k };
        let operands = Operands::of(&product);
        let seconds = operands.seconds(own, arguments.seconds)?;
        let gigaflops = |seconds: f64| 2.0 * (m * n * k) as f64 / seconds / 1e9;
        let mut measured = Vec::new();
        for (name, run) in &mut *rivals {
            let its = run(&operands, arguments.seconds)?;
            measured.extend(its.map(|its| Rival {
                name: name.clone(),
                seconds: its,
                gigaflops: gigaflops(its),
                share: gigaflops(its) / peak,
                ratio: its / seconds,
            }));
        }
        rows.push(Measured {
            form: format!("{form:?}"),
            m,
            n,
            k,
            seconds,
            gigaflops: gigaflops(seconds),
            share: gigaflops(seconds) / peak,
            rivals: measured,
            product: product.name,
        });
    }
    Ok(rows)
}

/// A product and numbers for it.
struct Operands<'a> {
    product: &'a Product,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// They on a device, and what becomes of them.
struct Arrays<B: Matmul> {
    a: B::Buffer<f32>,
    b: B::Buffer<f32>,
    bias: B::Buffer<f32>,
    c: B::Buffer<f32>,
}

/// Each element of the bias.
const BIAS: f32 = 0.25;

impl<'a> Operands<'a> {
    fn of(product: &'a Product) -> Self {
        let MatmulShape { m, n, k, .. } = product.shape;
        let values = |len: usize, step: f32| -> Vec<f32> {
            (0..len).map(|index| (index as f32 * step).sin()).collect()
        };
        let (a, b) = (values(m * k, 0.7), values(k * n, 1.3));
        Self { product, a, b }
    }

    /// Seconds of the product, once its last element is seen to be right.
    fn seconds<B: Matmul>(&self, backend: &mut B, least: f64) -> Result<f64, BackendError> {
        let Product {
            shape, epilogue, ..
        } = *self.product;
        let Arrays { a, b, bias, mut c } = self.arrays(backend)?;
        let mut multiply = |backend: &mut B| {
            let (a, b, c) = (B::view(&a), B::view(&b), B::view_mut(&mut c));
            match epilogue {
                None => backend.matmul(shape, a, b, c, Accumulate::Set),
                Some(activation) => {
                    let bias = Some(B::view(&bias));
                    backend.matmul_bias_activation(shape, a, b, bias, activation, c);
                }
            }
        };
        let seconds = time(backend, least, &mut multiply)?;
        self.check(backend, &c);
        Ok(seconds)
    }

    /// The same by cuBLASLt of operands that are rounded before the time is taken; `None` where it has no
    /// way to do it.
    fn seconds_of_halves(&self, cuda: &mut Cuda, least: f64) -> Result<Option<f64>, BackendError> {
        let Product {
            shape, epilogue, ..
        } = *self.product;
        let Arrays { a, b, bias, mut c } = self.arrays(cuda)?;
        let halves = cuda.halves(shape, Cuda::view(&a), Cuda::view(&b))?;
        let mut is_computed = true;
        let mut multiply = |cuda: &mut Cuda| {
            let bias = epilogue.map(|_| Cuda::view(&bias));
            let activation = epilogue.unwrap_or(Activation::Linear);
            is_computed &= cuda.multiply_halves(&halves, bias, activation, Cuda::view_mut(&mut c));
        };
        let seconds = time(cuda, least, &mut multiply)?;
        if !is_computed {
            return Ok(None);
        }
        self.check(cuda, &c);
        Ok(Some(seconds))
    }

    fn arrays<B: Matmul>(&self, backend: &mut B) -> Result<Arrays<B>, BackendError> {
        let MatmulShape { m, n, .. } = self.product.shape;
        let mut a = backend.allocate("a factor", self.a.len())?;
        let mut b = backend.allocate("a factor", self.b.len())?;
        let mut bias = backend.allocate("a bias", n)?;
        let c = backend.allocate("a product", m * n)?;
        backend.upload(&self.a, B::view_mut(&mut a));
        backend.upload(&self.b, B::view_mut(&mut b));
        backend.fill(B::view_mut(&mut bias), BIAS);
        Ok(Arrays { a, b, bias, c })
    }

    /// Stops where the last element of C is wrong.
    fn check<B: Matmul>(&self, backend: &mut B, c: &B::Buffer<f32>) {
        let MatmulShape { form, m, n, k } = self.product.shape;
        let mut last = [0.0];
        backend.download(B::slice(B::view(c), m * n - 1..m * n), &mut last);
        let [last] = last;
        let term = |index: usize| {
            let x = match form {
                Form::TN => self.a[index * m + m - 1],
                Form::NN | Form::NT => self.a[(m - 1) * k + index],
            };
            let y = match form {
                Form::NT => self.b[(n - 1) * k + index],
                Form::NN | Form::TN => self.b[index * n + n - 1],
            };
            f64::from(x) * f64::from(y)
        };
        let sum: f64 = (0..k).map(term).sum();
        let biased = sum + f64::from(BIAS);
        let expected = match self.product.epilogue {
            None => sum,
            Some(Activation::Relu) => biased.max(0.0),
            Some(_) => {
                let inner = (2.0 / std::f64::consts::PI).sqrt();
                0.5 * biased * (1.0 + (inner * (biased + 0.044_715 * biased.powi(3))).tanh())
            }
        };
        let size: f64 = (0..k).map(|index| term(index).abs()).sum();
        let size = size + self.product.epilogue.map_or(0.0, |_| f64::from(BIAS).abs());
        // Written so that a NaN is wrong.
        let right = (f64::from(last) - expected).abs() <= 1e-2 * size;
        assert!(
            right,
            "{} {:?}: the last element is {last}, not {expected}",
            self.product.name, self.product.shape
        );
    }
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

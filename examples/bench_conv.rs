//! Times every kernel of a small convolutional network at batch 64, one line each: its name, a tab
//! and the median and the least processor time in milliseconds. `scripts/bench/conv.sh` compares them
//! with PyTorch's. Time of the thread, not of the clock on the wall, so that what else runs on the
//! machine disturbs less.
//!
//! The network: 28 x 28 images, 32 and then 64 filters of 3 x 3 with relu, 2 x 2 maximum, dense 128
//! and 10. The first argument is the time to spend, in seconds.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::{Duration, Instant};

use ringstep::backend::cpu::Cpu;
use ringstep::backend::{
    Accumulate, Activate, Activation, ConvGeometry, Convolution, Convolve, Matmul, MatmulShape,
    Padding, Pool, PoolGeometry, Pooling,
};

const BATCH: usize = 64;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let until = Instant::now() + Duration::from_secs_f64(seconds.unwrap_or(3.0));
    let mut cpu = Cpu::new();
    let mut network = Network::new(&cpu);
    let mut clock = Clock::default();
    for step in 0.. {
        clock.next = 0;
        network.step(&mut cpu, &mut clock);
        if step >= 5 && Instant::now() >= until {
            break;
        }
    }
    for (name, times) in &mut clock.times {
        times.sort_by(f64::total_cmp);
        println!("{name}\t{:.4}\t{:.4}", times[times.len() / 2], times[0]);
    }
}

/// The times of each kernel, in the order of a step.
#[derive(Default)]
struct Clock {
    times: Vec<(String, Vec<f64>)>,
    next: usize,
}

impl Clock {
    fn time(&mut self, name: impl Into<String>, kernel: impl FnOnce()) {
        let start = thread_milliseconds();
        kernel();
        let time = thread_milliseconds() - start;
        if self.next == self.times.len() {
            self.times.push((name.into(), Vec::new()));
        }
        self.times[self.next].1.push(time);
        self.next += 1;
    }
}

/// Processor time of this thread.
fn thread_milliseconds() -> f64 {
    // SAFETY: zeros are a valid time.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes the time it is given.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "no clock of the thread's processor time");
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

struct Network {
    convolutions: [ConvGeometry; 2],
    pooling: PoolGeometry,
    /// The input, then what each layer gives.
    values: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    kernels: Vec<Vec<f32>>,
    biases: Vec<Vec<f32>>,
    workspace: Vec<f32>,
}

/// Numbers in -1..1, about as many negative as positive.
fn numbers(len: usize) -> Vec<f32> {
    let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32;
    (0..len)
        .map(|i| number(i + 1) / (1 << 23) as f32 - 1.0)
        .collect()
}

impl Network {
    fn new(cpu: &Cpu) -> Self {
        let convolution = |image, filters| {
            let padding = Padding::Valid;
            ConvGeometry::new(BATCH, image, filters, [3, 3], [1, 1], padding).expect("it fits")
        };
        let convolutions = [convolution([28, 28, 1], 32), convolution([26, 26, 32], 64)];
        let pooling = PoolGeometry::new(BATCH, [24, 24, 64], [2, 2], [2, 2], Padding::Valid);
        let widths = [28 * 28, 26 * 26 * 32, 24 * 24 * 64, 12 * 12 * 64, 128, 10];
        let values: Vec<_> = widths.iter().map(|width| numbers(BATCH * width)).collect();
        let weights = [(9, 32), (9 * 32, 64), (12 * 12 * 64, 128), (128, 10)];
        let workspaces = convolutions.map(|g| cpu.convolution_workspace(&g));
        Self {
            convolutions,
            pooling: pooling.expect("it fits"),
            gradients: values.clone(),
            values,
            kernels: weights
                .map(|(inputs, outputs)| numbers(inputs * outputs))
                .into(),
            biases: weights.map(|(_, outputs)| numbers(outputs)).into(),
            workspace: vec![0.0; workspaces[0].max(workspaces[1])],
        }
    }

    /// Forward and backward. Gradients of weights overwrite the weights: only the time matters.
    fn step(&mut self, cpu: &mut Cpu, clock: &mut Clock) {
        let relu = Activation::Relu;
        for i in 0..2 {
            let (x, y) = self.values.split_at_mut(i + 1);
            let tensors = Convolution {
                x: &x[i][..],
                kernel: &self.kernels[i][..],
                bias: Some(&self.biases[i][..]),
            };
            clock.time(format!("convolution {} forward", i + 1), || {
                let workspace = &mut self.workspace;
                cpu.convolve(&self.convolutions[i], relu, tensors, &mut y[0], workspace);
            });
        }
        let (x, y) = self.values.split_at_mut(3);
        clock.time("pooling forward", || {
            cpu.pool(Pooling::Max, &self.pooling, &x[2], &mut y[0]);
        });
        for i in 2..4 {
            let (x, y) = self.values.split_at_mut(i + 2);
            let (x, y) = (&x[i + 1], &mut y[0]);
            let shape = MatmulShape::nn(BATCH, y.len() / BATCH, x.len() / BATCH);
            let (kernel, bias) = (&self.kernels[i], Some(&self.biases[i][..]));
            clock.time(format!("dense {} forward", i - 1), || {
                cpu.matmul_bias_activation(shape, x, kernel, bias, relu, y);
            });
        }
        for i in [3, 2] {
            self.finish_gradient(cpu, clock, &format!("dense {}", i - 1), i, i + 2);
            let (dx, dy) = self.gradients.split_at_mut(i + 2);
            let (x, dx, dy) = (&self.values[i + 1], &mut dx[i + 1], &dy[0]);
            let (inputs, outputs) = (x.len() / BATCH, dy.len() / BATCH);
            let kernel = &mut self.kernels[i];
            clock.time(format!("dense {} weights", i - 1), || {
                let shape = MatmulShape::tn(inputs, outputs, BATCH);
                cpu.matmul(shape, x, dy, kernel, Accumulate::Set);
            });
            clock.time(format!("dense {} input", i - 1), || {
                let shape = MatmulShape::nt(BATCH, inputs, outputs);
                cpu.matmul(shape, dy, kernel, dx, Accumulate::Set);
            });
        }
        let (dx, dy) = self.gradients.split_at_mut(3);
        let (x, y) = (&self.values[2], &self.values[3]);
        clock.time("pooling backward", || {
            cpu.pool_backward(Pooling::Max, &self.pooling, x, y, &mut dy[0], &mut dx[2]);
        });
        for i in [1, 0] {
            self.finish_gradient(cpu, clock, &format!("convolution {}", i + 1), i, i + 1);
            let (dx, dy) = self.gradients.split_at_mut(i + 1);
            let (g, kernel) = (&self.convolutions[i], &mut self.kernels[i]);
            let (x, dx, dy) = (&self.values[i], &mut dx[i], &dy[0]);
            let workspace = &mut self.workspace;
            clock.time(format!("convolution {} weights", i + 1), || {
                cpu.convolve_backward_kernel(g, x, dy, kernel, Accumulate::Set, workspace);
            });
            if i > 0 {
                clock.time(format!("convolution {} input", i + 1), || {
                    cpu.convolve_backward_input(g, kernel, dy, dx, workspace);
                });
            }
        }
    }

    /// The relu's gradient, and the bias's.
    fn finish_gradient(
        &mut self,
        cpu: &mut Cpu,
        clock: &mut Clock,
        name: &str,
        layer: usize,
        value: usize,
    ) {
        let (y, dy) = (&self.values[value], &mut self.gradients[value]);
        clock.time(format!("{name} relu"), || {
            cpu.activate_backward(Activation::Relu, y, dy);
        });
        let bias = &mut self.biases[layer];
        clock.time(format!("{name} bias"), || {
            cpu.sum_rows(bias.len(), dy, bias, Accumulate::Set);
        });
    }
}

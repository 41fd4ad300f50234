//! Optimizers over arenas of many tensors: the CPU's bits, in as many launches as over few.

use std::ops::Range;

use ringstep::backend::{Backend, BackendError, Memory};
use ringstep::comm::CommError;
use ringstep::optim::{
    AdamW, BlockExchange, Lamb, Lars, OptimizerSpec, RmsProp, Segment, Sgd, Step, segments,
};
use ringstep::params::{Group, Layout, Zeros};

use crate::twins::{alone, assert_same_bits, cuda, download, is_emulated, normals, twins, upload};

/// Of the ranks whose blocks are not here, nobody.
struct Others {
    /// Whether they are asked.
    are_there: bool,
}

impl BlockExchange for Others {
    fn is_shared(&self) -> bool {
        self.are_there
    }

    fn complete(&mut self, sums: &mut [f64]) -> Result<(), CommError> {
        assert!(self.are_there, "sums of one rank have come to the host");
        // Others have as much in each block that is not here.
        for sum in sums.iter_mut().filter(|sum| **sum == 0.0) {
            *sum = 1.0;
        }
        Ok(())
    }
}

/// Weights that decay, each with a bias that does not; the first has blocks for every lane of their sum.
fn layout(layers: usize) -> Layout {
    let mut layout = Layout::default();
    for layer in 0..layers {
        let len = if layer == 0 { 300 * 64 + 7 } else { 130 };
        layout.push(format!("{layer}/w"), &[len], Zeros {}.into(), Group::Decay);
        layout.push(format!("{layer}/b"), &[70], Zeros {}.into(), Group::NoDecay);
    }
    layout
}

/// Every rule that treats tensors apart, and some of the others.
fn specs() -> [OptimizerSpec; 5] {
    [
        AdamW {
            weight_decay: 0.1,
            ..AdamW::default()
        }
        .into(),
        Sgd {
            momentum: 0.9,
            weight_decay: 0.1,
            ..Sgd::default()
        }
        .into(),
        RmsProp {
            weight_decay: 0.1,
            ..RmsProp::default()
        }
        .into(),
        Lamb {
            learning_rate: 0.1,
            weight_decay: 0.1,
            ..Lamb::default()
        }
        .into(),
        Lars {
            weight_decay: 0.1,
            trust: 0.1,
            ..Lars::default()
        }
        .into(),
    ]
}

/// An optimizer, what it steps, and the arenas.
struct Stepped<B: Backend> {
    optimizer: Box<dyn ringstep::optim::Optimizer<B>>,
    segments: Vec<Segment>,
    p: B::Buffer<f32>,
    g: B::Buffer<f32>,
}

impl<B: Backend> Stepped<B> {
    fn new(
        backend: &mut B,
        spec: &OptimizerSpec,
        layout: &Layout,
        owned: &[Range<usize>],
    ) -> Result<Self, BackendError> {
        let segments = segments(layout, owned);
        let arena = |seed: u64| {
            let mut arena = vec![0.0; layout.arena_len(1)];
            for (tensor, seed) in layout.tensors().iter().zip(seed..) {
                let range = tensor.range();
                arena[range.clone()].copy_from_slice(&normals(seed, range.len()));
            }
            arena
        };
        Ok(Self {
            optimizer: spec.build(backend, layout, &segments)?,
            p: upload(backend, &arena(1)),
            g: upload(backend, &arena(100)),
            segments,
        })
    }

    fn step(&mut self, backend: &mut B, t: u64, are_others_there: bool) {
        let step = Step {
            backend,
            t,
            rate: 0.01,
            gradient_scale: 0.5,
            gradient_limit: 1.5,
            parameters: B::view_mut(&mut self.p),
            gradients: B::view(&self.g),
            segments: &self.segments,
            exchange: &mut Others {
                are_there: are_others_there,
            },
        };
        self.optimizer.step(step).unwrap();
    }
}

/// Parameters and state behind three steps.
fn train<B: Backend>(
    backend: &mut B,
    spec: &OptimizerSpec,
    owned: Option<&[Range<usize>]>,
) -> Vec<Vec<f32>> {
    let layout = layout(3);
    let all = 0..layout.end();
    let of_all = std::slice::from_ref(&all);
    let mut stepped = Stepped::new(backend, spec, &layout, owned.unwrap_or(of_all)).unwrap();
    for t in 1..=3 {
        stepped.step(backend, t, owned.is_some());
    }
    let mut arrays = vec![download(backend, &stepped.p)];
    for index in 0..stepped.optimizer.state_names().len() {
        let state = stepped.optimizer.state(index);
        let mut array = vec![0.0; B::len(state)];
        backend.download(state, &mut array);
        arrays.push(array);
    }
    arrays
}

#[test]
fn arenas_of_many_tensors_and_shards_of_them_are_those_of_the_cpu() {
    let gpu = &mut cuda();
    for spec in &specs() {
        // One rank, and a rank of several: a part of the first tensor, and what begins within another.
        for owned in [None, Some(&[64..640, 19_264..19_584][..])] {
            let (cpu, cuda) = twins!(on gpu, train, spec, owned);
            for (cpu, cuda) in cpu.iter().zip(&cuda) {
                assert_same_bits(cpu, cuda);
            }
            assert!(cpu[0].iter().all(|x| x.is_finite()), "{spec:?}");
        }
    }
}

/// What stands around a step in the trace.
const MARK: &str = "a step of so many layers: ";

#[test]
#[ignore = "a process that another test starts"]
fn a_step_of_each_rule_alone() {
    let gpu = &mut cuda();
    for layers in [1, 6] {
        let layout = layout(layers);
        for spec in &specs() {
            let all = 0..layout.end();
            let mut stepped = Stepped::new(gpu, spec, &layout, &[all]).unwrap();
            // Compiles.
            stepped.step(gpu, 1, false);
            gpu.synchronize().unwrap();
            eprintln!("{MARK}{layers}");
            stepped.step(gpu, 2, false);
            eprintln!("{MARK}0");
            gpu.synchronize().unwrap();
        }
    }
}

#[test]
fn a_step_takes_as_many_launches_for_many_tensors_and_waits_for_nothing_by_faults() {
    let output = alone(
        "optimizers::a_step_of_each_rule_alone",
        &[("FAKE_CUDA_TRACE", "1")],
    );
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let steps = |layers: usize| -> Vec<usize> {
        let mark = format!("{MARK}{layers}\n");
        let parts = said.split(&mark).skip(1);
        let steps = parts.map(|part| part.split(MARK).next().unwrap());
        let launches = |step: &str| {
            for other in ["Synchronize", "Memcpy", "cuMemAlloc"] {
                assert!(!step.contains(other), "{other} in\n{step}");
            }
            step.matches("cuLaunchKernel ").count()
        };
        steps.map(launches).collect()
    };
    // One for the rules of elements. LAMB: averages, rates, step; LARS has block sums of two arrays.
    assert_eq!(steps(1), [1, 1, 1, 3, 4]);
    assert_eq!(steps(6), steps(1));
    assert!(is_emulated());
}

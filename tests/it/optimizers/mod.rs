//! Optimizers and clipping against TensorFlow and against double precision, and the
//! promise that cutting the arena into shards changes no bit.

mod references;
mod shards;
mod update_rules;

use std::ops::Range;

use ringstep::backend::cpu::{Buffer, Cpu};
use ringstep::backend::{Memory, Update};
use ringstep::comm::CommError;
use ringstep::optim::*;
use ringstep::params::{ALIGNMENT, Group, Layout, Zeros};

/// For one rank, which owns every block.
struct Alone;

impl BlockExchange for Alone {
    fn is_shared(&self) -> bool {
        false
    }

    fn complete(&mut self, _: &mut [f64]) -> Result<(), CommError> {
        Ok(())
    }
}

/// One rank with its own copy of everything.
struct Replica {
    backend: Cpu,
    layout: Layout,
    segments: Vec<Segment>,
    optimizer: Box<dyn Optimizer<Cpu>>,
    clip: Option<Clip<Cpu>>,
    p: Buffer<f32>,
    g: Buffer<f32>,
    steps: u64,
}

impl Replica {
    fn new(
        spec: &OptimizerSpec,
        clip: Option<ClipSpec>,
        layout: &Layout,
        owned: &[Range<usize>],
    ) -> Self {
        let mut backend = Cpu::new();
        let segments = segments(layout, owned);
        let arena = layout.arena_len(1);
        Self {
            optimizer: spec.build(&mut backend, layout, &segments).unwrap(),
            clip: clip.map(|clip| clip.build(&mut backend, layout).unwrap()),
            p: backend.allocate("p", arena).unwrap(),
            g: backend.allocate("g", arena).unwrap(),
            layout: layout.clone(),
            segments,
            backend,
            steps: 0,
        }
    }

    fn step(&mut self, rate: f64, scale: f64, exchange: &mut dyn BlockExchange) {
        let mut clipped = Clipped {
            scale,
            limit: f32::INFINITY,
            norm: None,
        };
        if let Some(clip) = &mut self.clip {
            clipped = clip
                .scale(&mut self.backend, &self.g, &self.segments, scale, exchange)
                .unwrap();
        }
        self.steps += 1;
        self.optimizer
            .step(Step {
                backend: &mut self.backend,
                t: self.steps,
                rate,
                gradient_scale: clipped.scale as f32,
                gradient_limit: clipped.limit,
                parameters: &mut self.p,
                gradients: &self.g,
                segments: &self.segments,
                exchange,
            })
            .unwrap();
    }

    fn assert_padding_is_zero(&self, what: &str) {
        let mut inside = vec![false; self.p.len()];
        let mut inside_state = vec![false; self.optimizer_state_len()];
        for segment in &self.segments {
            inside[segment.arena.clone()].fill(true);
            inside_state[segment.state.clone()].fill(true);
        }
        for tensor in self.layout.tensors() {
            inside[tensor.range()].fill(true);
        }
        let outside = |values: &[f32], inside: &[bool]| {
            let pairs = values.iter().zip(inside);
            pairs
                .filter(|(_, inside)| !**inside)
                .all(|(x, _)| *x == 0.0)
        };
        assert!(outside(&self.p, &inside), "{what}: parameters' padding");
        for index in 0..self.optimizer.state_names().len() {
            let state = self.optimizer.state(index);
            assert!(outside(state, &inside_state), "{what}: state's padding");
        }
    }

    fn optimizer_state_len(&self) -> usize {
        match self.optimizer.state_names().len() {
            0 => self.segments.last().map_or(0, |last| last.state.end),
            _ => self.optimizer.state(0).len(),
        }
    }
}

fn layout(tensors: &[(usize, Group)]) -> Layout {
    let mut layout = Layout::default();
    for (index, &(len, group)) in tensors.iter().enumerate() {
        layout.push(format!("t{index}"), &[len], Zeros {}.into(), group);
    }
    layout
}

/// Tensors of all sorts of lengths, with and without padding.
fn mixed_layout() -> Layout {
    use Group::{Decay, NoDecay};
    layout(&[
        (300, Decay),
        (70, NoDecay),
        (128, Decay),
        (64, Decay),
        (1, NoDecay),
        (3, NoDecay),
        (517, Decay),
        (10, NoDecay),
    ])
}

/// Uniform in `[-1, 1)`, a function of `index` alone.
fn noise(index: u64) -> f32 {
    let mut x = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f32 / (1u64 << 23) as f32) - 1.0
}

fn fill_tensors(layout: &Layout, arena: &mut [f32], seed: u64) {
    for i in layout.tensors().iter().flat_map(|tensor| tensor.range()) {
        arena[i] = noise(seed * 1_000_003 + i as u64);
    }
}

/// Every kind, and every way through its kernel.
fn every_optimizer() -> Vec<OptimizerSpec> {
    vec![
        Sgd::default().into(),
        Sgd {
            momentum: 0.9,
            weight_decay: 0.1,
            ..Sgd::default()
        }
        .into(),
        Sgd {
            momentum: 0.8,
            nesterov: true,
            ..Sgd::default()
        }
        .into(),
        Adam::default().into(),
        Adam {
            epsilon: 0.0,
            beta_1: 0.5,
            ..Adam::default()
        }
        .into(),
        AdamW::default().into(),
        Adagrad::default().into(),
        Adagrad {
            epsilon: 0.0,
            weight_decay: 0.1,
            ..Adagrad::default()
        }
        .into(),
        RmsProp::default().into(),
        RmsProp {
            initial_mean_square: 1.0,
            momentum: 0.9,
            ..RmsProp::default()
        }
        .into(),
        RmsProp {
            centered: true,
            epsilon: 1e-3,
            epsilon_placement: EpsilonPlacement::BesideRoot,
            ..RmsProp::default()
        }
        .into(),
        RmsProp {
            centered: true,
            epsilon: 1e-3,
            momentum: 0.5,
            ..RmsProp::default()
        }
        .into(),
        Ftrl::default().into(),
        Ftrl {
            l1: 0.3,
            l2: 0.02,
            l2_shrinkage: 0.1,
            beta: 0.1,
            ..Ftrl::default()
        }
        .into(),
        Ftrl {
            learning_rate_power: -0.7,
            weight_decay: 0.1,
            ..Ftrl::default()
        }
        .into(),
        Lamb::default().into(),
        Lars::default().into(),
        Lion {
            weight_decay: 0.1,
            ..Lion::default()
        }
        .into(),
    ]
}

#[test]
fn every_kind_of_optimizer_is_tested_here() {
    for kind in OptimizerSpec::KINDS {
        let tested = every_optimizer()
            .iter()
            .any(|spec| spec.name() == kind.name);
        assert!(tested, "{}", kind.name);
    }
}

#[test]
fn norms_and_limits_are_those_of_the_scaled_gradient() {
    let layout = layout(&[(3, Group::Decay), (100, Group::NoDecay)]);
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    let segments = segments(&layout, &everything);
    let mut backend = Cpu::new();
    let mut g = vec![0.0; layout.end()];
    (g[0], g[1], g[64]) = (3.0, -4.0, 12.0);
    let mut clip = |limit: f64, scale: f64, g: &[f32]| {
        let mut clip = ClipSpec::GlobalNorm(limit)
            .build::<Cpu>(&mut backend, &layout)
            .unwrap();
        clip.scale(&mut backend, g, &segments, scale, &mut Alone)
            .unwrap()
    };
    let clipped = clip(1.0, 0.5, &g);
    assert_eq!((clipped.norm, clipped.limit), (Some(6.5), f32::INFINITY));
    assert!((clipped.scale * 13.0 - 1.0).abs() < 1e-15);
    assert_eq!(clip(6.5, 0.5, &g).scale, 0.5);
    assert_eq!(clip(6.5, 0.0, &g).scale, 0.0);
    g[1] = f32::NAN;
    assert!(clip(1.0, 0.5, &g).scale.is_nan());
}

#[test]
fn a_rate_of_zero_moves_nothing() {
    let layout = mixed_layout();
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    for spec in every_optimizer() {
        let mut replica = Replica::new(&spec, None, &layout, &everything);
        fill_tensors(&layout, &mut replica.p, 1);
        fill_tensors(&layout, &mut replica.g, 2);
        let before = replica.p.to_vec();
        replica.step(0.0, 1.0, &mut Alone);
        assert_eq!(before, replica.p.to_vec(), "{spec:?}");
    }
}

#[test]
fn block_sums_do_not_depend_on_the_rest_of_the_call() {
    let mut backend = Cpu::new();
    let x: Vec<f32> = (0..1000).map(noise).collect();
    let prepared = ringstep::backend::Preparation::NONE;
    let mut all = vec![0.0; x.len().div_ceil(ALIGNMENT)];
    backend.block_sums_of_squares(prepared, &x, &mut all);
    for (block, want) in x.chunks(ALIGNMENT).zip(&all) {
        let mut one = [0.0];
        backend.block_sums_of_squares(prepared, block, &mut one);
        assert_eq!(one[0].to_bits(), want.to_bits());
        let exact: f64 = block.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!((one[0] - exact).abs() <= 1e-14 * exact);
    }
}

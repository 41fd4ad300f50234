//! Optimizers and clipping against TensorFlow and against double precision, and the
//! promise that cutting the arena into shards changes no bit.

use std::ops::Range;
use std::sync::{Barrier, Mutex};

use ringstep::backend::cpu::{Buffer, Cpu};
use ringstep::backend::{Memory, Update};
use ringstep::comm::CommError;
use ringstep::optim::*;
use ringstep::params::{ALIGNMENT, Group, Layout, Zeros, partition};

use super::golden::{Tensor, distance, read};
use super::update_rules::reference;

/// For one rank, which owns every block.
struct Alone;

impl BlockExchange for Alone {
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

/// By how much TensorFlow's corrections of Adam's bias are off: it takes `1 - 0.999^t` in single
/// precision, where 2e-5 of it get lost; at a learning rate of 0.05 this is more than 1e-6 a step.
fn rounding_of_corrections(adam: &Adam, t: i32) -> f64 {
    let exact = (1.0 - adam.beta_2.powi(t)).sqrt() / (1.0 - adam.beta_1.powi(t));
    let power = |beta: f64| f64::from(beta as f32).powi(t) as f32;
    let rounded = (1.0 - power(adam.beta_2)).sqrt() / (1.0 - power(adam.beta_1));
    f64::from(rounded) / exact
}

fn assert_trace(name: &str, rate: f64, clip: Option<ClipSpec>, spec: impl Into<OptimizerSpec>) {
    let start: Tensor = read(&["optimizers", "w0"]);
    let target: Tensor = read(&["optimizers", "target"]);
    let scale: Tensor = read(&["optimizers", "scale"]);
    let wanted: Vec<Vec<f32>> = read(&["optimizers", "w_after_each_step", name]);
    assert_eq!(wanted.len(), 10);
    let layout = layout(&[(start.data.len(), Group::Decay)]);
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    let spec = spec.into();
    let mut replica = Replica::new(&spec, clip, &layout, &everything);
    replica.p[..start.data.len()].copy_from_slice(&start.data);
    for (step, wanted) in wanted.iter().enumerate() {
        for i in 0..wanted.len() {
            replica.g[i] = 2.0 * scale.data[i] * (replica.p[i] - target.data[i]);
        }
        let rounding = match &spec {
            OptimizerSpec::Adam(adam) => rounding_of_corrections(adam, step as i32 + 1),
            OptimizerSpec::AdamW(_) => rounding_of_corrections(&Adam::default(), step as i32 + 1),
            _ => 1.0,
        };
        replica.step(rate * rounding, 1.0, &mut Alone);
        let pairs = replica.p.iter().zip(wanted);
        let errors = pairs.map(|(got, want)| (got - want).abs() / want.abs().max(1.0));
        for error in errors {
            assert!(error <= 1e-6, "{name}, step {step}: off by {error:e}");
        }
    }
}

#[test]
fn traces_follow_tensorflow() {
    let none = None;
    let sgd = Sgd::default();
    let momentum = Sgd {
        momentum: 0.9,
        ..sgd
    };
    assert_trace("SGD", 0.01, none, sgd);
    assert_trace("SGD_mom", 0.05, none, momentum);
    assert_trace(
        "SGD_nesterov",
        0.05,
        none,
        Sgd {
            nesterov: true,
            ..momentum
        },
    );
    assert_trace("Adam", 0.001, none, Adam::default());
    assert_trace("AdamW", 0.05, none, AdamW::default());
    assert_trace("RMSprop", 0.05, none, RmsProp::default());
    assert_trace("Adagrad", 0.05, none, Adagrad::default());
    assert_trace("Ftrl", 0.05, none, Ftrl::default());
    let penalties = Ftrl {
        l1: 0.01,
        l2: 0.02,
        beta: 0.1,
        ..Ftrl::default()
    };
    assert_trace("Ftrl_l1_l2_beta", 0.5, none, penalties);
    assert_trace("Lion", 0.05, none, Lion::default());
    assert_trace(
        "SGD_weight_decay",
        0.05,
        none,
        Sgd {
            weight_decay: 0.1,
            ..sgd
        },
    );
    assert_trace("SGD_clipvalue", 0.05, Some(ClipSpec::Value(0.5)), sgd);
    assert_trace(
        "SGD_global_clipnorm",
        0.05,
        Some(ClipSpec::GlobalNorm(1.0)),
        sgd,
    );
    // The older kernel has the betas, and one less each, in single precision.
    let rounded = Adam {
        beta_1: 0.9_f32.into(),
        beta_2: 0.999_f32.into(),
        ..Adam::default()
    };
    assert_trace("legacy_Adam", 0.05, none, rounded);
    assert_trace("legacy_Adagrad", 0.05, none, Adagrad::default());
    assert_trace("legacy_Ftrl", 0.05, none, Ftrl::default());
    let beside = EpsilonPlacement::BesideRoot;
    let legacy = RmsProp {
        epsilon_placement: beside,
        ..RmsProp::default()
    };
    assert_trace("legacy_RMSprop", 0.05, none, legacy);
}

#[test]
fn every_optimizer_follows_double_precision() {
    let layout = mixed_layout();
    let everything = std::iter::once(0..layout.end()).collect::<Vec<_>>();
    for spec in every_optimizer() {
        let mut replica = Replica::new(&spec, None, &layout, &everything);
        fill_tensors(&layout, &mut replica.p, 1);
        let mut exact: Vec<Vec<f64>> = layout
            .tensors()
            .iter()
            .map(|tensor| {
                replica.p[tensor.range()]
                    .iter()
                    .map(|&x| x.into())
                    .collect()
            })
            .collect();
        let zeros = |tensor: &Vec<f64>| [(); 3].map(|()| vec![0.0; tensor.len()]);
        let mut states: Vec<_> = exact.iter().map(zeros).collect();
        for step in 1..=10 {
            fill_tensors(&layout, &mut replica.g, 1 + step as u64);
            // Rates that differ from step to step, as under a schedule.
            let rate = 0.02 / f64::from(step);
            replica.step(rate, 0.25, &mut Alone);
            let mut wanted = vec![0.0; replica.p.len()];
            for ((tensor, p), state) in layout.tensors().iter().zip(&mut exact).zip(&mut states) {
                let g = replica.g[tensor.range()].iter();
                let g: Vec<_> = g.map(|&g| 0.25 * f64::from(g)).collect();
                reference(&spec, tensor.group, step, rate, p, &g, state);
                let rounded = p.iter().map(|&p| p as f32).collect::<Vec<_>>();
                wanted[tensor.range()].copy_from_slice(&rounded);
            }
            let error = distance(&replica.p, &wanted);
            // Rounding of ten steps in single precision.
            assert!(error <= 3e-6, "{spec:?}, step {step}: off by {error:e}");
        }
    }
}

/// Merges block sums, and gathers parameters, over threads.
struct Team {
    barrier: Barrier,
    sums: Mutex<Vec<f64>>,
    parameters: Mutex<Vec<f32>>,
}

impl BlockExchange for &Team {
    fn complete(&mut self, sums: &mut [f64]) -> Result<(), CommError> {
        self.barrier.wait();
        self.sums.lock().unwrap().resize(sums.len(), 0.0);
        for (all, mine) in self.sums.lock().unwrap().iter_mut().zip(&*sums) {
            assert!(*all == 0.0 || *mine == 0.0, "two ranks own a block");
            *all += mine;
        }
        self.barrier.wait();
        sums.copy_from_slice(&self.sums.lock().unwrap());
        self.barrier.wait();
        self.sums.lock().unwrap().clear();
        Ok(())
    }
}

/// Parameters after five steps of `world` ranks that each step their shards of two buckets.
fn train_sharded(spec: &OptimizerSpec, clip: ClipSpec, world: usize) -> Vec<f32> {
    let layout = mixed_layout();
    let blocks = blocks(&layout);
    let buckets = [0..blocks / 3, blocks / 3..blocks];
    let team = Team {
        barrier: Barrier::new(world),
        sums: Mutex::default(),
        parameters: Mutex::new(vec![0.0; layout.arena_len(1)]),
    };
    fill_tensors(&layout, &mut team.parameters.lock().unwrap(), 1);
    let run = |rank: usize| {
        let owned = buckets.clone().map(|bucket| {
            let part = partition(bucket.len(), world, rank);
            (bucket.start + part.start) * ALIGNMENT..(bucket.start + part.end) * ALIGNMENT
        });
        let mut replica = Replica::new(spec, Some(clip), &layout, &owned);
        for step in 0..5 {
            replica.p.copy_from_slice(&team.parameters.lock().unwrap());
            fill_tensors(&layout, &mut replica.g, 2 + step);
            team.barrier.wait();
            replica.step(0.05, 0.5, &mut &team);
            for segment in &replica.segments {
                let part = segment.arena.clone();
                team.parameters.lock().unwrap()[part.clone()].copy_from_slice(&replica.p[part]);
            }
            team.barrier.wait();
            replica.assert_padding_is_zero(spec.name());
        }
    };
    std::thread::scope(|scope| {
        (0..world).for_each(|rank| drop(scope.spawn(move || run(rank))));
    });
    team.parameters.into_inner().unwrap()
}

#[test]
fn shards_step_to_the_same_bits_and_padding_stays_zero() {
    let bits = |p: Vec<f32>| p.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for spec in every_optimizer() {
        for clip in [ClipSpec::GlobalNorm(0.7), ClipSpec::Value(0.2)] {
            let whole = bits(train_sharded(&spec, clip, 1));
            for world in 2..=5 {
                let sharded = bits(train_sharded(&spec, clip, world));
                assert_eq!(whole, sharded, "{spec:?} on {world} ranks, {clip:?}");
            }
        }
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

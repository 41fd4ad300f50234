//! Communication runs while backward does: on a slow link a step takes less than both in turn.
//!
//! Compute is a sleep for each layer and communication a simulated link, so that neither takes a
//! processor and the times are those of a clock.

use std::ops::Range;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringstep::backend::Accumulate;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::{CollectiveChoice, Link, Options, ReduceMode};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::Context;
use ringstep::models::{MicroBatch, Model, Structure};
use ringstep::optim::Sgd;
use ringstep::params::{GradSink, Grads, Group, Initializer, Layout, Zeros};
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

const LAYERS: usize = 6;
/// Elements of a layer: one bucket.
const ELEMENTS: usize = 16 << 10;
/// Time of a layer's backward pass.
const COMPUTE: Duration = Duration::from_millis(25);
/// Bytes a second: a bucket of two ranks sends its bytes once, in 25 ms.
const BANDWIDTH: f64 = ELEMENTS as f64 * 4.0 / 0.025;

/// How gradients are handed over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Layer after layer.
    Plain,
    /// By the parts of one block that is the whole model.
    Block,
    /// The first layer's weights are the last one's, too.
    Tied,
    /// All at the end: the control, in which nothing can overlap.
    AtOnce,
}

/// A model whose layers take their time and have gradients of 1.
struct Slow {
    kind: Kind,
    structure: Structure,
}

impl Slow {
    fn new(kind: Kind) -> Self {
        let mut layout = Layout::default();
        for layer in 0..LAYERS {
            let zeros = Initializer::from(Zeros {});
            layout.push(
                format!("layer_{layer}/kernel"),
                &[ELEMENTS],
                zeros,
                Group::Decay,
            );
        }
        if kind == Kind::Tied {
            layout.tie(0);
        }
        let structure = Structure {
            layout,
            states: Vec::new(),
            tables: Vec::new(),
            layers: Vec::new(),
            input: [1].into(),
            output: [1].into(),
            target_width: 1,
        };
        Self { kind, structure }
    }
}

/// `gradient = 1` or `gradient += 1`.
fn contribute(grads: &mut Grads<'_, Cpu>, range: &Range<usize>) {
    let (gradient, write) = grads.tensor(range);
    for value in gradient {
        *value = if write == Accumulate::Set {
            1.0
        } else {
            *value + 1.0
        };
    }
}

impl Model<Cpu> for Slow {
    fn structure(&self) -> &Structure {
        &self.structure
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, Cpu>,
        _: &[f32],
        _: &MicroBatch<'_, Cpu>,
        report: &mut [f64],
    ) {
        report.copy_from_slice(&[0.0, cx.rows as f64, 0.0, cx.rows as f64]);
    }

    fn backward(
        &mut self,
        _: &mut Context<'_, Cpu>,
        _: &[f32],
        _: &MicroBatch<'_, Cpu>,
        sink: &mut dyn GradSink<Cpu>,
    ) {
        let mut grads = Grads::new(sink, 0);
        if self.kind == Kind::Tied {
            contribute(&mut grads, &(0..ELEMENTS));
        }
        for layer in (0..LAYERS).rev() {
            sleep(COMPUTE);
            let start = layer * ELEMENTS;
            match self.kind {
                // The part counts from its own start, as a layer inside a block does.
                Kind::Block => contribute(&mut grads.child(start), &(0..ELEMENTS)),
                _ => contribute(&mut grads, &(start..start + ELEMENTS)),
            }
            match self.kind {
                Kind::Block => grads.child(start).done(0),
                Kind::Plain | Kind::Tied => grads.done(start),
                Kind::AtOnce => {}
            }
        }
        grads.done(0);
    }

    fn predict(&mut self, _: &mut Context<'_, Cpu>, _: &[f32], _: &[f32], _: &mut [f32]) {}
}

/// The fastest of three steps, and what it waited for communication, on the slower of two ranks.
fn step(kind: Kind) -> (Duration, Duration) {
    let rows = 64;
    let table = Arc::new(Table {
        features: vec![0.0; rows],
        targets: vec![0.0; rows],
        ..Table::empty([1].into(), Targets::Numbers(1), rows)
    });
    let body = |reducer: Reducer| -> Result<(Duration, Duration), TrainError> {
        let options = TrainerOptions {
            reduce: ReduceMode::F32,
            bucket_bytes: ELEMENTS * 4,
            ..TrainerOptions::new(1, 2, Sgd::default())
        };
        let rank = (reducer.rank(), reducer.world());
        let mut trainer = Trainer::new(Cpu::new(), Slow::new(kind), options, reducer)?;
        let sampler = Sampler {
            rows,
            global_batch: 2,
            micro_batch: 1,
            seed: 0,
            shuffle: false,
            ..Sampler::default()
        };
        let mut shares = Prefetch::start(Arc::clone(&table), sampler, rank, 0..4).unwrap();
        let mut best = (Duration::MAX, Duration::MAX);
        while let Some(share) = shares.next_share() {
            let start = Instant::now();
            let report = trainer.step(&share, 0.0)?;
            best = best.min((start.elapsed(), report.exposed));
            shares.recycle(share);
        }
        Ok(best)
    };
    let link = Link {
        latency: Duration::ZERO,
        bandwidth: BANDWIDTH,
    };
    let options = Options {
        collective: CollectiveChoice::Ring,
        link: Some(link),
        ..Options::default()
    };
    let connects = connect_threads(2, &options).unwrap();
    run_threads(connects, body)
        .unwrap()
        .into_iter()
        .max()
        .unwrap()
}

#[test]
fn communication_hides_behind_backward() {
    let compute = COMPUTE * LAYERS as u32;
    let (control, exposed) = step(Kind::AtOnce);
    let communication = exposed;
    assert!(
        communication > compute / 2,
        "the link takes {communication:?}"
    );
    assert!(control >= compute + communication);
    for kind in [Kind::Plain, Kind::Block, Kind::Tied] {
        let (time, exposed) = step(kind);
        // All but the last bucket's share of the communication can run beside backward; half of
        // that leaves room for a busy machine.
        let hidden = compute.min(communication) * (LAYERS as u32 - 1) / LAYERS as u32 / 2;
        assert!(
            time < control - hidden,
            "{kind:?}: {time:?} against {control:?}"
        );
        assert!(
            exposed < communication - hidden,
            "{kind:?}: {exposed:?} of {communication:?}"
        );
    }
}

//! Training throughput on thread ranks: the counterpart of `scripts/bench/peers/ddp.py`, called by
//! `scripts/bench/training.sh`.
//!
//! Every rank trains on 64 rows a step through the whole pipeline: rows are shuffled and copied by
//! the data thread, gradients summed by the reducer thread. The last line printed is one JSON
//! object; the rate is that of all ranks together, the median over windows of about a quarter of a
//! second.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::{Options, ReduceMode};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{
    ActivationSpec, Build, Conv2D, Dense, Flatten, LayerSpec, MaxPooling2D, Shape,
};
use ringstep::models::{LossReduction, LossSpec, Model, Sequential, SoftmaxCrossEntropy};
use ringstep::optim::{Adam, OptimizerSpec};
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

const LEARNING_RATE: f64 = 1e-3;
const ROWS: usize = 4096;
const CLASSES: usize = 10;
const WARM_UP_STEPS: u64 = 10;
const WINDOW_SECONDS: f64 = 0.25;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    model: Architecture,
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    #[arg(long, default_value = "f32", value_parser = reduce_mode)]
    reduce: ReduceMode,
    /// Shards the optimizer's state over the ranks.
    #[arg(long)]
    sharded: bool,
    /// Rows of a rank and step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Architecture {
    /// 784-512-512-10.
    Mlp,
    /// Two convolutions on 28 x 28 images of one channel, without padding.
    Cnn,
}

fn reduce_mode(name: &str) -> Result<ReduceMode, serde_json::Error> {
    serde_json::from_value(name.into())
}

impl Architecture {
    fn input(self) -> Shape {
        match self {
            Self::Mlp => [784].into(),
            Self::Cnn => [28, 28, 1].into(),
        }
    }

    fn layers(self) -> Vec<LayerSpec> {
        let relu = ActivationSpec::Relu;
        let dense = |units, activation| Dense::new(units).activation(activation).into();
        let conv = |filters| Conv2D::new(filters, 3).activation(relu).into();
        let out = dense(CLASSES, ActivationSpec::Linear);
        match self {
            Self::Mlp => vec![dense(512, relu), dense(512, relu), out],
            Self::Cnn => vec![
                conv(32),
                conv(64),
                MaxPooling2D::default().into(),
                Flatten::default().into(),
                dense(128, relu),
                out,
            ],
        }
    }
}

/// Rows of noise with arbitrary classes: what is learned does not matter here.
fn table(shape: Shape) -> Table {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let names = (0..CLASSES).map(|class| class.to_string()).collect();
    let mut table = Table::empty(shape, Targets::Classes(names), ROWS);
    table.features = (0..ROWS * table.shape.elements())
        .map(|_| next() as f32 / (1 << 24) as f32)
        .collect();
    table.targets = (0..ROWS)
        .map(|_| (next() as usize % CLASSES) as f32)
        .collect();
    table
}

/// Seconds of each window of `window` steps, and the number of parameters.
fn train(
    arguments: &Arguments,
    table: &Arc<Table>,
    windows: u64,
    window: u64,
) -> Result<(Vec<f64>, usize), TrainError> {
    let connects = connect_threads(arguments.ranks, &Options::default())?;
    let body = |reducer: Reducer| -> Result<(Vec<f64>, usize), TrainError> {
        let place = (reducer.rank(), reducer.world());
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, arguments.batch);
        let loss = LossSpec::from(SoftmaxCrossEntropy::default());
        let layers = arguments.model.layers();
        let model = Sequential::new(build, &layers, &table.description(), &loss)?;
        let parameters = model.layout().parameters();
        let options = TrainerOptions {
            seed: 0,
            micro_batch: arguments.batch,
            micro_batches: arguments.ranks,
            reduce: arguments.reduce,
            bucket_bytes: 25 << 20,
            sharded: arguments.sharded,
            loss_reduction: LossReduction::Mean,
            optimizer: OptimizerSpec::from(Adam::default()),
            clip: None,
        };
        let mut trainer = Trainer::new(backend, model, options, reducer)?;
        let sampler = Sampler {
            rows: ROWS,
            global_batch: arguments.batch * arguments.ranks,
            micro_batch: arguments.batch,
            seed: 0,
            shuffle: true,
        };
        let steps = 0..WARM_UP_STEPS + windows * window;
        let mut data =
            Prefetch::start(Arc::clone(table), sampler, place, steps).map_err(|source| {
                TrainError::Spawn {
                    rank: place.0,
                    source,
                }
            })?;
        let mut seconds = Vec::new();
        let mut start = Instant::now();
        while let Some(share) = data.next_share() {
            trainer.step(&share, LEARNING_RATE)?;
            let done = share.step + 1;
            data.recycle(share);
            if done >= WARM_UP_STEPS && (done - WARM_UP_STEPS).is_multiple_of(window) {
                if done > WARM_UP_STEPS {
                    seconds.push(start.elapsed().as_secs_f64());
                }
                start = Instant::now();
            }
        }
        Ok((seconds, parameters))
    };
    Ok(run_threads(connects, body)?.swap_remove(0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let table = Arc::new(table(arguments.model.input()));
    // How long a step takes, to know how many fill a window; the same number on every rank.
    let (trial, parameters) = train(&arguments, &table, 1, WARM_UP_STEPS)?;
    let step = trial[0] / WARM_UP_STEPS as f64;
    let window = ((WINDOW_SECONDS / step) as u64).max(1);
    let windows = (arguments.seconds / (step * window as f64)).ceil() as u64;
    let (mut seconds, _) = train(&arguments, &table, windows.max(1), window)?;
    seconds.sort_by(f64::total_cmp);
    let samples = window as usize * arguments.batch * arguments.ranks;
    let rate = samples as f64 / seconds[seconds.len() / 2];
    println!("{{\"samples_per_second\": {rate:.1}, \"parameters\": {parameters}}}");
    Ok(())
}

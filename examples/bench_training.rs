//! Training throughput on thread ranks, or on those that `mpirun` started where it is built with
//! `--features mpi`: the counterpart of `scripts/bench/peers/ddp.py`, called by
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
use ringstep::comm::{CollectiveChoice, Options, ReduceMode, gather, launcher};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{
    ActivationSpec, Build, Conv2D, Dense, Flatten, LayerSpec, MaxPooling2D, Shape,
};
use ringstep::models::{LossSpec, Model, Sequential, SoftmaxCrossEntropy};
use ringstep::optim::Adam;
use ringstep::train::{
    Reducer, TrainError, Trainer, TrainerOptions, connect_mpi, connect_threads, run_rank,
    run_threads,
};

const LEARNING_RATE: f64 = 1e-3;
const ROWS: usize = 4096;
const CLASSES: usize = 10;
const WARM_UP_STEPS: u64 = 10;
const WINDOW_SECONDS: f64 = 0.25;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    model: Architecture,
    /// Thread ranks; those of `mpirun` are counted by themselves.
    #[arg(long, default_value_t = 1)]
    ranks: usize,
    /// What sums over ranks: auto, ring, direct or hierarchical.
    #[arg(long, default_value = "auto")]
    collective: CollectiveChoice,
    #[arg(long, default_value = "f32")]
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

/// What a rank measured.
struct Measured {
    rank: usize,
    world: usize,
    parameters: usize,
    /// Steps of a window.
    window: u64,
    /// Seconds of each window.
    seconds: Vec<f64>,
}

/// What one rank does: steps until it knows how long one takes, then windows of them.
fn train(
    arguments: &Arguments,
    table: &Arc<Table>,
    reducer: Reducer,
) -> Result<Measured, TrainError> {
    let (rank, world) = (reducer.rank(), reducer.world());
    let mut backend = Cpu::new();
    let build = Build::new(&mut backend, arguments.batch);
    let loss = LossSpec::from(SoftmaxCrossEntropy::default());
    let layers = arguments.model.layers();
    let model = Sequential::new(build, &layers, &table.description(), &loss)?;
    let parameters = model.layout().parameters();
    let options = TrainerOptions {
        reduce: arguments.reduce,
        sharded: arguments.sharded,
        ..TrainerOptions::new(arguments.batch, world, Adam::default())
    };
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let sampler = Sampler {
        rows: ROWS,
        global_batch: arguments.batch * world,
        micro_batch: arguments.batch,
        seed: 0,
        shuffle: true,
        ..Sampler::default()
    };
    let every_step = 0..u64::MAX;
    let mut data = Prefetch::start(Arc::clone(table), sampler, (rank, world), every_step)
        .map_err(|source| TrainError::Spawn { rank, source })?;
    let mut run = |trainer: &mut Trainer<_, _>, steps: u64| {
        let start = Instant::now();
        for _ in 0..steps {
            let Some(share) = data.next_share() else {
                break;
            };
            trainer.step(&share, LEARNING_RATE)?;
            data.recycle(share);
        }
        Ok::<_, TrainError>(start.elapsed().as_secs_f64())
    };
    run(&mut trainer, WARM_UP_STEPS)?;
    let step = run(&mut trainer, WARM_UP_STEPS)? / WARM_UP_STEPS as f64;
    let window = of_rank_0(&mut trainer, (WINDOW_SECONDS / step) as u64)?.max(1);
    let windows = (arguments.seconds / (step * window as f64)).ceil() as u64;
    let windows = of_rank_0(&mut trainer, windows)?.max(1);
    let seconds = (0..windows).map(|_| run(&mut trainer, window));
    Ok(Measured {
        rank,
        world,
        parameters,
        window,
        seconds: seconds.collect::<Result<_, _>>()?,
    })
}

/// What rank 0 says the number is: clocks differ, and all ranks have to take the same steps.
fn of_rank_0(trainer: &mut Trainer<Cpu, Sequential<Cpu>>, number: u64) -> Result<u64, TrainError> {
    let all = trainer
        .reducer()
        .call(move |communicator| gather(communicator, &[number as i64]))?;
    Ok(all[0] as u64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let table = Arc::new(table(arguments.model.input()));
    let options = Options::default().with_collective(arguments.collective);
    let body = |reducer: Reducer| train(&arguments, &table, reducer);
    let mut measured = match launcher::here() {
        Some(launcher) if cfg!(feature = "mpi") => {
            run_rank(connect_mpi(&options, Some(launcher)), &body)?
        }
        launcher => {
            launcher.map_or(Ok(()), |launcher| launcher.refuse_without_mpi())?;
            run_threads(connect_threads(arguments.ranks, &options)?, body)?.swap_remove(0)
        }
    };
    if measured.rank == 0 {
        let seconds = &mut measured.seconds;
        seconds.sort_by(f64::total_cmp);
        let samples = measured.window as usize * arguments.batch * measured.world;
        let rate = samples as f64 / seconds[seconds.len() / 2];
        let parameters = measured.parameters;
        println!("{{\"samples_per_second\": {rate:.1}, \"parameters\": {parameters}}}");
    }
    Ok(())
}

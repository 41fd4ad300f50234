//! `ringstep bench tables`: what a step costs by the size of the tables that it looks up.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::{TablesArguments, median};
use crate::backend::cpu::Cpu;
use crate::cli::table::{Align, Table, thousands};
use crate::cli::{Failure, show};
use crate::columns::{Encoded, Encoding, Values};
use crate::comm::Options;
use crate::data::{self, Prefetch, Sampler, Targets};
use crate::estimators::{DnnColumn, DnnLinearCombinedClassifier, Embedding, EstimatorSpec};
use crate::layers::{Build, WorkingSets};
use crate::models::{BuildModel, Model};
use crate::optim::{OptimizerSpec, base_rate};
use crate::random::Stream;
use crate::train::{
    Connect, Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads,
};

/// Rows of a step, over all ranks, and of what goes through the model together.
const GLOBAL_BATCH: usize = 256;
const MICRO_BATCH: usize = 64;

/// Rows of the data: so many that a large table's row has left a core's caches when it is looked up again.
const ROWS: usize = 4096 * GLOBAL_BATCH;

/// Numeric columns.
const NUMBERS: usize = 16;

/// Steps of a turn: few, so that neighbours in time are compared. The first turn of each size does not count.
const TURN: u64 = 100;

/// Measures a wide and deep model with each size of its tables. All are there at once and take turns, since
/// a machine may be half as fast a second later.
pub(super) fn run(arguments: &TablesArguments) -> Result<(), Failure> {
    let ranks = arguments.ranks as usize;
    let turns = u64::from(arguments.repeats) + 1;
    let samples: Vec<_> = (arguments.rows.iter())
        .map(|&rows| Arc::new(samples(rows as usize)))
        .collect();
    // Of each rank, a connection for each size.
    let mut connects: Vec<Vec<Connect>> = (0..ranks).map(|_| Vec::new()).collect();
    for _ in &samples {
        let worlds = connect_threads(ranks, &Options::default())?;
        for (connects, connect) in connects.iter_mut().zip(worlds) {
            connects.push(connect);
        }
    }
    let firsts = (connects.iter_mut())
        .map(|connects| connects.remove(0))
        .collect();
    let connects = Mutex::new(connects);
    let body = |reducer: Reducer| {
        let others = {
            let mut connects = connects.lock().unwrap_or_else(PoisonError::into_inner);
            mem::take(&mut connects[reducer.rank()])
        };
        rank(reducer, others, &samples, turns)
    };
    let (bytes, rounds) = run_threads(firsts, body)?.swap_remove(0);
    let of_size = |size: usize| {
        let times = rounds.iter().map(|round| round[size]);
        let ratios = rounds.iter().map(|round| round[size] / round[0]);
        Measured {
            rows: arguments.rows[size] as usize,
            ranks,
            milliseconds: median(times.collect()),
            of_first: median(ratios.collect()),
            bytes: bytes[size],
        }
    };
    let measured: Vec<_> = (0..samples.len()).map(of_size).collect();
    match arguments.json {
        true => show(serde_json::to_string_pretty(&measured)? + "\n"),
        false => show(table(&measured)),
    }
}

/// What a step costs with tables of one size.
#[derive(Debug, Serialize)]
struct Measured {
    /// Rows of each of the two tables.
    rows: usize,
    ranks: usize,
    /// Of a step: median of the rounds.
    milliseconds: f64,
    /// The same, by that with tables of the first size: median of the rounds.
    of_first: f64,
    /// Of gradients that are summed in a step, on each rank.
    bytes: usize,
}

fn table(measured: &[Measured]) -> String {
    let mut table = Table::new([
        ("rows of a table", Align::Right),
        ("ms a step", Align::Right),
        ("of the first", Align::Right),
        ("bytes summed", Align::Right),
        ("of the first", Align::Right),
    ]);
    for row in measured {
        let bytes = row.bytes as f64 / measured[0].bytes as f64;
        table.row([
            thousands(row.rows as u64),
            format!("{:.3}", row.milliseconds),
            format!("{:.3}", row.of_first),
            thousands(row.bytes as u64),
            format!("{bytes:.3}"),
        ]);
    }
    table.to_string()
}

/// Of each size, the bytes of gradients that a step sums; of each round that counts, the milliseconds of a
/// step of each size.
type Rounds = (Vec<usize>, Vec<Vec<f64>>);

fn rank(
    first: Reducer,
    connects: Vec<Connect>,
    samples: &[Arc<data::Table>],
    turns: u64,
) -> Result<Rounds, TrainError> {
    let mut connections = Vec::new();
    let mut reducers = vec![first];
    for connect in connects {
        let (reducer, connection) = Reducer::start(connect)?;
        reducers.push(reducer);
        connections.push(connection);
    }
    let mut runs = Vec::new();
    for (reducer, data) in reducers.into_iter().zip(samples) {
        runs.push(Run::start(reducer, data, turns * TURN)?);
    }
    let mut rounds = Vec::new();
    for _ in 0..turns {
        let turn = runs.iter_mut().map(Run::turn);
        rounds.push(turn.collect::<Result<_, _>>()?);
    }
    rounds.remove(0);
    let bytes = runs.iter().map(|run| run.bytes).collect();
    drop(runs);
    for connection in connections {
        connection.close(None);
    }
    Ok((bytes, rounds))
}

/// A run with tables of one size, on one rank.
struct Run {
    trainer: Trainer<Cpu, Box<dyn Model<Cpu>>>,
    shares: Prefetch,
    rate: f64,
    /// Of gradients that are summed in a step.
    bytes: usize,
}

impl Run {
    fn start(reducer: Reducer, data: &Arc<data::Table>, steps: u64) -> Result<Self, TrainError> {
        let estimator = estimator();
        let mut backend = Cpu::new();
        let optimizers = estimator.optimizers();
        let build = Build::new(&mut backend, MICRO_BATCH).with_working_sets(WorkingSets {
            batch: GLOBAL_BATCH,
            rows: optimizers.iter().map(OptimizerSpec::rows).collect(),
            is_sharded: false,
        });
        let model = estimator.build(build, &data.description(), &estimator.loss())?;
        let tables = model.structure().tables.iter();
        let sampler = Sampler {
            rows: ROWS,
            global_batch: GLOBAL_BATCH,
            micro_batch: MICRO_BATCH,
            seed: 0,
            shuffle: true,
            tables: tables.map(|table| table.indexed.clone()).collect(),
            ..Sampler::default()
        };
        let rate = base_rate(&optimizers);
        let options = TrainerOptions {
            optimizers: optimizers.clone(),
            ..TrainerOptions::new(
                MICRO_BATCH,
                GLOBAL_BATCH / MICRO_BATCH,
                optimizers[0].clone(),
            )
        };
        let (rank, world) = (reducer.rank(), reducer.world());
        let bytes = model.layout().arena_len(world) * size_of::<i64>();
        let trainer = Trainer::new(backend, model, options, reducer)?;
        let shares = Prefetch::start(Arc::clone(data), sampler, (rank, world), 0..steps)
            .map_err(|source| TrainError::Spawn { rank, source })?;
        Ok(Self {
            trainer,
            shares,
            rate,
            bytes,
        })
    }

    /// Milliseconds of a step.
    fn turn(&mut self) -> Result<f64, TrainError> {
        let start = Instant::now();
        for _ in 0..TURN {
            let Some(share) = self.shares.next_share() else {
                break;
            };
            self.trainer.step(&share, self.rate)?;
            self.shares.recycle(share);
        }
        Ok(start.elapsed().as_secs_f64() * 1e3 / TURN as f64)
    }
}

/// Wide and deep, with a table for each side.
fn estimator() -> EstimatorSpec {
    EstimatorSpec::from(DnnLinearCombinedClassifier {
        linear_feature_columns: Some(vec!["wide".to_owned()]),
        dnn_feature_columns: Some(vec![
            DnnColumn::Plain("numbers".to_owned()),
            DnnColumn::Embedding(Embedding {
                column: "deep".to_owned(),
                dimension: 8,
                combiner: crate::backend::Combiner::Mean,
                initializer: None,
            }),
        ]),
        dnn_hidden_units: vec![128, 64],
        ..DnnLinearCombinedClassifier::default()
    })
}

/// Random rows of numbers and of one id for each table of `count` rows.
fn samples(count: usize) -> data::Table {
    let ids = Values::Ids { count };
    let columns = [
        ("numbers", 0..NUMBERS, Values::Numbers),
        ("wide", NUMBERS..NUMBERS + 1, ids),
        ("deep", NUMBERS + 1..NUMBERS + 2, ids),
    ];
    let columns = columns.map(|(name, slots, values)| Encoded {
        name: name.to_owned(),
        slots,
        values,
    });
    let width = NUMBERS + 2;
    let mut stream = Stream::new(1, "rows of bench tables");
    let mut features = Vec::with_capacity(ROWS * width);
    for _ in 0..ROWS {
        features.extend((0..NUMBERS).map(|_| stream.normal() as f32));
        features.extend((NUMBERS..width).map(|_| stream.below(count as u32) as f32));
    }
    let classes = Targets::Classes(vec!["no".to_owned(), "yes".to_owned()]);
    data::Table {
        features,
        targets: (0..ROWS).map(|_| stream.below(2) as f32).collect(),
        encoding: Some(Encoding {
            columns: columns.to_vec(),
            ..Encoding::default()
        }),
        ..data::Table::empty([width].into(), classes, ROWS)
    }
}

//! `ringstep bench tables`: what a step costs by the size of the tables that it looks up.

use std::sync::Arc;
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
use crate::models::{BuildModel, Model as _};
use crate::optim::{OptimizerSpec, base_rate};
use crate::random::Stream;
use crate::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

/// Rows of a step, over all ranks, and of what goes through the model together.
const GLOBAL_BATCH: usize = 256;
const MICRO_BATCH: usize = 64;

/// Rows of the data, which come again and again.
const ROWS: usize = 16 * GLOBAL_BATCH;

/// Numeric columns.
const NUMBERS: usize = 16;

/// Steps before those that count, and steps of a measurement.
const WARM_UP: u64 = 500;
const STEPS: u64 = 1000;

/// Measures a wide and deep model with each size of its tables, in turn.
pub(super) fn run(arguments: &TablesArguments) -> Result<(), Failure> {
    let mut milliseconds = vec![Vec::new(); arguments.rows.len()];
    let mut summed = vec![0; arguments.rows.len()];
    for _ in 0..arguments.repeats {
        for (index, &rows) in arguments.rows.iter().enumerate() {
            let (time, bytes) = measure(rows as usize, arguments.ranks as usize)?;
            milliseconds[index].push(time);
            summed[index] = bytes;
        }
    }
    let measured: Vec<_> = (arguments.rows.iter().zip(milliseconds).zip(summed))
        .map(|((&rows, times), bytes)| Measured {
            rows: rows as usize,
            ranks: arguments.ranks as usize,
            milliseconds: median(times),
            bytes,
        })
        .collect();
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
        let time = row.milliseconds / measured[0].milliseconds;
        let bytes = row.bytes as f64 / measured[0].bytes as f64;
        table.row([
            thousands(row.rows as u64),
            format!("{:.3}", row.milliseconds),
            format!("{time:.3}"),
            thousands(row.bytes as u64),
            format!("{bytes:.3}"),
        ]);
    }
    table.to_string()
}

/// Milliseconds of a step, and bytes of gradients that it sums.
fn measure(rows: usize, ranks: usize) -> Result<(f64, usize), TrainError> {
    let data = Arc::new(samples(rows));
    let estimator = EstimatorSpec::from(DnnLinearCombinedClassifier {
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
    });
    let connects = connect_threads(ranks, &Options::default())?;
    let body = |reducer: Reducer| rank(reducer, &estimator, &data);
    Ok(run_threads(connects, body)?.swap_remove(0))
}

fn rank(
    reducer: Reducer,
    estimator: &EstimatorSpec,
    data: &Arc<data::Table>,
) -> Result<(f64, usize), TrainError> {
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
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let steps = 0..WARM_UP + STEPS;
    let mut shares = Prefetch::start(Arc::clone(data), sampler, (rank, world), steps)
        .map_err(|source| TrainError::Spawn { rank, source })?;
    let mut start = Instant::now();
    while let Some(share) = shares.next_share() {
        if share.step == WARM_UP {
            start = Instant::now();
        }
        trainer.step(&share, rate)?;
        shares.recycle(share);
    }
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / STEPS as f64;
    Ok((milliseconds, bytes))
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

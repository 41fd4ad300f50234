//! Runs that would overflow, lose precision or hang somewhere else.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Accumulate, FixedPoint};
use ringstep::comm::{CollectiveChoice, CommError, Options, Span};
use ringstep::config::{Override, RunConfig};
use ringstep::train::{
    Begin, Existing, Job, Ranks, Record, Reducer, Scales, Session, TrainError, connect_threads,
    read_metrics, run_threads,
};

/// A line of houses: features near 1e3, targets near 1e5, nothing scaled.
pub(crate) fn houses(folder: &Path) {
    let mut text = "area,distance,price\n".to_owned();
    for row in 0..300 {
        let area = 1000.0 + 37.0 * f64::from(row % 17);
        let distance = 900.0 + 11.0 * f64::from(row % 23);
        text += &format!(
            "{area},{distance},{}\n",
            150.0 * area - 40.0 * distance + 2e4
        );
    }
    fs::write(folder.join("houses.csv"), text).unwrap();
    let run = r#"
[data]
format = "csv"
train = "houses.csv"
label = "price"

[model]
loss = "squared_error"

[[model.layers]]
kind = "dense"
units = 1

[train]
device = "cpu"
global_batch = 50
micro_batch = 8
epochs = 10
optimizer = { kind = "adam", learning_rate = 5.0 }
log_every = 1
checkpoint_every = 1
"#;
    fs::write(folder.join("run.toml"), run).unwrap();
}

pub(crate) fn session(folder: &Path, world: usize, overrides: &[&str]) -> Session {
    let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
    let config = RunConfig::load(&folder.join("run.toml"), &overrides).unwrap();
    let begin = Begin::New(Existing::Keep);
    let folder = folder.join(format!("run-{world}"));
    Session::new(config, folder, begin, Ranks::Threads(world))
}

#[test]
fn a_regression_in_raw_units_trains_without_overflow_on_any_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    houses(folder.path());
    let losses = |world, collective| -> Vec<f64> {
        let mut session = session(folder.path(), world, &[]);
        session.config.train.collective = collective;
        session.begin = Begin::New(Existing::Replace);
        session.train().unwrap();
        let records = read_metrics(&session.folder.join("metrics.jsonl")).unwrap();
        let loss = |record: &Record| match record {
            Record::Train(train) => Some(train.loss),
            _ => None,
        };
        records.iter().filter_map(loss).collect()
    };
    let one = losses(1, CollectiveChoice::Auto);
    assert!(one.iter().all(|loss| loss.is_finite()));
    assert!(
        one[0] > 1e9,
        "the first loss, {}, is in squared raw units",
        one[0]
    );
    assert!(
        one[one.len() - 1] < one[0] / 10.0,
        "{} at the end",
        one[one.len() - 1]
    );
    assert_eq!(losses(3, CollectiveChoice::Auto), one);
    for world in [2, 3, 4] {
        assert_eq!(
            losses(world, CollectiveChoice::Ring),
            one,
            "{world} ranks in a ring"
        );
    }
}

#[test]
fn exact_sums_keep_their_precision_from_tiny_to_huge_gradients() {
    for magnitude in [1e-12f64, 1e-6, 1.0, 1e6, 1e12] {
        let mut scales = Scales::new(1, 4);
        let micro_batch = |number: u32| -> Vec<f32> {
            let value = |i: u32| (magnitude * f64::from(i * 4 + number).sin()) as f32;
            (0..1000).map(value).collect()
        };
        let batches: Vec<_> = (0..4).map(micro_batch).collect();
        let mut cpu = Cpu::new();
        let mut sums = vec![0; 1000];
        // The first pass finds the scale, the second uses it.
        for _ in 0..2 {
            let mut largest = [0];
            for (number, batch) in batches.iter().enumerate() {
                let write = if number == 0 {
                    Accumulate::Set
                } else {
                    Accumulate::Add
                };
                let exponent = scales.exponents()[0];
                cpu.quantize(batch, exponent, &mut sums, write, &mut largest);
            }
            scales.adapt(&largest);
            assert!(!scales.outgrown(&largest));
        }
        let mut found = vec![0.0; 1000];
        cpu.dequantize(&sums, scales.exponents()[0], &mut found);
        for i in 0..1000 {
            let exact: f64 = batches.iter().map(|batch| f64::from(batch[i])).sum();
            let error = (f64::from(found[i]) - exact).abs();
            assert!(
                error <= 1e-6 * exact.abs().max(1e-6 * magnitude),
                "{exact} became {}",
                found[i]
            );
        }
    }
}

/// Collectives run by compute, or by a thread beside it.
fn lanes() -> [Options; 3] {
    use CollectiveChoice::{Direct, Ring};
    [(Direct, false), (Direct, true), (Ring, true)].map(|(collective, overlap)| Options {
        collective,
        overlap: Some(overlap),
        ..Options::default()
    })
}

#[test]
fn a_rank_that_fails_alone_is_the_cause_whichever_thread_runs_its_collectives() {
    for options in lanes() {
        let connects = connect_threads(3, &options).unwrap();
        let heard = Mutex::new(Vec::new());
        let body = |mut reducer: Reducer| -> Result<(), TrainError> {
            reducer.call(|communicator| communicator.barrier())?;
            assert!(reducer.rank() != 1, "a stumble");
            let error = reducer
                .call(|communicator| communicator.barrier())
                .unwrap_err();
            heard.lock().unwrap().push(error.to_string());
            Err(error.into())
        };
        let start = Instant::now();
        let cause = run_threads(connects, body).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "{options:?}");
        assert!(cause.contains("a stumble"), "{options:?}: {cause}");
        let heard = heard.into_inner().unwrap();
        assert_eq!(heard.len(), 2);
        for error in heard {
            assert!(error.starts_with("rank 1 stopped: "), "{error}");
            assert!(error.contains("a stumble"), "{error}");
        }
    }
}

#[test]
fn a_collective_that_panics_ends_the_run_whichever_thread_runs_it() {
    for options in lanes() {
        let connects = connect_threads(2, &options).unwrap();
        let body = |mut reducer: Reducer| -> Result<(), TrainError> {
            let rank = reducer.rank();
            let stumble = std::panic::AssertUnwindSafe(|| {
                reducer.call(move |communicator| {
                    assert!(rank != 1, "a stumble");
                    communicator.barrier()
                })
            });
            let result = std::panic::catch_unwind(stumble);
            if rank == 1 {
                // Whoever goes on after that gets an error at once.
                reducer.call(|communicator| communicator.barrier())?;
            }
            result.unwrap_or(Ok(())).map_err(TrainError::from)
        };
        let start = Instant::now();
        let error = run_threads(connects, body).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "{options:?}");
        assert!(error.contains("panicked"), "{options:?}: {error}");
    }
}

#[test]
fn a_communicator_that_cannot_be_replaced_on_one_rank_stops_all_with_its_reason() {
    for options in lanes() {
        let connects = connect_threads(3, &options).unwrap();
        let heard = Mutex::new(Vec::new());
        let body = |mut reducer: Reducer| -> Result<(), TrainError> {
            let rank = reducer.rank();
            reducer.wrap(Box::new(move |mut inner| {
                if rank != 1 {
                    return Ok(inner);
                }
                inner.abort("no such device");
                Err(CommError::Transport {
                    operation: "connection of devices",
                    rank,
                    problem: "no such device".to_owned(),
                })
            }))?;
            let error = reducer
                .call(|communicator| communicator.barrier())
                .unwrap_err();
            heard.lock().unwrap().push(error.to_string());
            Err(error.into())
        };
        let start = Instant::now();
        let cause = run_threads(connects, body).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(5), "{options:?}");
        let expected = "connection of devices failed on rank 1: no such device";
        assert_eq!(cause, expected, "{options:?}");
        let heard = heard.into_inner().unwrap();
        assert_eq!(heard, ["rank 1 stopped: no such device"; 2], "{options:?}");
    }
}

#[test]
fn more_jobs_than_the_line_holds_run_in_order() {
    let worlds = lanes().map(|options| (2, options));
    for (world, options) in worlds.into_iter().chain([(1, Options::default())]) {
        let connects = connect_threads(world, &options).unwrap();
        let body = |mut reducer: Reducer| -> Result<Vec<i64>, TrainError> {
            let region = reducer.allocate_i64("sums", 1)?;
            // SAFETY: no collective runs.
            unsafe { region.slice_mut(0..1).fill(1) };
            let span = Span {
                region: region.id(),
                range: 0..1,
            };
            let tickets = (0..5000).map(|_| reducer.submit(Job::AllReduce(span.clone())));
            let last = tickets.last().unwrap();
            reducer.wait(last)?;
            // SAFETY: no collective runs.
            Ok(unsafe { region.slice(0..1) }.to_vec())
        };
        // Doubled five thousand times over two ranks, which no 64 bits hold.
        let expected = i64::from(world == 1);
        for sums in run_threads(connects, body).unwrap() {
            assert_eq!(sums, [expected]);
        }
    }
}

//! Collectives over threads: every algorithm, world and type.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use half::bf16;
use ringstep::comm::{CollectiveChoice, CommError, Options, Span, testing};

use crate::collectives::{all_collectives, half_sums, lengths, same_bits_everywhere};

/// The ways to run `world` ranks.
fn ways(world: usize) -> Vec<Options> {
    let base = || Options {
        chunk: 64,
        patience: Duration::from_secs(60),
        ..Options::default()
    };
    let mut ways = vec![
        base(),
        base().with_collective(CollectiveChoice::Ring),
        base().with_collective(CollectiveChoice::Hierarchical),
        Options {
            chunk: 1024,
            ..base()
        }
        .with_collective(CollectiveChoice::Ring),
    ];
    if world >= 2 {
        ways.push(Options {
            hosts: vec![1, world - 1],
            ..base()
        });
        ways.push(Options {
            hosts: vec![world.div_ceil(2), world / 2],
            ..base()
        });
        ways.push(Options {
            hosts: vec![1; world],
            ..base()
        });
    }
    if world >= 5 {
        ways.push(Options {
            hosts: vec![world - 4, 1, 3],
            ..base()
        });
    }
    ways
}

#[test]
fn every_algorithm_sums_in_every_world() {
    for world in [1, 2, 3, 4, 5, 8] {
        for options in ways(world) {
            let results = testing::world(world, &options, |communicator| {
                for len in lengths(world) {
                    all_collectives::<f32>(communicator, len);
                    all_collectives::<bf16>(communicator, len);
                    all_collectives::<i64>(communicator, len);
                }
                same_bits_everywhere(communicator, 500);
                half_sums(communicator, 500);
                Ok(())
            });
            assert_eq!(results.into_iter().filter(Result::is_ok).count(), world);
        }
    }
}

#[test]
fn a_rank_that_gives_up_is_named_to_the_others() {
    for options in ways(4) {
        let results = testing::world(4, &options, |communicator| {
            let region = communicator.allocate_f32(1000)?;
            if communicator.rank() == 2 {
                communicator.abort("disk full");
                return Ok(());
            }
            communicator.all_reduce(&Span {
                region: region.id(),
                range: 0..1000,
            })
        });
        for rank in [0, 1, 3] {
            let error = results[rank].as_ref().unwrap_err().to_string();
            assert_eq!(error, "rank 2 stopped: disk full");
        }
    }
}

#[test]
fn a_rank_that_leaves_is_named_to_the_others() {
    for options in ways(3) {
        let results = testing::world(3, &options, |communicator| {
            communicator.barrier()?;
            if communicator.rank() == 1 {
                Ok(())
            } else {
                communicator.barrier()
            }
        });
        for rank in [0, 2] {
            let error = results[rank].as_ref().unwrap_err();
            assert!(
                matches!(error, CommError::Aborted { rank: 1, .. }),
                "{error}"
            );
        }
    }
}

#[test]
fn a_rank_that_does_not_arrive_is_named_and_nobody_waits_longer() {
    for options in ways(4) {
        let options = Options {
            patience: Duration::from_secs(1),
            ..options
        };
        let waiting = AtomicUsize::new(3);
        let results = testing::world(4, &options, |communicator| {
            let region = communicator.allocate_f32(1000)?;
            if communicator.rank() == 3 {
                while waiting.load(Ordering::Relaxed) > 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(Duration::from_secs(1));
            }
            let start = Instant::now();
            let result = communicator.all_reduce(&Span {
                region: region.id(),
                range: 0..1000,
            });
            waiting.fetch_sub(1, Ordering::Relaxed);
            match result {
                Err(CommError::Timeout {
                    operation: "all-reduce",
                    rank: 3,
                    ..
                }) => Ok(start.elapsed()),
                other => panic!("rank {}: {other:?}", communicator.rank()),
            }
        });
        for result in results {
            let waited = result.unwrap();
            assert!(waited >= Duration::from_secs(1) && waited < Duration::from_secs(8));
        }
    }
}

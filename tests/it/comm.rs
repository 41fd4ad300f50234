//! Collectives over threads: every algorithm, world and type.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use half::bf16;
use proptest::prelude::*;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::{
    Algorithm, CollectiveChoice, CommError, Communicator, Fault, Faulty, Link, Options, Span,
    testing, threads,
};

use crate::collectives::{
    all_collectives, fixed_point_sums, half_sums, lengths, same_bits_everywhere,
};

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
                    all_collectives::<f32>(communicator, &mut Cpu::new(), len);
                    all_collectives::<bf16>(communicator, &mut Cpu::new(), len);
                    all_collectives::<i64>(communicator, &mut Cpu::new(), len);
                }
                same_bits_everywhere(communicator, &mut Cpu::new(), 500);
                half_sums(communicator, &mut Cpu::new(), 500);
                for len in [0, 1, world, 500] {
                    let is_direct = communicator.algorithm() == Algorithm::Direct;
                    assert_eq!(fixed_point_sums(communicator, len), is_direct);
                }
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
                // Another rank's time was over first.
                Err(CommError::Aborted { reason, .. }) if reason.contains("rank 3 did not") => {
                    Ok(start.elapsed())
                }
                other => panic!("rank {}: {other:?}", communicator.rank()),
            }
        });
        for result in results {
            let waited = result.unwrap();
            assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(8));
        }
    }
}

/// Any world, cut into any hosts, with any algorithm that fits them.
fn any_world() -> impl Strategy<Value = (usize, Options)> {
    let hosts = prop::collection::vec(1_usize..=8, 1..=4).prop_map(|mut hosts| {
        while hosts.iter().sum::<usize>() > 16 {
            hosts.pop();
        }
        hosts
    });
    let choice = prop::sample::select(vec![
        CollectiveChoice::Auto,
        CollectiveChoice::Ring,
        CollectiveChoice::Hierarchical,
    ]);
    (hosts, choice, 1_usize..40).prop_map(|(hosts, collective, words)| {
        let world = hosts.iter().sum();
        let patience = Duration::from_secs(120);
        (
            world,
            Options {
                hosts,
                collective,
                chunk: 8 * words,
                patience,
                ..Options::default()
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_length_type_and_chunk_gives_the_plain_sum(
        (world, options) in any_world(),
        len in 0_usize..400,
        kind in 0..3,
    ) {
        let results = testing::world(world, &options, |communicator| {
            match kind {
                0 => all_collectives::<f32>(communicator, &mut Cpu::new(), len),
                1 => all_collectives::<bf16>(communicator, &mut Cpu::new(), len),
                _ => all_collectives::<i64>(communicator, &mut Cpu::new(), len),
            }
            Ok(())
        });
        prop_assert_eq!(results.into_iter().filter(Result::is_ok).count(), world);
    }
}

/// A stream of numbers that depends on its seed alone (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Now and then a yield or a nap, so that ranks meet in every order.
    fn dawdle(&mut self) {
        match self.below(8) {
            0 => std::thread::sleep(Duration::from_micros(self.below(300))),
            1..3 => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// Six random collectives on one rank; all ranks draw the same ones, and dawdle on their own.
fn random_schedule(communicator: &mut dyn Communicator, seed: u64) -> Result<(), CommError> {
    let (rank, world) = (communicator.rank() as i64, communicator.world() as i64);
    let mut shared = Numbers(seed);
    let mut own = Numbers(seed ^ (rank as u64 + 1) << 32);
    let region = communicator.allocate_i64(200)?;
    for _ in 0..6 {
        let start = shared.below(100) as usize;
        let range = start..start + shared.below(100) as usize;
        let (kind, root) = (shared.below(4), shared.below(world as u64) as usize);
        let span = Span {
            region: region.id(),
            range: range.clone(),
        };
        own.dawdle();
        // SAFETY: no collective runs, and no other reference to the region is alive.
        unsafe { region.slice_mut(range.clone()) }.fill(rank + 1);
        own.dawdle();
        let expected = match kind {
            0 => {
                communicator.all_reduce(&span)?;
                world * (world + 1) / 2
            }
            1 => {
                communicator.reduce_scatter(&span)?;
                communicator.all_gather(&span)?;
                world * (world + 1) / 2
            }
            2 => {
                communicator.broadcast(&span, root)?;
                root as i64 + 1
            }
            _ => {
                communicator.barrier()?;
                rank + 1
            }
        };
        // SAFETY: as above.
        let values = unsafe { region.slice(range) };
        assert!(values.iter().all(|&value| value == expected));
    }
    Ok(())
}

#[test]
fn a_thousand_random_schedules_end() {
    for seed in 0..1000 {
        let mut numbers = Numbers(seed << 16);
        let world = 2 + numbers.below(4) as usize;
        let choice = [CollectiveChoice::Auto, CollectiveChoice::Ring][numbers.below(2) as usize];
        let first = 1 + numbers.below(world as u64) as usize;
        let hosts = if first < world {
            vec![first, world - first]
        } else {
            Vec::new()
        };
        let chunk = 8 << numbers.below(6);
        let options = Options {
            hosts,
            chunk,
            ..Options::default()
        }
        .with_collective(choice);
        let results = testing::world(world, &options, |communicator| {
            random_schedule(communicator, seed)
        });
        for result in results {
            result.unwrap_or_else(|error| panic!("seed {seed}, {options:?}: {error}"));
        }
    }
}

#[test]
fn a_slow_link_takes_the_time_of_its_model_and_no_processor() {
    let link = Link {
        latency: Duration::from_millis(2),
        bandwidth: 10e6,
    };
    let options = Options {
        link: Some(link),
        chunk: 8192,
        ..Options::default()
    };
    let len = 250_000;
    let times = testing::world(2, &options, |communicator| {
        let region = communicator.allocate_f32(len)?;
        communicator.barrier()?;
        let (start, busy) = (Instant::now(), processor_time());
        communicator.all_reduce(&Span {
            region: region.id(),
            range: 0..len,
        })?;
        Ok((start.elapsed(), processor_time() - busy))
    });
    // A megabyte through the link: half of it in each of two steps.
    let modelled = Duration::from_millis(100 + 2 * 2);
    for time in times {
        let (elapsed, busy) = time.unwrap();
        assert!(elapsed >= modelled.mul_f64(0.95), "{elapsed:?}");
        assert!(busy < modelled / 2, "{busy:?} of processor time");
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to a structure of its own type.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn scripted_faults_end_as_real_ones() {
    for options in ways(3) {
        let options = Options {
            patience: Duration::from_millis(600),
            ..options
        };
        let script = vec![
            (1, Fault::Delay(Duration::from_millis(30))),
            (2, Fault::Die),
        ];
        let outcomes = with_faults(&options, script);
        assert!(outcomes[1].contains("this rank is dead"), "{outcomes:?}");
        for rank in [0, 2] {
            let expected = "rank 1 stopped: it left before all-reduce was over";
            assert_eq!(outcomes[rank], expected, "{outcomes:?}");
        }
    }
}

/// Three ranks, of which the middle one follows `script`; what each ended with.
fn with_faults(options: &Options, script: Vec<(usize, Fault)>) -> Vec<String> {
    let body = |mut communicator: Box<dyn Communicator>| -> Result<(), CommError> {
        let region = communicator.allocate_f32(100)?;
        for _ in 0..4 {
            communicator.all_reduce(&Span {
                region: region.id(),
                range: 0..100,
            })?;
        }
        Ok(())
    };
    let communicators = threads(3, options).unwrap();
    std::thread::scope(|scope| {
        let ranks: Vec<_> = communicators
            .into_iter()
            .enumerate()
            .map(|(rank, communicator)| {
                let script = if rank == 1 {
                    script.clone()
                } else {
                    Vec::new()
                };
                scope.spawn(move || body(Box::new(Faulty::new(communicator, script))))
            })
            .collect();
        let outcome = |result: Result<(), CommError>| match result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string(),
        };
        ranks
            .into_iter()
            .map(|rank| outcome(rank.join().unwrap()))
            .collect()
    })
}

#[test]
fn ranks_that_disagree_on_the_collective_are_told_so() {
    let options = Options::default().with_collective(CollectiveChoice::Ring);
    let results = testing::world(2, &options, |communicator| {
        let region = communicator.allocate_f32(100)?;
        let len = 50 + 20 * communicator.rank();
        communicator.all_reduce(&Span {
            region: region.id(),
            range: 0..len,
        })
    });
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(!errors.is_empty());
    for error in errors
        .iter()
        .filter(|error| !matches!(error, CommError::Aborted { .. }))
    {
        assert!(
            error
                .to_string()
                .contains("same collectives in the same order"),
            "{error}"
        );
    }
}

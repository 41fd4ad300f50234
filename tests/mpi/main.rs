//! Collectives of MPI processes. Not for `cargo test` alone: `scripts/test-mpi.sh` starts it under
//! `mpirun`, without arguments for all collectives, with `steps`, `floats` or `bad-sample` and what is varied for
//! a run that is compared step by step or at its end, and with the name of a failure to see how it ends.

#![expect(
    clippy::unwrap_used,
    reason = "a rank that panics ends all ranks, which is a failed test"
)]
#![expect(clippy::print_stdout, reason = "what passed is this program's output")]

#[path = "../bad_sample/mod.rs"]
mod bad_sample;
#[path = "../collectives/mod.rs"]
mod collectives;
#[path = "../digits/mod.rs"]
mod digits;
#[path = "../lockstep/mod.rs"]
mod lockstep;

use std::time::{Duration, Instant};

use half::bf16;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::launcher::{Launcher, here};
use ringstep::comm::{
    Algorithm, CollectiveChoice, CommError, Communicator, Options, ReduceMode, Span, mpi,
};
use ringstep::optim::{ClipSpec, Lamb};
use ringstep::train::{Reducer, TrainError, run_rank};

use bad_sample::{SAMPLES, stops};
use collectives::{all_collectives, fixed_point_sums, half_sums, lengths, same_bits_everywhere};
use digits::{Digits, Recipe, distance};

fn main() {
    let launcher = here();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [test, collective, how, zero] = &arguments[..] {
        return match test.as_str() {
            "steps" => steps(&launcher, (collective, how, zero)),
            "floats" => floats(&launcher, (collective, how, zero)),
            "bad-sample" => bad_sample(&launcher, (collective, how, zero)),
            other => panic!("unknown test '{other}'"),
        };
    }
    let open = |options: &Options| mpi::connect(options, launcher.as_ref()).unwrap();
    // Keeps MPI initialised between tests.
    let mut whole = open(&patient());
    match arguments.first().map(String::as_str) {
        None => {
            let passed = everything(whole.world(), &launcher, &open);
            whole.barrier().unwrap();
            if whole.rank() == 0 {
                println!(
                    "{} ranks {}: {passed} passed",
                    mpi::library(),
                    whole.world()
                );
            }
        }
        Some("abort") => abort(whole.as_mut()),
        Some("timeout") => timeout(&open),
        Some("panic") => panic(whole.as_mut()),
        Some("kill") => kill(whole.as_mut()),
        Some(other) => panic!("unknown test '{other}'"),
    }
}

/// Trains, and compares all ranks after every step. In a process of its own: MPI belongs to the
/// thread that initialises it, and a trainer's is its reducer's.
fn steps(launcher: &Option<Launcher>, (collective, reduce, zero): (&str, &str, &str)) {
    let choice: CollectiveChoice = collective.parse().unwrap();
    let mode: ReduceMode = reduce.parse().unwrap();
    let body = |reducer| lockstep::train(reducer, mode, zero == "1");
    let (rank, world, ()) = run(launcher, choice, body);
    if rank == 0 {
        println!("{world} ranks {collective} {reduce} zero {zero}: in step");
    }
}

/// Trains with sums of floats. The weights are those of as many thread ranks without sharding, to the
/// bit, and those of one rank up to rounding.
fn floats(launcher: &Option<Launcher>, (collective, optimizer, zero): (&str, &str, &str)) {
    let choice: CollectiveChoice = collective.parse().unwrap();
    let recipe = Recipe {
        sharded: zero == "1",
        ..recipe(optimizer)
    };
    let digits = Digits::load();
    let (rank, world, (losses, weights)) =
        run(launcher, choice, |reducer| digits.train(reducer, &recipe));
    if rank > 0 {
        return;
    }
    let replicated = Recipe {
        sharded: false,
        ..recipe
    };
    let what = format!("{world} ranks {collective} {optimizer} zero {zero}");
    let threads = digits.train_threads((world, choice), &replicated);
    assert_eq!(losses, threads.0, "{what}: other losses than on threads");
    assert!(
        weights == threads.1,
        "{what}: other weights than on threads"
    );
    let one = digits.train_threads((1, CollectiveChoice::Auto), &replicated);
    let distance = distance(&weights, &one.1);
    assert!(distance < 1e-5, "{what}: {distance} from one rank");
    println!("{what}: {distance:.1e} from one rank");
}

/// Trains with a sample that is not finite; every rank asserts how that ends.
fn bad_sample(launcher: &Option<Launcher>, (collective, reduce, sample): (&str, &str, &str)) {
    let choice: CollectiveChoice = collective.parse().unwrap();
    let mode: ReduceMode = reduce.parse().unwrap();
    let number: usize = sample.parse().unwrap();
    let body = |reducer| stops(reducer, mode, SAMPLES[number]);
    let (rank, world, ()) = run(launcher, choice, body);
    println!("rank {rank} of {world} {collective} {reduce} sample {sample}: stopped");
}

/// Fifty steps of a global batch of four micro-batches.
fn recipe(optimizer: &str) -> Recipe {
    let adam = Recipe::adam(ReduceMode::F32, 8, 50);
    // So small that every gradient is clipped.
    let clip = Some(ClipSpec::GlobalNorm(0.1));
    match optimizer {
        "adam" => adam,
        "clipped-adam" => Recipe { clip, ..adam },
        "clipped-lamb" => Recipe {
            clip,
            optimizer: Lamb::default().into(),
            ..adam
        },
        other => panic!("unknown optimizer '{other}'"),
    }
}

/// Runs `body` as this process's rank: which it was, of how many, and what came out.
fn run<T>(
    launcher: &Option<Launcher>,
    choice: CollectiveChoice,
    body: impl Fn(Reducer) -> Result<T, TrainError>,
) -> (usize, usize, T) {
    let (options, opener) = (patient().with_collective(choice), launcher.clone());
    let connect = Box::new(move || mpi::connect(&options, opener.as_ref()));
    let body = |mut reducer: Reducer| {
        let (rank, world) = (reducer.rank(), reducer.world());
        let is_ring = reducer.algorithm()?.0 == Algorithm::Ring;
        assert_eq!(choice == CollectiveChoice::Ring, is_ring);
        body(reducer).map(|outcome| (rank, world, outcome))
    };
    run_rank(connect, &body).unwrap()
}

fn patient() -> Options {
    Options {
        chunk: 1024,
        patience: Duration::from_secs(60),
        ..Options::default()
    }
}

/// The ways to run `world` ranks, and what they must come to.
fn ways(world: usize) -> Vec<(Options, Algorithm)> {
    let with = |choice| patient().with_collective(choice);
    let mut ways = vec![
        (patient(), Algorithm::Direct),
        (with(CollectiveChoice::Ring), Algorithm::Ring),
        (
            Options {
                chunk: 64,
                ..with(CollectiveChoice::Ring)
            },
            Algorithm::Ring,
        ),
        (
            with(CollectiveChoice::Hierarchical),
            Algorithm::Hierarchical,
        ),
        // No memory can be shared: messages, whatever was chosen.
        (
            Options {
                shared_memory_limit: Some(0),
                ..patient()
            },
            Algorithm::Direct,
        ),
    ];
    if world > 1 {
        let split = |hosts: &[usize]| Options {
            hosts: hosts.to_vec(),
            ..patient()
        };
        let algorithm = if world == 2 {
            Algorithm::Ring
        } else {
            Algorithm::Hierarchical
        };
        ways.push((split(&[1, world - 1]), algorithm));
        ways.push((split(&[world.div_ceil(2), world / 2]), algorithm));
        // There is memory for the first regions only.
        ways.push((
            Options {
                shared_memory_limit: Some(5_000),
                ..ways[5].0.clone()
            },
            algorithm,
        ));
    }
    ways
}

/// Runs all that must succeed and counts it.
fn everything(
    world: usize,
    launcher: &Option<Launcher>,
    open: &dyn Fn(&Options) -> Box<dyn Communicator>,
) -> usize {
    let mut passed = 0;
    for (options, algorithm) in ways(world) {
        let mut communicator = open(&options);
        let communicator = communicator.as_mut();
        assert_eq!(
            (communicator.world(), communicator.algorithm()),
            (world, algorithm)
        );
        assert!(communicator.is_thread_bound());
        for len in lengths(world) {
            all_collectives::<f32>(communicator, &mut Cpu::new(), len);
            all_collectives::<bf16>(communicator, &mut Cpu::new(), len);
            all_collectives::<i64>(communicator, &mut Cpu::new(), len);
        }
        if options.shared_memory_limit.is_some() && world > 1 {
            assert_eq!(communicator.algorithm(), Algorithm::Ring, "what runs");
        }
        passed += 1;
        // Without shared memory direct sums go through the ring, in its order.
        if options.shared_memory_limit.is_none() {
            same_bits_everywhere(communicator, &mut Cpu::new(), 5000);
            half_sums(communicator, &mut Cpu::new(), 5000);
            for len in [0, 1, 5000] {
                let is_direct = algorithm == Algorithm::Direct;
                assert_eq!(fixed_point_sums(communicator, len), is_direct);
            }
            passed += 1;
        }
    }
    if world > 1 {
        passed += usize::from(refuses_what_does_not_fit(world, launcher));
    }
    passed
}

fn refuses_what_does_not_fit(world: usize, launcher: &Option<Launcher>) -> bool {
    let mut wrong = launcher.clone().unwrap();
    wrong.world = Some(world + 1);
    let problem = |result: Result<Box<dyn Communicator>, CommError>| match result {
        Ok(_) => panic!("connected"),
        Err(error) => error.to_string(),
    };
    let error = problem(mpi::connect(&patient(), Some(&wrong)));
    assert!(
        error.contains(&format!("but MPI counts {world}")),
        "{error}"
    );
    let options = Options {
        hosts: vec![world, 1],
        ..patient()
    };
    let error = problem(mpi::connect(&options, None));
    assert!(error.contains("do not add up"), "{error}");
    true
}

/// The last rank gives up; all others say so, in whichever call they are by then.
fn abort(communicator: &mut dyn Communicator) {
    let region = communicator.allocate_f32(100_000);
    let last = communicator.world() - 1;
    if communicator.rank() == last {
        region.unwrap();
        communicator.abort("disk full");
    } else {
        let sum = region.and_then(|region| communicator.all_reduce(&whole(region.id(), 100_000)));
        let error = sum.unwrap_err();
        assert_eq!(error.to_string(), format!("rank {last} stopped: disk full"));
        println!("rank {}: {error}", communicator.rank());
    }
    // A rank that ends without finalising ends the others: let them speak first.
    std::thread::sleep(Duration::from_secs(1));
}

/// The last rank does not come; all others name it in time, on one host and on two.
fn timeout(open: &dyn Fn(&Options) -> Box<dyn Communicator>) {
    let patience = Duration::from_millis(500);
    let mut communicators = [
        open(&Options {
            patience,
            ..patient()
        }),
        open(
            &Options {
                patience,
                ..patient()
            }
            .with_collective(CollectiveChoice::Ring),
        ),
        open(&Options {
            patience,
            hosts: vec![1, open(&patient()).world() - 1],
            ..patient()
        }),
    ];
    let last = communicators[0].world() - 1;
    let regions = communicators
        .each_mut()
        .map(|c| c.allocate_f32(5000).unwrap());
    if communicators[0].rank() == last {
        std::thread::sleep(Duration::from_secs(4));
        return;
    }
    for (communicator, region) in communicators.iter_mut().zip(regions) {
        let start = Instant::now();
        let error = communicator
            .all_reduce(&whole(region.id(), 5000))
            .unwrap_err();
        assert!(start.elapsed() < 3 * patience, "{:?}", start.elapsed());
        // Its own time was over, or another rank's first.
        assert!(
            error
                .to_string()
                .contains(&format!("rank {last} did not arrive")),
            "{error}"
        );
        println!("rank {}: {error}", communicator.rank());
    }
    std::thread::sleep(Duration::from_secs(2));
}

/// The last rank panics; nobody waits for it.
fn panic(communicator: &mut dyn Communicator) {
    let last = communicator.world() - 1;
    assert!(communicator.rank() != last, "on purpose");
    communicator.barrier().unwrap();
}

/// The last rank is killed while memory is shared.
fn kill(communicator: &mut dyn Communicator) {
    let region = communicator.allocate_f32(100_000).unwrap();
    communicator
        .all_reduce(&whole(region.id(), 100_000))
        .unwrap();
    if communicator.rank() == communicator.world() - 1 {
        // SAFETY: the process ends here; that is the point.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    communicator.barrier().unwrap();
}

fn whole(region: usize, len: usize) -> Span {
    Span {
        region,
        range: 0..len,
    }
}

//! Sums of ranks on GPUs by NCCL, and how it ends when one of them fails.
//!
//! Every scenario is a process of its own, since the emulator reads what it is to do once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use half::bf16;
use ringstep::backend::cuda::Cuda;
use ringstep::comm::nccl::{self, Nccl, NcclAlgorithm};
use ringstep::comm::{CommError, Communicator, Options, Span, threads};

use crate::collectives::{all_collectives, half_sums, lengths, same_bits_everywhere};
use crate::twins::alone;

/// Names the scenario that a process of its own runs.
const SCENARIO: &str = "RINGSTEP_TEST_NCCL_SCENARIO";

/// Longest that any failure may take to be noticed and to end.
const SOON: Duration = Duration::from_secs(20);

/// Runs a scenario on emulated GPUs; on real ones the variables mean nothing.
fn run(scenario: &str, variables: &[(&str, &str)]) {
    let start = Instant::now();
    let emulated = [("FAKE_CUDA_DEVICES", "4"), (SCENARIO, scenario)];
    let output = alone("nccl::scenario", &[&emulated[..], variables].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {said}");
    assert!(
        start.elapsed() < 3 * SOON,
        "{scenario}: {:?}",
        start.elapsed()
    );
}

#[test]
#[ignore = "a process that another test starts"]
fn scenario() {
    match std::env::var(SCENARIO).unwrap().as_str() {
        "collectives" => collectives(),
        "a rank that does not come" => late(),
        "a device that does not come" => stalled(),
        "an error inside" => failing(),
        "a rank that gives up" => giving_up(),
        "calls that do not match" => mismatching(),
        "two ranks on one GPU" => sharing(),
        other => panic!("unknown scenario '{other}'"),
    }
}

/// What each of `ranks` ranks makes of `body`, each on the GPU of its number.
fn world<R: Send>(
    ranks: usize,
    patience: Duration,
    body: impl Fn(&mut Nccl, &mut Cuda) -> Result<R, CommError> + Sync,
) -> Vec<Result<R, CommError>> {
    let options = Options {
        patience,
        ..Options::default()
    };
    let (library, gpus) = (
        nccl::load(NcclAlgorithm::Ring).unwrap(),
        Cuda::count().unwrap(),
    );
    thread::scope(|scope| {
        let ranks: Vec<_> = threads(ranks, &options)
            .unwrap()
            .into_iter()
            .map(|host| {
                let body = &body;
                scope.spawn(move || {
                    let mut cuda = Cuda::new(host.rank() % gpus).unwrap();
                    let mut nccl = Nccl::connect(library, cuda.clone(), host)?;
                    body(&mut nccl, &mut cuda)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn patient() -> Duration {
    Duration::from_secs(60)
}

/// Two sums, the second of which is looked after until it is over.
fn two_sums(nccl: &mut Nccl) -> Result<(), CommError> {
    let region = nccl.allocate_f32(100)?;
    let span = whole(region.id(), 100);
    nccl.all_reduce(&span)?;
    nccl.barrier()?;
    nccl.all_reduce(&span)?;
    nccl.barrier()
}

fn whole(region: usize, len: usize) -> Span {
    Span {
        region,
        range: 0..len,
    }
}

fn collectives() {
    let library = nccl::load(NcclAlgorithm::Ring).unwrap().to_string();
    assert!(library.starts_with("NCCL 2."), "{library}");
    assert!(library.contains("libnccl.so"), "{library}");
    assert!(library.ends_with(", NCCL_ALGO=Ring"), "{library}");
    let gpus = Cuda::count().unwrap();
    assert!(gpus >= 4 || !Cuda::new(0).unwrap().name().starts_with("Emulated"));
    for ranks in 1..=gpus.min(4) {
        let results = world(ranks, patient(), |nccl, cuda| {
            for len in lengths(ranks) {
                all_collectives::<f32>(nccl, cuda, len);
                all_collectives::<bf16>(nccl, cuda, len);
                all_collectives::<i64>(nccl, cuda, len);
            }
            same_bits_everywhere(nccl, cuda, 500);
            half_sums(nccl, cuda, 500);
            Ok(())
        });
        assert_eq!(results.into_iter().filter(Result::is_ok).count(), ranks);
    }
}

fn late() {
    let patience = Duration::from_secs(1);
    let over = AtomicBool::new(false);
    let results = world(3, patience, |nccl, _| {
        let region = nccl.allocate_f32(100)?;
        nccl.barrier()?;
        if nccl.rank() == 2 {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            return Ok(());
        }
        let start = Instant::now();
        nccl.all_reduce(&whole(region.id(), 100))?;
        assert!(start.elapsed() < patience, "it returns when it is queued");
        let result = loop {
            thread::sleep(Duration::from_millis(10));
            if let Err(error) = nccl.poll() {
                break Err(error);
            }
            assert!(start.elapsed() < SOON);
        };
        over.store(true, Ordering::Relaxed);
        // What comes after a failure fails alike.
        let again = nccl.all_reduce(&whole(region.id(), 100)).unwrap_err();
        assert!(
            again.to_string().contains("rank 2 did not arrive"),
            "{again}"
        );
        result
    });
    for result in &results[..2] {
        let error = result.as_ref().unwrap_err().to_string();
        assert!(
            error.contains("all-reduce: rank 2 did not arrive within 1s"),
            "{error}"
        );
    }
}

fn stalled() {
    let results = world(3, Duration::from_secs(1), |nccl, _| two_sums(nccl));
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("every rank has begun it, but it is not over after 1s"),
            "{error}"
        );
    }
}

fn failing() {
    let errors: Vec<_> = world(3, patient(), |nccl, _| two_sums(nccl))
        .into_iter()
        .map(|result| result.unwrap_err().to_string())
        .collect();
    let named = |error: &String| error.contains("all-reduce failed on rank 1: NCCL 2.");
    assert!(errors.iter().all(named), "{errors:?}");
}

fn giving_up() {
    let results = world(3, patient(), |nccl, _| {
        if nccl.rank() == 2 {
            nccl.barrier()?;
            nccl.abort("disk full");
            return Ok(());
        }
        let region = nccl.allocate_f32(100)?;
        nccl.barrier()?;
        nccl.all_reduce(&whole(region.id(), 100))?;
        nccl.barrier()
    });
    for result in &results[..2] {
        let error = result.as_ref().unwrap_err().to_string();
        assert_eq!(error, "rank 2 stopped: disk full");
    }
}

fn mismatching() {
    let results = world(2, patient(), |nccl, _| {
        let region = nccl.allocate_f32(100)?;
        nccl.all_reduce(&whole(region.id(), 100 - 50 * nccl.rank()))?;
        nccl.barrier()
    });
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("all-reduce failed on rank"), "{error}");
    }
}

fn sharing() {
    let gpus = Cuda::count().unwrap();
    for result in world(gpus + 1, patient(), |_, _| Ok(())) {
        let error = result.unwrap_err().to_string();
        let expected = format!("ranks 0 and {gpus} are on the same GPU; ");
        assert!(error.contains(&expected), "{error}");
        assert!(error.contains("--collective staged"), "{error}");
    }
}

#[test]
fn every_collective_of_every_type_is_that_of_the_host() {
    run("collectives", &[]);
    run("collectives", &[("FAKE_CUDA_STREAMS", "deferred")]);
}

#[test]
fn a_rank_that_does_not_come_is_named_on_3_gpus() {
    run("a rank that does not come", &[]);
}

#[test]
fn a_device_that_does_not_come_is_noticed_by_faults() {
    run(
        "a device that does not come",
        &[("FAKE_NCCL_FAIL", "1:2:stall")],
    );
}

#[test]
fn an_error_of_the_library_reaches_every_rank_in_its_words_by_faults() {
    run("an error inside", &[("FAKE_NCCL_FAIL", "1:2:error")]);
}

#[test]
fn a_rank_that_gives_up_is_named_to_the_others_on_3_gpus() {
    run("a rank that gives up", &[]);
}

#[test]
fn calls_that_do_not_match_fail_everywhere_by_faults() {
    run("calls that do not match", &[]);
}

#[test]
fn two_ranks_on_one_gpu_are_found_before_the_library_is_asked() {
    run("two ranks on one GPU", &[("FAKE_CUDA_DEVICES", "2")]);
}

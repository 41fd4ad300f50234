//! Sums of ranks on GPUs through the host's memory.

use std::thread;

use half::bf16;
use ringstep::backend::cuda::Cuda;
use ringstep::comm::{CollectiveChoice, Communicator, Options, Staged, threads};

use crate::collectives::{
    all_collectives, fixed_point_sums, half_sums, lengths, same_bits_everywhere,
};

/// Runs `body` on each of `ranks` threads, which share the GPUs that there are.
fn world(
    ranks: usize,
    collective: CollectiveChoice,
    body: impl Fn(&mut dyn Communicator, &mut Cuda) + Sync,
) {
    let options = Options::default().with_collective(collective);
    let gpus = Cuda::count().unwrap();
    thread::scope(|scope| {
        for inner in threads(ranks, &options).unwrap() {
            let body = &body;
            scope.spawn(move || {
                let mut cuda = Cuda::new(inner.rank() % gpus).unwrap();
                body(&mut Staged::new(cuda.clone(), inner), &mut cuda);
            });
        }
    });
}

#[test]
fn every_collective_of_every_type_is_that_of_the_host() {
    for ranks in 1..=3 {
        for collective in [CollectiveChoice::Direct, CollectiveChoice::Ring] {
            world(ranks, collective, |communicator, cuda| {
                for len in lengths(ranks) {
                    all_collectives::<f32>(communicator, cuda, len);
                    all_collectives::<bf16>(communicator, cuda, len);
                    all_collectives::<i64>(communicator, cuda, len);
                }
                same_bits_everywhere(communicator, cuda, 500);
                half_sums(communicator, cuda, 500);
                assert!(!fixed_point_sums(communicator, 500));
            });
        }
    }
}

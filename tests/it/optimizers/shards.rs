//! Ranks that each step their shards end with the bits of one rank that steps everything.

use std::sync::{Barrier, Mutex};

use ringstep::params::partition;

use super::*;

/// Merges block sums, and gathers parameters, over threads.
struct Team {
    barrier: Barrier,
    sums: Mutex<Vec<f64>>,
    parameters: Mutex<Vec<f32>>,
}

impl BlockExchange for &Team {
    fn is_shared(&self) -> bool {
        true
    }

    fn complete(&mut self, sums: &mut [f64]) -> Result<(), CommError> {
        self.barrier.wait();
        self.sums.lock().unwrap().resize(sums.len(), 0.0);
        for (all, mine) in self.sums.lock().unwrap().iter_mut().zip(&*sums) {
            assert!(*all == 0.0 || *mine == 0.0, "two ranks own a block");
            *all += mine;
        }
        self.barrier.wait();
        sums.copy_from_slice(&self.sums.lock().unwrap());
        self.barrier.wait();
        self.sums.lock().unwrap().clear();
        Ok(())
    }
}

/// Parameters after five steps of `world` ranks that each step their shards of two buckets.
fn train_sharded(spec: &OptimizerSpec, clip: ClipSpec, world: usize) -> Vec<f32> {
    let layout = mixed_layout();
    let blocks = blocks(&layout);
    let buckets = [0..blocks / 3, blocks / 3..blocks];
    let team = Team {
        barrier: Barrier::new(world),
        sums: Mutex::default(),
        parameters: Mutex::new(vec![0.0; layout.arena_len(1)]),
    };
    fill_tensors(&layout, &mut team.parameters.lock().unwrap(), 1);
    let run = |rank: usize| {
        let owned = buckets.clone().map(|bucket| {
            let part = partition(bucket.len(), world, rank);
            (bucket.start + part.start) * ALIGNMENT..(bucket.start + part.end) * ALIGNMENT
        });
        let mut replica = Replica::new(spec, Some(clip), &layout, &owned);
        for step in 0..5 {
            replica.p.copy_from_slice(&team.parameters.lock().unwrap());
            fill_tensors(&layout, &mut replica.g, 2 + step);
            team.barrier.wait();
            replica.step(0.05, 0.5, &mut &team);
            for segment in &replica.segments {
                let part = segment.arena.clone();
                team.parameters.lock().unwrap()[part.clone()].copy_from_slice(&replica.p[part]);
            }
            team.barrier.wait();
            replica.assert_padding_is_zero(spec.name());
        }
    };
    std::thread::scope(|scope| {
        (0..world).for_each(|rank| drop(scope.spawn(move || run(rank))));
    });
    team.parameters.into_inner().unwrap()
}

#[test]
fn shards_step_to_the_same_bits_and_padding_stays_zero() {
    let bits = |p: Vec<f32>| p.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for spec in every_optimizer() {
        for clip in [ClipSpec::GlobalNorm(0.7), ClipSpec::Value(0.2)] {
            let whole = bits(train_sharded(&spec, clip, 1));
            for world in 2..=5 {
                let sharded = bits(train_sharded(&spec, clip, world));
                assert_eq!(whole, sharded, "{spec:?} on {world} ranks, {clip:?}");
            }
        }
    }
}

//! State of one thread block: shared memory and barriers.

use std::collections::BTreeMap;

use crate::async_copy::PendingTensorCopy;
use crate::shadow::Shadow;
use crate::warp::Warp;

/// A named barrier (`bar.sync id, count`); count 0 means all threads of the block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BarrierKey {
    pub id: u32,
    pub count: u32,
}

/// Lanes that have arrived at a barrier and wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub barrier: BarrierKey,
    pub warp: usize,
    pub frame: usize,
    /// Where the lanes continue.
    pub pc: u32,
    pub mask: u32,
    /// `bar.red`: destination and operation are applied on release.
    pub reduction: Option<Reduction>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reduction {
    pub destination: u32,
    pub operation: ReductionOp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReductionOp {
    And,
    Or,
    Popc,
}

pub(crate) struct Block {
    pub ctaid: [u32; 3],
    pub shared: Vec<u8>,
    pub shadow: Shadow,
    pub waiting: Vec<Waiting>,
    arrived: BTreeMap<BarrierKey, u32>,
    /// Per barrier: number of arrived threads whose predicate was true (`bar.red`).
    votes: BTreeMap<BarrierKey, u32>,
    pub live_threads: u32,
    /// Counts barrier phases; accesses in different phases never race.
    pub epoch: u32,
    pub last_region: usize,
    pub tensor_copies: Vec<PendingTensorCopy>,
    /// mbarrier polls since the last one that succeeded.
    pub failed_polls: u64,
    /// A poll failed: let other warps run.
    pub yield_warp: bool,
}

impl Block {
    pub(crate) fn new(ctaid: [u32; 3], threads: u32, shared_bytes: usize) -> Self {
        Block {
            ctaid,
            // Unwritten shared memory reads as NaN.
            shared: vec![0xff; shared_bytes],
            shadow: Shadow::new(shared_bytes),
            waiting: Vec::new(),
            arrived: BTreeMap::new(),
            votes: BTreeMap::new(),
            live_threads: threads,
            epoch: 1,
            last_region: 0,
            tensor_copies: Vec::new(),
            failed_polls: 0,
            yield_warp: false,
        }
    }

    /// Counts threads arriving at a barrier; `votes` of them with a true predicate.
    pub(crate) fn arrive(&mut self, key: BarrierKey, threads: u32, votes: u32) {
        *self.arrived.entry(key).or_insert(0) += threads;
        *self.votes.entry(key).or_insert(0) += votes;
    }

    /// Releases every barrier at which all expected threads have arrived.
    pub(crate) fn release_barriers(&mut self, warps: &mut [Warp]) {
        if self.arrived.is_empty() || self.live_threads == 0 {
            return;
        }
        let live = self.live_threads;
        let full = |(key, &n): (&BarrierKey, &u32)| {
            let wanted = if key.count == 0 { live } else { key.count };
            (n >= wanted).then_some((*key, n))
        };
        let ready: Vec<_> = self.arrived.iter().filter_map(full).collect();
        for (key, threads) in ready {
            self.arrived.remove(&key);
            let votes = self.votes.remove(&key).unwrap_or(0);
            self.epoch += 1;
            let (released, kept) = std::mem::take(&mut self.waiting)
                .into_iter()
                .partition(|w| w.barrier == key);
            self.waiting = kept;
            let released: Vec<Waiting> = released;
            for wait in released {
                let warp = &mut warps[wait.warp];
                if let Some(reduction) = wait.reduction {
                    let value = match reduction.operation {
                        ReductionOp::And => u64::from(votes == threads),
                        ReductionOp::Or => u64::from(votes > 0),
                        ReductionOp::Popc => u64::from(votes),
                    };
                    let register = reduction.destination as usize;
                    let lanes = &mut warp.frames[wait.frame].registers[register];
                    crate::warp::lanes_of(wait.mask).for_each(|l| lanes[l] = value);
                }
                warp.add_group(wait.frame, wait.pc, wait.mask);
            }
        }
    }
}

//! Norms of whole tensors where each rank has only its shard of them.

use super::TrainError;
use super::reducer::{Job, Reducer};
use crate::backend::Region;
use crate::comm::{CommError, Span};
use crate::optim::{BlockExchange, blocks};
use crate::params::Layout;

/// Completes norms under ZeRO-1: each rank has the blocks of its shard, as bit patterns that an
/// integer sum over ranks merges, since nobody else has anything but zero there.
pub(super) struct Exchange {
    blocks: Option<Region<i64>>,
}

pub(super) struct Exchanging<'a> {
    blocks: Option<&'a Region<i64>>,
    reducer: &'a mut Reducer,
}

impl Exchange {
    pub(super) fn new(
        sharded: bool,
        layout: &Layout,
        reducer: &mut Reducer,
    ) -> Result<Self, TrainError> {
        let blocks = if sharded {
            Some(reducer.allocate_host_i64("norms of shards", blocks(layout))?)
        } else {
            None
        };
        Ok(Self { blocks })
    }

    /// For one step, on this rank's reducer.
    pub(super) fn with<'a>(&'a self, reducer: &'a mut Reducer) -> Exchanging<'a> {
        Exchanging {
            blocks: self.blocks.as_ref(),
            reducer,
        }
    }
}

impl BlockExchange for Exchanging<'_> {
    fn is_shared(&self) -> bool {
        self.blocks.is_some()
    }

    fn complete(&mut self, sums: &mut [f64]) -> Result<(), CommError> {
        let Some(blocks) = self.blocks else {
            return Ok(());
        };
        let range = 0..sums.len();
        // SAFETY: outside its collective the region is this rank's own.
        let cells = unsafe { blocks.slice_mut(range.clone()) };
        for (cell, sum) in cells.iter_mut().zip(&*sums) {
            *cell = sum.to_bits() as i64;
        }
        self.reducer.run(Job::AllReduce(Span {
            region: blocks.id(),
            range: range.clone(),
        }))?;
        // SAFETY: the collective is over.
        for (sum, &cell) in sums.iter_mut().zip(unsafe { blocks.slice(range) }) {
            *sum = f64::from_bits(cell as u64);
        }
        Ok(())
    }
}

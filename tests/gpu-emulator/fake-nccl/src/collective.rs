//! AllReduce, Reduce, Broadcast, AllGather, ReduceScatter.
//!
//! Data goes through the staging buffers piece by piece: every rank publishes its piece, waits for
//! the others, takes what it needs from all of them, and says so. Sums are made in ring order: chunk
//! c of an AllReduce starts at rank c and goes once around the ring.

use std::sync::atomic::Ordering;

use crate::comm::Comm;
use crate::progress::Status;
use crate::reduce::{reduce, DataType, ReduceOp};
use crate::result::{failure, NcclError, NcclResult};
use crate::shm::{load, store, PIECE_BYTES};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    AllReduce,
    Reduce,
    Broadcast,
    AllGather,
    ReduceScatter,
}

const KINDS: [Kind; 5] = [
    Kind::AllReduce,
    Kind::Reduce,
    Kind::Broadcast,
    Kind::AllGather,
    Kind::ReduceScatter,
];

pub(crate) struct Collective {
    pub kind: Kind,
    pub send: u64,
    pub receive: u64,
    /// As in the call.
    pub count: usize,
    pub ty: DataType,
    pub op: ReduceOp,
    pub root: usize,
}

#[derive(Default)]
pub(crate) struct CollectiveState {
    entered: bool,
    agreed: bool,
    published: bool,
    piece: usize,
    /// Number of the first piece in the life of the communicator.
    first_piece: u64,
}

fn describe(kind: Kind, count: u64, ty: &str, op: &str, root: u32) -> String {
    match kind {
        Kind::AllReduce | Kind::ReduceScatter => format!("{kind:?}(count {count}, {ty}, {op})"),
        Kind::Reduce => format!("{kind:?}(count {count}, {ty}, {op}, root {root})"),
        Kind::Broadcast => format!("{kind:?}(count {count}, {ty}, root {root})"),
        Kind::AllGather => format!("{kind:?}(count {count}, {ty})"),
    }
}

impl Collective {
    pub(crate) fn describe(&self) -> String {
        let (ty, op) = (format!("{:?}", self.ty), format!("{:?}", self.op));
        describe(self.kind, self.count as u64, &ty, &op, self.root as u32)
    }

    fn shape(&self) -> [u32; 4] {
        let kind = KINDS.iter().position(|k| *k == self.kind).unwrap_or(0);
        let uses_op = !matches!(self.kind, Kind::Broadcast | Kind::AllGather);
        let uses_root = matches!(self.kind, Kind::Broadcast | Kind::Reduce);
        let op = if uses_op { self.op as u32 } else { 0 };
        let root = if uses_root { self.root as u32 } else { 0 };
        [kind as u32, self.ty as u32, op, root]
    }

    /// Elements each rank puts in.
    fn contribution(&self, ranks: usize) -> usize {
        match self.kind {
            Kind::ReduceScatter => self.count * ranks,
            _ => self.count,
        }
    }

    pub(crate) fn input(&self, comm: &Comm) -> (u64, usize) {
        let bytes = self.contribution(comm.ranks) * self.ty.bytes();
        match self.kind {
            Kind::Broadcast if comm.rank != self.root => (0, 0),
            _ => (self.send, bytes),
        }
    }

    pub(crate) fn output(&self, comm: &Comm) -> (u64, usize) {
        let elements = match self.kind {
            Kind::AllGather => self.count * comm.ranks,
            Kind::Reduce if comm.rank != self.root => 0,
            _ => self.count,
        };
        (self.receive, elements * self.ty.bytes())
    }

    pub(crate) fn advance(&self, comm: &Comm, state: &mut CollectiveState) -> NcclResult<Status> {
        let slots = comm.segment.slots();
        if !state.entered {
            let own = comm.slot();
            for (to, value) in own.shape.iter().zip(self.shape()) {
                to.store(value, Ordering::Release);
            }
            store(&own.count, self.count as u64);
            let number = comm.collectives.fetch_add(1, Ordering::AcqRel) + 1;
            store(&own.entered, number);
            state.first_piece = comm.pieces.load(Ordering::Acquire);
            state.entered = true;
        }
        if !state.agreed {
            let number = load(&comm.slot().entered);
            if slots.iter().any(|s| load(&s.entered) < number) {
                return Ok(Status::Waiting);
            }
            self.check_agreement(comm)?;
            state.agreed = true;
        }
        let per_piece = PIECE_BYTES / self.ty.bytes();
        let total = self.contribution(comm.ranks);
        let pieces = total.div_ceil(per_piece).max(1);
        let number = state.first_piece + state.piece as u64;
        let start = state.piece * per_piece;
        let end = (start + per_piece).min(total);
        if !state.published {
            // The staging buffer is free when everybody has taken the previous piece.
            if slots.iter().any(|s| load(&s.consumed) < number) {
                return Ok(Status::Waiting);
            }
            self.publish(comm, start, end);
            store(&comm.slot().published, number + 1);
            state.published = true;
        }
        if slots.iter().any(|s| load(&s.published) < number + 1) {
            return Ok(Status::Waiting);
        }
        self.take(comm, start, end);
        store(&comm.slot().consumed, number + 1);
        comm.pieces.store(number + 1, Ordering::Release);
        state.piece += 1;
        state.published = false;
        Ok(if state.piece == pieces {
            Status::Done
        } else {
            Status::Moved
        })
    }

    /// The ranks that have not done what we wait for.
    pub(crate) fn missing(&self, comm: &Comm, state: &CollectiveState) -> Vec<usize> {
        let number = state.first_piece + state.piece as u64;
        let entered = load(&comm.slot().entered);
        let slots = comm.segment.slots().iter().enumerate();
        let behind = slots.filter(|(_, s)| match (state.agreed, state.published) {
            (false, _) => load(&s.entered) < entered,
            (true, false) => load(&s.consumed) < number,
            (true, true) => load(&s.published) < number + 1,
        });
        behind.map(|(rank, _)| rank).collect()
    }

    fn check_agreement(&self, comm: &Comm) -> NcclResult {
        let (shape, count) = (self.shape(), self.count as u64);
        for (rank, slot) in comm.segment.slots().iter().enumerate() {
            let theirs: [u32; 4] = std::array::from_fn(|k| slot.shape[k].load(Ordering::Acquire));
            let their_count = load(&slot.count);
            if theirs == shape && their_count == count {
                continue;
            }
            let kind = KINDS.get(theirs[0] as usize).copied().unwrap_or(self.kind);
            let ty = DataType::from_code(theirs[1] as i32).map_or("?".into(), |t| format!("{t:?}"));
            let op = ReduceOp::from_code(theirs[2] as i32).map_or("?".into(), |o| format!("{o:?}"));
            let message = format!(
                "mismatch in collective {}: rank {} called {}, but rank {rank} called {}",
                load(&comm.slot().entered),
                comm.rank,
                self.describe(),
                describe(kind, their_count, &ty, &op, theirs[3]),
            );
            return Err(failure(NcclError::InvalidUsage, message));
        }
        Ok(())
    }

    fn publish(&self, comm: &Comm, start: usize, end: usize) {
        if self.kind == Kind::Broadcast && comm.rank != self.root {
            return;
        }
        let size = self.ty.bytes();
        // SAFETY: the send buffer was checked; the staging buffer holds a piece and is ours now.
        unsafe {
            let from = (self.send as *const u8).add(start * size);
            std::ptr::copy_nonoverlapping(
                from,
                comm.segment.staging(comm.rank),
                (end - start) * size,
            );
        }
    }

    /// Takes elements start..end of everybody's contribution.
    fn take(&self, comm: &Comm, start: usize, end: usize) {
        let ranks = comm.ranks;
        match self.kind {
            Kind::Broadcast => self.copy(comm, self.root, start, start, end),
            Kind::AllGather => {
                for rank in 0..ranks {
                    self.copy(comm, rank, rank * self.count + start, start, end);
                }
            }
            Kind::Reduce if comm.rank != self.root => {}
            Kind::Reduce => self.reduce(comm, self.root + 1, start, start, start, end),
            Kind::AllReduce => {
                let chunk = self.count.div_ceil(ranks).max(1);
                let mut from = start;
                while from < end {
                    let to = ((from / chunk + 1) * chunk).min(end);
                    self.reduce(comm, from / chunk, from, start, from, to);
                    from = to;
                }
            }
            Kind::ReduceScatter => {
                let own = comm.rank * self.count;
                let (from, to) = (start.max(own), end.min(own + self.count));
                if from < to {
                    self.reduce(comm, comm.rank + 1, from - own, start, from, to);
                }
            }
        }
    }

    /// Copies elements start..end of a rank's piece to an element offset of the receive buffer.
    fn copy(&self, comm: &Comm, rank: usize, at: usize, start: usize, end: usize) {
        let size = self.ty.bytes();
        // SAFETY: the receive buffer was checked; the staging buffer holds this piece.
        unsafe {
            let to = (self.receive as *mut u8).add(at * size);
            std::ptr::copy_nonoverlapping(comm.segment.staging(rank), to, (end - start) * size);
        }
    }

    /// Reduces elements from..to (of a piece beginning at `piece`), around the ring from `first`.
    fn reduce(&self, comm: &Comm, first: usize, at: usize, piece: usize, from: usize, to: usize) {
        let size = self.ty.bytes();
        let source = |k: usize| {
            let rank = (first + k) % comm.ranks;
            // SAFETY: inside the staging buffer.
            unsafe {
                comm.segment
                    .staging(rank)
                    .add((from - piece) * size)
                    .cast_const()
            }
        };
        let sources: Vec<*const u8> = (0..comm.ranks).map(source).collect();
        // SAFETY: the receive buffer was checked, and is not part of the staging buffers.
        unsafe {
            let out = (self.receive as *mut u8).add(at * size);
            reduce(self.ty, self.op, &sources, out, to - from);
        }
    }
}

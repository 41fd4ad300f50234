//! Direct within a host, rings of messages between hosts.
//!
//! Hosts `A` (ranks 0, 1) and `B` (ranks 2, 3), a vector of four pieces `a b c d`, one for each
//! rank. Lane 0 is ranks 0 and 2, the first of each host, with their pieces `a` and `c`; lane 1 is
//! ranks 1 and 3 with `b` and `d`.
//!
//! ```text
//! meet      on each host
//! rank 0    sums a, c of ranks 0, 1        rank 2   sums a, c of ranks 2, 3
//! rank 1    sums b, d of ranks 0, 1        rank 3   sums b, d of ranks 2, 3
//! ring      of 0 and 2 over a, c           ring     of 1 and 3 over b, d
//! meet      on each host
//! rank 0    copies b, d from rank 1        rank 2   copies b, d from rank 3
//! rank 1    copies a, c from rank 0        rank 3   copies a, c from rank 2
//! meet      on each host
//! ```
//!
//! So every rank has its own messages under way, and together those of a host send what one rank
//! of a ring of hosts would: `2 (h - 1) / h * b` bytes for `h` hosts. A host with fewer ranks than
//! the largest has some of them lead in several lanes; its lanes beyond its ranks hold no piece of
//! its own.

use super::CommError;
use super::cells::Summand;
use super::direct::Direct;
use super::options::Hosts;
use super::ring::{Group, Ring, Steps};
use super::transport::Transport;

/// One collective of ranks on several hosts.
pub(crate) struct Hierarchical<'a, T, E> {
    pub(crate) local: Direct<'a, E>,
    pub(crate) hosts: &'a Hosts,
    pub(crate) ring: &'a mut Ring<T>,
}

impl<T: Transport, E: Summand> Hierarchical<'_, T, E> {
    /// Sums over all ranks, to all or each piece to its rank.
    pub(crate) fn reduce(&mut self, steps: Steps) -> Result<(), CommError> {
        self.local.gate.meet(self.ring.transport())?;
        let len = self.local.range.len();
        for lane in 0..self.hosts.largest() {
            if self.leader(lane) == self.local.gate.index() {
                for host in 0..self.hosts.count() {
                    self.local.reduce(self.hosts.piece(host, lane, len));
                }
                self.exchange(lane, steps)?;
            }
        }
        self.local.gate.meet(self.ring.transport())?;
        if steps == Steps::ALL_REDUCE {
            self.fetch_lanes()?;
        }
        Ok(())
    }

    /// Spreads every rank's piece.
    pub(crate) fn all_gather(&mut self) -> Result<(), CommError> {
        for lane in 0..self.hosts.largest() {
            if self.leader(lane) == self.local.gate.index() {
                self.exchange(lane, Steps::ALL_GATHER)?;
            }
        }
        self.local.gate.meet(self.ring.transport())?;
        self.fetch_lanes()
    }

    /// Copies the span of `root` to all: to one rank of every host, and there to the others.
    pub(crate) fn broadcast(&mut self, root: usize) -> Result<(), CommError> {
        let source = self.hosts.host(root);
        let leader = |host| {
            if host == source {
                root
            } else {
                self.hosts.leader(host, 0)
            }
        };
        let host = self.hosts.host(self.ring.rank());
        let group = Group {
            index: host,
            len: self.hosts.count(),
            members: &leader,
        };
        let own = self.local.gate.index();
        if self.ring.rank() == leader(host) {
            self.ring.broadcast(group, self.local.memory(own), source)?;
        }
        self.local.gate.meet(self.ring.transport())?;
        let from = self
            .local
            .gate
            .ranks()
            .iter()
            .position(|&rank| rank == leader(host));
        self.local
            .fetch(from.unwrap_or(0), 0..self.local.range.len());
        self.local.gate.meet(self.ring.transport())
    }

    /// The ring of a lane's leaders, over its pieces.
    fn exchange(&mut self, lane: usize, steps: Steps) -> Result<(), CommError> {
        let hosts = self.hosts;
        let index = hosts.host(self.ring.rank());
        let leader = |host| hosts.leader(host, lane);
        let group = Group {
            index,
            len: hosts.count(),
            members: &leader,
        };
        let own = self.local.memory(self.local.gate.index());
        self.ring
            .run(group, own, |host| hosts.piece(host, lane, own.len()), steps)
    }

    /// Copies what others of this host lead.
    fn fetch_lanes(&mut self) -> Result<(), CommError> {
        let len = self.local.range.len();
        for lane in 0..self.hosts.largest() {
            for host in 0..self.hosts.count() {
                self.local
                    .fetch(self.leader(lane), self.hosts.piece(host, lane, len));
            }
        }
        self.local.gate.meet(self.ring.transport())
    }

    /// The index on this host of its leader in `lane`.
    fn leader(&self, lane: usize) -> usize {
        lane % self.local.gate.ranks().len()
    }
}

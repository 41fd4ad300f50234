//! Collectives of ranks that share memory: each reads its piece of everybody's.
//!
//! Four ranks, eight elements: rank `r` owns elements `2r..2r+2`.
//!
//! ```text
//! meet            everybody's values are written
//! rank r          sums elements 2r..2r+2 of ranks 0, 1, 2, 3, in this order,
//!                 and stores the sums in the memory of ranks 0, 1, 2, 3
//! meet            everybody's sums are stored
//! ```
//!
//! Cost for `n` ranks and `b` bytes each: two meetings, and every rank reads `b` bytes and writes
//! `b` bytes; nothing is read or written twice. The order of the additions is that of the ranks for
//! every element, so that no bit depends on how the elements are divided.

use std::ops::Range;

use super::CommError;
use super::cells::{Cells, Summand, sum};
use super::gate::Gate;
use super::wait::Watch;
use crate::backend::Element;
use crate::params::partition;

/// The memory of all ranks of the host for one collective, in the order of their ranks.
pub(crate) struct Direct<'a, T> {
    pub(crate) gate: &'a Gate,
    /// Whole regions.
    pub(crate) memories: &'a [Cells<T>],
    /// What of them takes part; ranges below count from its start.
    pub(crate) range: Range<usize>,
}

/// Most ranks on one host.
pub(crate) const MOST: usize = 64;

/// Stores the sums of the first cells in all of the second, which may be among the first; the third
/// is the place of their first element in its region.
pub(crate) type Add<'a, T> = &'a dyn Fn(&[Cells<T>], &[Cells<T>], usize);

impl<T: Summand> Direct<'_, T> {
    /// Sums `range` over the host into this rank's memory; between two meetings.
    pub(crate) fn reduce(&self, range: Range<usize>) {
        let (pieces, count) = self.cut(range);
        sum(&pieces[..count], &pieces[self.gate.index()..][..1]);
    }
}

impl<T: Element> Direct<'_, T> {
    /// Sums to everybody.
    pub(crate) fn all_reduce(
        self,
        watch: &mut (impl Watch + ?Sized),
        add: Add<'_, T>,
    ) -> Result<(), CommError> {
        self.gate.meet(watch)?;
        let piece = self.piece(self.gate.index());
        let (pieces, count) = self.cut(piece.clone());
        add(
            &pieces[..count],
            &pieces[..count],
            self.range.start + piece.start,
        );
        self.gate.meet(watch)
    }

    /// Sums this rank's piece to itself.
    pub(crate) fn reduce_scatter(
        self,
        watch: &mut (impl Watch + ?Sized),
        add: Add<'_, T>,
    ) -> Result<(), CommError> {
        self.gate.meet(watch)?;
        let piece = self.piece(self.gate.index());
        let (pieces, count) = self.cut(piece.clone());
        let own = &pieces[self.gate.index()..][..1];
        add(&pieces[..count], own, self.range.start + piece.start);
        self.gate.meet(watch)
    }

    /// Spreads every rank's piece.
    pub(crate) fn all_gather(self, watch: &mut (impl Watch + ?Sized)) -> Result<(), CommError> {
        self.gate.meet(watch)?;
        for index in 0..self.memories.len() {
            self.fetch(index, self.piece(index));
        }
        self.gate.meet(watch)
    }

    /// Copies the memory of the host's rank `index` to all.
    pub(crate) fn broadcast(
        self,
        watch: &mut (impl Watch + ?Sized),
        index: usize,
    ) -> Result<(), CommError> {
        self.gate.meet(watch)?;
        self.fetch(index, 0..self.range.len());
        self.gate.meet(watch)
    }

    /// Copies `range` from the host's rank `index` to this one; between two meetings.
    pub(crate) fn fetch(&self, index: usize, range: Range<usize>) {
        let own = self.gate.index();
        if index != own {
            self.memory(own)
                .slice(range.clone())
                .copy_from(self.memory(index).slice(range));
        }
    }

    /// `range` of every memory. On the stack: a step allocates nothing.
    fn cut(&self, range: Range<usize>) -> ([Cells<T>; MOST], usize) {
        let mut pieces = [self.memories[0]; MOST];
        for (index, piece) in pieces.iter_mut().enumerate().take(self.memories.len()) {
            *piece = self.memory(index).slice(range.clone());
        }
        (pieces, self.memories.len())
    }

    /// What takes part of the memory of the host's rank `index`.
    pub(crate) fn memory(&self, index: usize) -> Cells<T> {
        self.memories[index].slice(self.range.clone())
    }

    fn piece(&self, index: usize) -> Range<usize> {
        partition(self.range.len(), self.memories.len(), index)
    }
}

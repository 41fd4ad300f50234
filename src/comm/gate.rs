//! Where the ranks of one host meet: a barrier in memory they share.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::CommError;
use super::wait::{Bell, Watch, wait};

/// How often one rank has come to the gate; alone on its cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Seat {
    arrivals: AtomicU64,
}

/// A barrier for the ranks of a host.
///
/// Each rank counts its own arrivals and waits for everybody else's count: with the few ranks of a
/// host that is as fast as one shared counter, and it shows who is missing.
#[derive(Debug)]
pub(crate) struct Gate {
    bell: NonNull<Bell>,
    seats: NonNull<Seat>,
    ranks: Vec<usize>,
    index: usize,
    _keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: all that the pointers lead to is atomic, and `_keep` keeps it.
unsafe impl Send for Gate {}

impl Gate {
    /// Bytes a gate for `ranks` ranks needs.
    pub(crate) fn size(ranks: usize) -> usize {
        size_of::<Bell>() + ranks * size_of::<Seat>()
    }

    /// The gate at `start`, for the rank that is `ranks[index]`.
    ///
    /// # Safety
    /// `start` is aligned to 64 bytes, begins as [`Gate::size`] zeros, is used for nothing else by
    /// any rank, and stays for as long as `keep` does.
    pub(crate) unsafe fn new(
        start: NonNull<u8>,
        ranks: Vec<usize>,
        index: usize,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        // SAFETY: inside the memory by the caller's promise.
        let seats = unsafe { start.add(size_of::<Bell>()) }.cast();
        Self {
            bell: start.cast(),
            seats,
            ranks,
            index,
            _keep: keep,
        }
    }

    /// The ranks of this host, ascending.
    pub(crate) fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Which of them this one is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What waiters sleep on.
    pub(crate) fn bell(&self) -> &Bell {
        // SAFETY: valid while `_keep` lives; only atomics inside.
        unsafe { self.bell.as_ref() }
    }

    /// Waits until every rank of the host has come as often as this one.
    pub(crate) fn meet(&self, watch: &mut (impl Watch + ?Sized)) -> Result<(), CommError> {
        if self.ranks.len() == 1 {
            return Ok(());
        }
        let own = self.arrivals(self.index);
        let turn = own.load(Ordering::Relaxed) + 1;
        own.store(turn, Ordering::Release);
        self.bell().ring();
        for other in (0..self.ranks.len()).filter(|&other| other != self.index) {
            let theirs = self.arrivals(other);
            let here = || theirs.load(Ordering::Acquire) >= turn;
            wait(self.bell(), watch, here, || self.ranks[other])?;
        }
        Ok(())
    }

    fn arrivals(&self, index: usize) -> &AtomicU64 {
        // SAFETY: there is a seat for each of the ranks, and `index` is one of them.
        unsafe { &self.seats.add(index).as_ref().arrivals }
    }
}

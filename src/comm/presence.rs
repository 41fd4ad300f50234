//! How far each rank has come, in memory that others read.

use std::sync::atomic::{AtomicU64, Ordering};

/// One rank's progress through collectives. Zero is its start.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Presence {
    /// Collectives begun.
    entered: AtomicU64,
    /// Zero while the rank is there; then the first collective that it has no part in.
    left_before: AtomicU64,
}

impl Presence {
    /// The rank begins collective `number`, counted from one.
    pub(crate) fn enter(&self, number: u64) {
        self.entered.store(number, Ordering::Release);
    }

    /// The rank takes no part in collective `number` or any after.
    pub(crate) fn leave(&self, number: u64) {
        self.left_before.store(number, Ordering::Release);
    }

    /// Whether it has not begun collective `number` yet.
    pub(crate) fn is_behind(&self, number: u64) -> bool {
        self.entered.load(Ordering::Acquire) < number
    }

    /// Whether it will never take part in collective `number`.
    pub(crate) fn is_gone(&self, number: u64) -> bool {
        let left = self.left_before.load(Ordering::Acquire);
        left != 0 && left <= number
    }
}

//! Messages between ranks: all that differs between threads, MPI and a simulated network.

use super::CommError;
use super::cells::Cells;
use super::wait::Watch;

/// Messages that may be on their way at once, in each direction, per rank.
pub(crate) const SLOTS: usize = 8;

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Landing {
    /// Into this memory, for good.
    Here(Cells<u8>),
    /// To be looked at once: this many bytes, in memory of the transport's choice.
    Glimpse(usize),
}

impl Landing {
    /// Bytes of the message.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Here(cells) => cells.len(),
            Self::Glimpse(len) => *len,
        }
    }

    /// Whether the message has no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Messages between the ranks of a world, without blocking in either direction.
///
/// Messages from one rank to another arrive in the order in which they were started, and receives
/// take them in the order in which they were started. Each message in flight occupies a slot below
/// [`SLOTS`], of sends or of receives, from its start to its finish; finishing an empty slot does
/// nothing. What a message reads stays unwritten until its send is finished. A send may wait for
/// its receive. Nothing is allocated by a message.
pub(crate) trait Transport: Watch + Send {
    /// This rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world(&self) -> usize;

    /// Whether it must stay on the thread that made it.
    fn is_thread_bound(&self) -> bool {
        false
    }

    /// Counts a collective in, from one, so that a rank that waits in vain can tell who has not
    /// begun it.
    fn enter(&mut self, operation: &'static str) -> Result<u64, CommError>;

    /// A rank that has not begun collective `number`, as far as is known; says that this rank waits.
    fn missing_in(&mut self, number: u64) -> Option<usize>;

    /// Starts a message of at least one byte and at most the chunk size it was made with.
    fn start_send(&mut self, slot: usize, to: usize, data: Cells<u8>) -> Result<(), CommError>;

    /// Starts to receive the next message of `from`.
    fn start_receive(&mut self, slot: usize, from: usize, to: Landing) -> Result<(), CommError>;

    /// Waits until the data of the send in `slot` may be written again.
    fn finish_send(&mut self, slot: usize) -> Result<(), CommError>;

    /// Waits for the message of the receive in `slot`; shows it to `look` if it is a glimpse.
    fn finish_receive(
        &mut self,
        slot: usize,
        look: &mut dyn FnMut(Cells<u8>),
    ) -> Result<(), CommError>;

    /// Tells all other ranks that this one gives up.
    fn abort(&mut self, reason: &str);

    /// Notes that the current collective failed on this rank: nobody may count on its part, and the
    /// others learn the cause.
    fn spoil(&mut self, cause: &CommError);
}

/// Whom a failure is to be blamed on when others are told: its cause, not who passes it on.
pub(crate) fn blame(cause: &CommError, rank: usize) -> (usize, String) {
    match cause {
        CommError::Aborted { rank, reason } => (*rank, reason.clone()),
        _ => (rank, cause.to_string()),
    }
}

//! Send and Recv, through one mailbox per (sender, receiver).

use std::sync::atomic::Ordering;

use crate::comm::Comm;
use crate::progress::Status;
use crate::result::{failure, NcclError, NcclResult};
use crate::shm::{load, store, Mailbox, MAIL_BYTES};

pub(crate) struct Message {
    pub peer: usize,
    pub buffer: u64,
    pub bytes: usize,
}

#[derive(Default)]
pub(crate) struct MessageState {
    moved: usize,
    /// An empty message still needs one (empty) letter.
    letters: usize,
}

/// Letters sent and not yet taken.
fn in_transit(mailbox: &Mailbox) -> u64 {
    load(&mailbox.sent) - load(&mailbox.received)
}

impl Message {
    fn status(&self, state: &MessageState) -> Status {
        if state.moved == self.bytes && state.letters > 0 {
            Status::Done
        } else {
            Status::Moved
        }
    }

    pub(crate) fn advance_send(&self, comm: &Comm, state: &mut MessageState) -> NcclResult<Status> {
        let mailbox = comm.segment.mailbox(comm.rank, self.peer);
        if in_transit(mailbox) > 0 {
            return Ok(Status::Waiting);
        }
        let bytes = (self.bytes - state.moved).min(MAIL_BYTES);
        // SAFETY: the send buffer was checked; the mailbox is empty and ours to fill.
        unsafe {
            let from = (self.buffer as *const u8).add(state.moved);
            let to = comm.segment.mail(comm.rank, self.peer);
            std::ptr::copy_nonoverlapping(from, to, bytes);
        }
        mailbox
            .message_bytes
            .store(self.bytes as u64, Ordering::Release);
        store(&mailbox.sent, load(&mailbox.sent) + 1);
        state.moved += bytes;
        state.letters += 1;
        Ok(self.status(state))
    }

    pub(crate) fn advance_receive(
        &self,
        comm: &Comm,
        state: &mut MessageState,
    ) -> NcclResult<Status> {
        let mailbox = comm.segment.mailbox(self.peer, comm.rank);
        if in_transit(mailbox) == 0 {
            return Ok(Status::Waiting);
        }
        let announced = mailbox.message_bytes.load(Ordering::Acquire);
        if announced != self.bytes as u64 {
            let message = format!(
                "mismatch: rank {} sends {announced} bytes to rank {}, which receives {} bytes",
                self.peer, comm.rank, self.bytes
            );
            return Err(failure(NcclError::InvalidUsage, message));
        }
        let bytes = (self.bytes - state.moved).min(MAIL_BYTES);
        // SAFETY: the receive buffer was checked; the mailbox is full and ours to empty.
        unsafe {
            let from = comm.segment.mail(self.peer, comm.rank);
            let to = (self.buffer as *mut u8).add(state.moved);
            std::ptr::copy_nonoverlapping(from, to, bytes);
        }
        store(&mailbox.received, load(&mailbox.received) + 1);
        state.moved += bytes;
        state.letters += 1;
        Ok(self.status(state))
    }
}

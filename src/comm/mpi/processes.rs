//! Messages between MPI processes.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use super::call::{Group, Request};
use super::memory::{Block, REASON};
use super::session::Session;
use crate::backend::cpu::Buffer;
use crate::comm::cells::Cells;
use crate::comm::options::{Hosts, Options};
use crate::comm::transport::{Landing, SLOTS, Transport, blame};
use crate::comm::wait::{Watch, poll};
use crate::comm::{CommError, REGION};

/// Tag of data.
const DATA: c_int = 0;
/// Tag of a reason for giving up.
const STOP: c_int = 1;
/// Tag of the number of the collective that a rank waits in.
const HERE: c_int = 2;

/// How long a rank that gives up waits for others to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The transport of one process.
pub(super) struct Processes {
    session: Session,
    data: Group,
    /// Messages about ranks, not between them.
    notes: Group,
    hosts: Hosts,
    block: Block,
    operation: &'static str,
    entered: u64,
    patience: Duration,
    sends: [Option<(usize, Request)>; SLOTS],
    receives: [Option<Receive>; SLOTS],
    /// One chunk for each slot.
    staging: std::mem::ManuallyDrop<Buffer<i64>>,
    chunk: usize,
    /// For ranks on other hosts, the last collective they said they wait in.
    heard: Vec<u64>,
    told: u64,
    stopped: Option<(usize, String)>,
}

struct Receive {
    from: usize,
    request: Request,
    landing: Landing,
    cells: Cells<u8>,
}

// SAFETY: MPI's handles stay on one thread: `is_thread_bound` says so to whoever holds it.
unsafe impl Send for Processes {}

impl Processes {
    /// Collective.
    pub(super) fn new(
        session: Session,
        hosts: Hosts,
        block: Block,
        options: &Options,
    ) -> Result<Self, CommError> {
        let (data, notes) = (
            session.everybody().duplicate()?,
            session.everybody().duplicate()?,
        );
        let (rank, world) = (session.rank(), session.world());
        let bytes = SLOTS * options.chunk;
        let staging = Buffer::zeroed(bytes.div_ceil(size_of::<i64>())).ok_or_else(|| {
            let problem = "out of memory".to_owned();
            CommError::Memory {
                what: REGION,
                rank,
                bytes,
                problem,
            }
        })?;
        Ok(Self {
            session,
            data,
            notes,
            hosts,
            block,
            operation: "start",
            entered: 0,
            patience: options.patience,
            sends: [const { None }; SLOTS],
            receives: [const { None }; SLOTS],
            staging: std::mem::ManuallyDrop::new(staging),
            chunk: options.chunk,
            heard: vec![0; world],
            told: 0,
            stopped: None,
        })
    }

    /// Memory for the message in a slot.
    fn stage(&mut self, slot: usize, bytes: usize) -> Cells<u8> {
        assert!(
            bytes <= self.chunk,
            "a message of {bytes} bytes, {} at most",
            self.chunk
        );
        // SAFETY: as long as this transport; one receive at a time uses a slot.
        let all = unsafe { Cells::new(self.staging.as_mut_ptr(), self.staging.len()) }.bytes();
        all.slice(slot * self.chunk..slot * self.chunk + bytes)
    }

    /// Ranks that share no memory with this one.
    fn strangers(&self) -> impl Iterator<Item = usize> {
        let own = self.hosts.host(self.rank());
        (0..self.world()).filter(move |&rank| self.hosts.host(rank) != own)
    }

    /// Sends a note to all ranks of other hosts; what it says is never freed.
    fn tell_strangers(&mut self, tag: c_int, text: &'static mut [u8]) -> Vec<Request> {
        // SAFETY: static, and only read.
        let note = unsafe { Cells::new(text.as_mut_ptr(), text.len()) };
        // A rank that cannot be told finds out when its patience ends.
        self.strangers()
            .filter_map(|rank| self.notes.send(rank, tag, note).ok())
            .collect()
    }

    /// Reads the notes of ranks on other hosts.
    fn read_notes(&mut self) -> Result<(), CommError> {
        while let Some(note) = self.notes.probe(HERE)? {
            let bytes = self.read_note(HERE, note.from, note.bytes)?;
            let number = bytes.try_into().map_or(0, u64::from_ne_bytes);
            self.heard[note.from] = self.heard[note.from].max(number);
        }
        if let Some(note) = self.notes.probe(STOP)? {
            let reason = self.read_note(STOP, note.from, note.bytes)?;
            let reason = String::from_utf8_lossy(&reason).into_owned();
            self.stopped.get_or_insert((note.from, reason));
        }
        Ok(())
    }

    fn read_note(&self, tag: c_int, from: usize, bytes: usize) -> Result<Vec<u8>, CommError> {
        let mut note = vec![0; bytes];
        // SAFETY: as long as the receive, which is waited for below.
        let cells = unsafe { Cells::new(note.as_mut_ptr(), bytes) };
        let mut request = self.notes.receive(from, tag, cells)?;
        // It has arrived, so this ends.
        while self.notes.test(&mut request)?.is_none() {}
        Ok(note)
    }
}

impl Watch for Processes {
    fn check(&mut self) -> Result<(), CommError> {
        if self.hosts.count() > 1 {
            self.read_notes()?;
        }
        let stopped = self.stopped.clone().or_else(|| self.block.announced());
        if let Some((rank, reason)) = stopped.filter(|(rank, _)| *rank != self.rank()) {
            return Err(CommError::Aborted { rank, reason });
        }
        let gone = |&index: &usize| self.block.presence(index).is_gone(self.entered);
        match (0..self.block.ranks.len()).find(gone) {
            Some(index) => {
                let reason = format!("it left before {} was over", self.operation);
                Err(CommError::Aborted {
                    rank: self.block.ranks[index],
                    reason,
                })
            }
            None => Ok(()),
        }
    }

    fn missing(&mut self) -> Option<usize> {
        self.missing_in(self.entered)
    }

    fn operation(&self) -> &'static str {
        self.operation
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

impl Transport for Processes {
    fn rank(&self) -> usize {
        self.data.rank
    }

    fn world(&self) -> usize {
        self.data.world
    }

    fn is_thread_bound(&self) -> bool {
        true
    }

    fn enter(&mut self, operation: &'static str) -> Result<u64, CommError> {
        self.operation = operation;
        self.entered += 1;
        self.block.presence(self.block.index).enter(self.entered);
        self.check()?;
        Ok(self.entered)
    }

    fn missing_in(&mut self, number: u64) -> Option<usize> {
        if self.told < self.entered && self.hosts.count() > 1 {
            self.told = self.entered;
            let number = Box::leak(Box::new(self.entered.to_ne_bytes()));
            // They are never waited for: a rank that does not listen is the one that is missing.
            std::mem::forget(self.tell_strangers(HERE, number));
        }
        let behind = |&index: &usize| self.block.presence(index).is_behind(number);
        let near = (0..self.block.ranks.len())
            .find(behind)
            .map(|index| self.block.ranks[index]);
        near.or_else(|| self.strangers().find(|&rank| self.heard[rank] < number))
    }

    fn start_send(&mut self, slot: usize, to: usize, data: Cells<u8>) -> Result<(), CommError> {
        debug_assert!(self.sends[slot].is_none(), "send slot {slot} is taken");
        self.sends[slot] = Some((to, self.data.send(to, DATA, data)?));
        Ok(())
    }

    fn start_receive(
        &mut self,
        slot: usize,
        from: usize,
        landing: Landing,
    ) -> Result<(), CommError> {
        debug_assert!(
            self.receives[slot].is_none(),
            "receive slot {slot} is taken"
        );
        let cells = match landing {
            Landing::Here(cells) => cells,
            Landing::Glimpse(bytes) => self.stage(slot, bytes),
        };
        let request = self.data.receive(from, DATA, cells)?;
        self.receives[slot] = Some(Receive {
            from,
            request,
            landing,
            cells,
        });
        Ok(())
    }

    fn finish_send(&mut self, slot: usize) -> Result<(), CommError> {
        let Some((to, mut request)) = self.sends[slot].take() else {
            return Ok(());
        };
        let data = self.data;
        poll(self, |_| Ok(data.test(&mut request)?.is_some()), || to)
    }

    fn finish_receive(
        &mut self,
        slot: usize,
        look: &mut dyn FnMut(Cells<u8>),
    ) -> Result<(), CommError> {
        let Some(mut receive) = self.receives[slot].take() else {
            return Ok(());
        };
        let (data, from, mut bytes) = (self.data, receive.from, 0);
        let arrived = |_: &mut Self| {
            let arrival = data.test(&mut receive.request)?;
            bytes = arrival.as_ref().map_or(0, |arrival| arrival.bytes);
            Ok(arrival.is_some())
        };
        poll(self, arrived, || from)?;
        if bytes != receive.cells.len() {
            let expected = receive.cells.len();
            return Err(CommError::Transport {
                operation: self.operation,
                rank: self.rank(),
                problem: format!(
                    "rank {from} sent {bytes} bytes where {expected} were expected; every rank \
                     must call the same collectives in the same order"
                ),
            });
        }
        if let Landing::Glimpse(_) = receive.landing {
            look(receive.cells);
        }
        Ok(())
    }

    fn abort(&mut self, reason: &str) {
        self.session.spoil();
        self.block.announce(self.rank(), reason);
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let text = Vec::leak(reason.as_bytes()[..end].to_vec());
        let mut notes = self.tell_strangers(STOP, text);
        let start = Instant::now();
        while !notes.is_empty() && start.elapsed() < FAREWELL {
            notes.retain_mut(|note| matches!(self.notes.test(note), Ok(None)));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn spoil(&mut self, cause: &CommError) {
        match blame(cause, self.rank()) {
            (rank, reason) if rank == self.rank() => self.abort(&reason),
            // Ranks of other hosts hear it from the one that gave up.
            (rank, reason) => self.block.announce(rank, &reason),
        }
        self.session.spoil();
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let next = self.entered + u64::from(self.session.is_healthy());
        self.block.presence(self.block.index).leave(next);
        if self.session.is_healthy() {
            // SAFETY: dropped once, here. After a failure a peer may still write to it.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.staging) };
        }
    }
}

//! Ranks that are threads of one process.
//!
//! A message is the address of its bytes, put into a mailbox for each pair of ranks: the receiver
//! reads them where they lie and says when it is done, so that nothing is copied twice and no lock
//! is held.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::cells::Cells;
use super::direct::MOST;
use super::endpoint::{Allocation, Endpoint, Sharing};
use super::gate::Gate;
use super::options::{Hosts, Options};
use super::presence::Presence;
use super::transport::{Landing, SLOTS, Transport, blame};
use super::wait::{Bell, Watch, wait};
use super::{CommError, Communicator, REGION};
use crate::backend::RegionOwner;
use crate::backend::cpu::Buffer;

/// The communicators of `world` ranks, in order; each goes to the thread that is its rank.
///
/// # Errors
/// If the options do not fit the world.
pub fn threads(world: usize, options: &Options) -> Result<Vec<Box<dyn Communicator>>, CommError> {
    assert!(world > 0, "a world has at least one rank");
    let names = options
        .pretended_hosts(world)?
        .unwrap_or_else(|| vec![0; world]);
    let hosts = Hosts::new(&names);
    let algorithm = options.algorithm(&hosts)?;
    if hosts.largest() > MOST {
        return Err(CommError::Transport {
            operation: "start of thread ranks",
            rank: 0,
            problem: format!(
                "{} ranks on one host; at most {MOST} can be: make train.ranks smaller, or start them as \
                 processes on several hosts, by mpirun",
                hosts.largest()
            ),
        });
    }
    let shared = Arc::new(Shared::new(world, options, &hosts));
    let endpoint = |rank| {
        let host = hosts.host(rank);
        let lobby = Arc::clone(&shared.lobbies[host]);
        let ranks = hosts.ranks(host).to_vec();
        let index = ranks.iter().position(|&other| other == rank).unwrap_or(0);
        // SAFETY: the lobby's cells are zeroed, aligned and enough; only its gates use them.
        let gate = unsafe { Gate::new(lobby.start(), ranks, index, lobby) };
        let heap = Heap {
            host,
            shared: Arc::clone(&shared),
        };
        let transport = Threads::new(rank, Arc::clone(&shared));
        let endpoint = Endpoint::new(
            transport,
            heap,
            gate,
            hosts.clone(),
            algorithm,
            rank,
            options,
        );
        Box::new(endpoint) as Box<dyn Communicator>
    };
    Ok((0..world).map(endpoint).collect())
}

/// What all ranks of a world share.
struct Shared {
    world: usize,
    patience: Duration,
    link: Option<super::Link>,
    start: Instant,
    stopped: OnceLock<(usize, String)>,
    ranks: Vec<Seat>,
    /// From rank `a` to rank `b` at `a * world + b`.
    mailboxes: Vec<Mailbox>,
    lobbies: Vec<Arc<Lobby>>,
    /// All regions: a rank that leaves takes no memory away that others may still read.
    kept: Mutex<Vec<Arc<HeapMemory>>>,
}

/// What one rank shows the others.
#[derive(Default)]
struct Seat {
    bell: Bell,
    presence: Presence,
}

/// What the ranks of one (pretended) host share.
#[derive(Debug)]
struct Lobby {
    gate: Vec<GateCell>,
    /// Memory that is being allocated, by the rank's index on the host.
    memories: Mutex<Vec<Option<Arc<HeapMemory>>>>,
}

impl Lobby {
    fn start(&self) -> NonNull<u8> {
        NonNull::from(self.gate.as_slice()).cast()
    }

    fn memories(&self) -> MutexGuard<'_, Vec<Option<Arc<HeapMemory>>>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
#[repr(C, align(64))]
struct GateCell([AtomicU64; 8]);

impl Shared {
    fn new(world: usize, options: &Options, hosts: &Hosts) -> Self {
        let lobby = |host| {
            let ranks = hosts.ranks(host).len();
            let cells = Gate::size(ranks).div_ceil(size_of::<GateCell>());
            let gate = (0..cells).map(|_| GateCell::default()).collect();
            Arc::new(Lobby {
                gate,
                memories: Mutex::new(vec![None; ranks]),
            })
        };
        Self {
            world,
            patience: options.patience,
            link: options.link,
            start: Instant::now(),
            stopped: OnceLock::new(),
            ranks: (0..world).map(|_| Seat::default()).collect(),
            mailboxes: (0..world * world).map(|_| Mailbox::default()).collect(),
            lobbies: (0..hosts.count()).map(lobby).collect(),
            kept: Mutex::default(),
        }
    }
}

/// Messages from one rank to another that have not been read yet: a ring with one writer and one
/// reader.
#[derive(Default)]
#[repr(align(64))]
struct Mailbox {
    sent: AtomicU64,
    read: AtomicU64,
    letters: [Letter; SLOTS],
}

#[derive(Default)]
struct Letter {
    start: AtomicPtr<u8>,
    len: AtomicUsize,
    /// Nanoseconds after the world's start at which the simulated link delivers it.
    arrives: AtomicU64,
}

/// The transport of one rank.
pub(crate) struct Threads {
    rank: usize,
    shared: Arc<Shared>,
    operation: &'static str,
    entered: u64,
    /// Whether a collective has failed here.
    spoilt: bool,
    /// For each slot, the receiver and the number of the message.
    sends: [Option<(usize, u64)>; SLOTS],
    /// For each slot, the sender, the number of the message and where it goes.
    receives: [Option<(usize, u64, Landing)>; SLOTS],
    /// Messages started so far, to and from each rank.
    sent: Vec<u64>,
    received: Vec<u64>,
    /// Until when the simulated link is occupied.
    busy: Duration,
}

impl Threads {
    fn new(rank: usize, shared: Arc<Shared>) -> Self {
        Self {
            rank,
            operation: "start",
            entered: 0,
            spoilt: false,
            sends: [None; SLOTS],
            receives: [None; SLOTS],
            sent: vec![0; shared.world],
            received: vec![0; shared.world],
            busy: Duration::ZERO,
            shared,
        }
    }

    fn stop(&self, rank: usize, reason: String) {
        // Only the first to give up is the cause.
        let _ = self.shared.stopped.set((rank, reason));
        self.ring_all();
    }

    fn ring_all(&self) {
        for seat in &self.shared.ranks {
            seat.bell.ring();
        }
        for lobby in &self.shared.lobbies {
            // SAFETY: a gate begins with its bell, which is all atomics.
            unsafe { lobby.start().cast::<Bell>().as_ref() }.ring();
        }
    }

    /// Waits for a message that is on the simulated link.
    fn wait_for_arrival(&mut self, arrives: u64) -> Result<(), CommError> {
        let arrives = self.shared.start + Duration::from_nanos(arrives);
        loop {
            let left = arrives.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
            self.check()?;
        }
    }
}

impl Watch for Threads {
    fn check(&mut self) -> Result<(), CommError> {
        if let Some((rank, reason)) = self
            .shared
            .stopped
            .get()
            .filter(|(rank, _)| *rank != self.rank)
        {
            return Err(CommError::Aborted {
                rank: *rank,
                reason: reason.clone(),
            });
        }
        let gone = |seat: &Seat| seat.presence.is_gone(self.entered);
        match self.shared.ranks.iter().position(gone) {
            Some(rank) => {
                let reason = format!("it left before {} was over", self.operation);
                Err(CommError::Aborted { rank, reason })
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
        self.shared.patience
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.world
    }

    fn enter(&mut self, operation: &'static str) -> Result<u64, CommError> {
        self.operation = operation;
        self.entered += 1;
        self.shared.ranks[self.rank].presence.enter(self.entered);
        self.check()?;
        Ok(self.entered)
    }

    fn missing_in(&mut self, number: u64) -> Option<usize> {
        self.shared
            .ranks
            .iter()
            .position(|seat| seat.presence.is_behind(number))
    }

    fn start_send(&mut self, slot: usize, to: usize, data: Cells<u8>) -> Result<(), CommError> {
        debug_assert!(self.sends[slot].is_none(), "send slot {slot} is taken");
        let number = self.sent[to];
        self.sent[to] += 1;
        // There is room: a rank has at most as many sends in flight as a mailbox has letters.
        let shared = &*self.shared;
        let mailbox = &shared.mailboxes[self.rank * shared.world + to];
        let letter = &mailbox.letters[number as usize % SLOTS];
        if let Some(link) = shared.link {
            let (sent, arrives) = link.pass(data.len(), shared.start.elapsed(), self.busy);
            self.busy = sent;
            letter
                .arrives
                .store(arrives.as_nanos() as u64, Ordering::Relaxed);
        }
        letter.start.store(data.start(), Ordering::Relaxed);
        letter.len.store(data.len(), Ordering::Relaxed);
        mailbox.sent.store(number + 1, Ordering::Release);
        shared.ranks[to].bell.ring();
        self.sends[slot] = Some((to, number));
        Ok(())
    }

    fn start_receive(&mut self, slot: usize, from: usize, to: Landing) -> Result<(), CommError> {
        debug_assert!(
            self.receives[slot].is_none(),
            "receive slot {slot} is taken"
        );
        self.receives[slot] = Some((from, self.received[from], to));
        self.received[from] += 1;
        Ok(())
    }

    fn finish_send(&mut self, slot: usize) -> Result<(), CommError> {
        let Some((to, number)) = self.sends[slot].take() else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let mailbox = &shared.mailboxes[self.rank * shared.world + to];
        let read = || mailbox.read.load(Ordering::Acquire) > number;
        wait(&shared.ranks[self.rank].bell, self, read, || to)
    }

    fn finish_receive(
        &mut self,
        slot: usize,
        look: &mut dyn FnMut(Cells<u8>),
    ) -> Result<(), CommError> {
        let Some((from, number, landing)) = self.receives[slot].take() else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let mailbox = &shared.mailboxes[from * shared.world + self.rank];
        let sent = || mailbox.sent.load(Ordering::Acquire) > number;
        wait(&shared.ranks[self.rank].bell, self, sent, || from)?;
        let letter = &mailbox.letters[number as usize % SLOTS];
        if shared.link.is_some() {
            self.wait_for_arrival(letter.arrives.load(Ordering::Relaxed))?;
        }
        let (start, len) = (
            letter.start.load(Ordering::Relaxed),
            letter.len.load(Ordering::Relaxed),
        );
        if len != landing.len() {
            return Err(CommError::Transport {
                operation: self.operation,
                rank: self.rank,
                problem: format!(
                    "rank {from} sent {len} bytes where {} were expected; every rank must call the \
                     same collectives in the same order",
                    landing.len()
                ),
            });
        }
        // SAFETY: bytes are always aligned; the sender keeps them as they are until they are read.
        let message = unsafe { Cells::new(start, len) };
        match landing {
            Landing::Here(cells) => cells.copy_from(message),
            Landing::Glimpse(_) => look(message),
        }
        mailbox.read.store(number + 1, Ordering::Release);
        shared.ranks[from].bell.ring();
        Ok(())
    }

    fn abort(&mut self, reason: &str) {
        self.stop(self.rank, reason.to_owned());
    }

    fn spoil(&mut self, cause: &CommError) {
        self.spoilt = true;
        let (rank, reason) = blame(cause, self.rank);
        self.stop(rank, reason);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop(self.rank, "its thread panicked".to_owned());
        }
        let next = self.entered + u64::from(!self.spoilt);
        self.shared.ranks[self.rank].presence.leave(next);
        self.ring_all();
    }
}

/// Regions on the heap, whose addresses the ranks of a host tell each other.
pub(crate) struct Heap {
    host: usize,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct HeapMemory {
    cells: Cells<i64>,
    _buffer: Buffer<i64>,
}

// SAFETY: the cells are an address; whoever uses them keeps the promise made for them.
unsafe impl Sync for HeapMemory {}

impl HeapMemory {
    fn zeroed(len: usize) -> Option<Self> {
        let mut buffer = Buffer::zeroed(len)?;
        ask_for_large_pages(&mut buffer);
        // SAFETY: the buffer stays with the cells; collectives order all use of them.
        let cells = unsafe { Cells::new(buffer.as_mut_ptr(), len) };
        Some(Self {
            cells,
            _buffer: buffer,
        })
    }
}

impl RegionOwner for HeapMemory {}

/// Regions are read from end to end by every rank: fewer, larger pages are found faster.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(buffer: &mut [i64]) {
    const PAGE: usize = 4096;
    let bytes = size_of_val(buffer);
    let start = buffer.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    if bytes >= skipped + 2 * PAGE {
        let whole = (bytes - skipped) / PAGE * PAGE;
        // SAFETY: pages inside the buffer; advice changes no contents, and refusal is no harm.
        unsafe { libc::madvise(start.add(skipped).cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: &mut [i64]) {}

impl Sharing for Heap {
    fn allocate(
        &mut self,
        bytes: usize,
        _: bool,
        gate: &Gate,
        transport: &mut dyn Transport,
    ) -> Result<Allocation, CommError> {
        let lobby = &self.shared.lobbies[self.host];
        let own = HeapMemory::zeroed(bytes.div_ceil(size_of::<i64>())).map(Arc::new);
        lobby.memories()[gate.index()] = own.clone();
        gate.meet(transport)?;
        let all: Vec<_> = lobby.memories().iter().flatten().cloned().collect();
        gate.meet(transport)?;
        let Some(own) = own.filter(|_| all.len() == gate.ranks().len()) else {
            return Err(CommError::Memory {
                what: REGION,
                rank: transport.rank(),
                bytes,
                problem: "a rank of this host has no memory left".to_owned(),
            });
        };
        let mut kept = self
            .shared
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(&own));
        let memories = all
            .iter()
            .map(|memory| memory.cells.bytes().slice(0..bytes))
            .collect();
        Ok(Allocation {
            memories,
            own: gate.index(),
            keep: own,
        })
    }
}

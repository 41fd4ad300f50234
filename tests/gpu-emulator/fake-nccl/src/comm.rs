//! Communicators: meeting, leaving, errors.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, Weak};
use std::time::{Duration, Instant};

use crate::driver::{driver, Stream};
use crate::result::{failure, report, Failure, NcclError, NcclResult};
use crate::shm::{self, load, store, Segment, ATTACHED, FAILED, LEFT, MAX_RANKS};

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UniqueId(pub [u8; 128]);

const ID_MAGIC: &[u8; 8] = b"fakenccl";

impl UniqueId {
    pub(crate) fn random() -> NcclResult<UniqueId> {
        let mut bytes = [0; 128];
        bytes[..8].copy_from_slice(ID_MAGIC);
        let file = std::fs::File::open("/dev/urandom");
        file.and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes[8..24]))
            .map_err(|e| failure(NcclError::System, format!("/dev/urandom: {e}")))?;
        Ok(UniqueId(bytes))
    }

    /// The id of the communicator that a split makes for one colour.
    fn derived(&self, split: u64, color: u32) -> UniqueId {
        let mut id = *self;
        for (byte, extra) in id.0[24..36]
            .iter_mut()
            .zip(split.to_le_bytes().into_iter().chain(color.to_le_bytes()))
        {
            *byte = byte.wrapping_mul(31).wrapping_add(extra).wrapping_add(1);
        }
        id
    }

    fn segment_name(&self) -> NcclResult<String> {
        if &self.0[..8] != ID_MAGIC {
            return Err(failure(
                NcclError::InvalidArgument,
                "not a unique id of this library",
            ));
        }
        let hex: String = self.0[8..36].iter().map(|b| format!("{b:02x}")).collect();
        Ok(format!("/fake-nccl-{hex}"))
    }
}

pub(crate) fn timeout() -> Duration {
    let seconds = std::env::var("FAKE_NCCL_TIMEOUT_S")
        .ok()
        .and_then(|v| v.parse().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or(60.0)).unwrap_or(Duration::from_secs(60))
}

pub(crate) struct Comm {
    pub rank: usize,
    pub ranks: usize,
    /// Ordinal of the device in this process.
    pub device: c_int,
    pub id: UniqueId,
    pub segment: Segment,
    error: AtomicI32,
    message: Mutex<String>,
    pub aborted: AtomicBool,
    /// Operations are carried out in the order of the calls: tickets given out, and finished.
    pub tickets: AtomicU64,
    pub finished: AtomicU64,
    /// Operations started, for fault injection.
    pub started: AtomicU64,
    /// Collectives entered, and pieces moved; equal on all ranks.
    pub collectives: AtomicU64,
    pub pieces: AtomicU64,
    /// Streams of the operations that have been enqueued and not finished, in order.
    unfinished: Mutex<VecDeque<Stream>>,
    splits: AtomicU64,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Comm {
    /// Joins a communicator; [`Comm::wait_for_all`] must follow.
    pub(crate) fn join(
        id: UniqueId,
        ranks: c_int,
        rank: c_int,
        device: c_int,
    ) -> NcclResult<Arc<Comm>> {
        let invalid = |message: String| failure(NcclError::InvalidArgument, message);
        let count = usize::try_from(ranks)
            .ok()
            .filter(|n| (1..=MAX_RANKS).contains(n));
        let count = count.ok_or_else(|| invalid(format!("{ranks} ranks (1 to {MAX_RANKS})")))?;
        let index = usize::try_from(rank).ok().filter(|&r| r < count);
        let rank = index.ok_or_else(|| invalid(format!("rank {rank} of {ranks}")))?;
        let physical = driver()?.physical(device)?;
        let segment = Segment::open(&id.segment_name()?, count)?;
        let known = &segment.header().ranks;
        let before = known.compare_exchange(0, count as u32, Ordering::AcqRel, Ordering::Acquire);
        if let Err(other) =
            before
                .map(|_| ())
                .or_else(|n| if n == count as u32 { Ok(()) } else { Err(n) })
        {
            return Err(invalid(format!(
                "rank {rank} says {count} ranks, another rank says {other}"
            )));
        }
        let slot = segment.slot(rank);
        slot.device.store(physical, Ordering::Release);
        slot.pid.store(std::process::id(), Ordering::Release);
        if slot.state.swap(ATTACHED, Ordering::AcqRel) != shm::ABSENT {
            return Err(failure(
                NcclError::InvalidUsage,
                format!("rank {rank} joined twice"),
            ));
        }
        segment.header().attached.fetch_add(1, Ordering::AcqRel);
        Ok(Arc::new(Comm {
            rank,
            ranks: count,
            device,
            id,
            segment,
            error: AtomicI32::new(0),
            message: Mutex::default(),
            aborted: AtomicBool::new(false),
            tickets: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            started: AtomicU64::new(0),
            collectives: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            unfinished: Mutex::default(),
            splits: AtomicU64::new(0),
        }))
    }

    /// Waits until every rank has joined, and checks that they use different devices.
    pub(crate) fn wait_for_all(self: &Arc<Self>) -> NcclResult {
        self.wait_until("joining the communicator", |slot| {
            slot.state.load(Ordering::Acquire) != shm::ABSENT
        })
        .inspect_err(|_| self.segment.unlink())?;
        self.segment.unlink();
        let multi = std::env::var("NCCL_MULTI_RANK_GPU_ENABLE").is_ok_and(|v| v == "1");
        let devices = self
            .segment
            .slots()
            .iter()
            .map(|s| s.device.load(Ordering::Acquire));
        let devices: Vec<u32> = devices.collect();
        for (rank, device) in devices.iter().enumerate() {
            let first = devices.iter().position(|d| d == device).unwrap_or(rank);
            if first != rank && !multi {
                let message = format!(
                    "duplicate GPU: rank {first} and rank {rank} are both on device {device}"
                );
                return Err(failure(NcclError::InvalidUsage, message));
            }
        }
        let mut slots = self.segment.slots().iter();
        if slots.any(|s| s.pid.load(Ordering::Acquire) != std::process::id()) {
            help_other_processes(self);
        }
        Ok(())
    }

    /// Waits (on the host) until a condition holds for every rank.
    fn wait_until(&self, what: &str, done: impl Fn(&shm::RankSlot) -> bool) -> NcclResult {
        let start = Instant::now();
        let missing = || {
            let slots = self.segment.slots().iter().enumerate();
            slots
                .filter(|(_, s)| !done(s))
                .map(|(r, _)| r.to_string())
                .collect::<Vec<_>>()
        };
        while !missing().is_empty() {
            if start.elapsed() > timeout() {
                let seconds = start.elapsed().as_secs_f32();
                let names = missing().join(", ");
                let message = format!(
                    "rank {} waited {seconds:.1} s while {what}; missing: rank {names} of {}",
                    self.rank, self.ranks
                );
                return Err(failure(NcclError::System, message));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// `ncclCommSplit`: the ranks of one colour, ordered by key.
    pub(crate) fn split(&self, color: c_int, key: c_int) -> NcclResult<Option<Arc<Comm>>> {
        let number = self.splits.fetch_add(1, Ordering::AcqRel) + 1;
        let slot = self.segment.slot(self.rank);
        slot.color.store(color as u32, Ordering::Release);
        slot.key.store(key as u32, Ordering::Release);
        store(&slot.split, 2 * number - 1);
        self.wait_until("splitting", |s| load(&s.split) > 2 * number - 2)?;
        let slots = self.segment.slots().iter().enumerate();
        let same = slots.filter(|(_, s)| s.color.load(Ordering::Acquire) == color as u32);
        let mut members: Vec<(i32, usize)> = same
            .map(|(r, s)| (s.key.load(Ordering::Acquire) as i32, r))
            .collect();
        members.sort_unstable();
        // Nobody may start the next split before everybody has read this one.
        store(&slot.split, 2 * number);
        self.wait_until("splitting", |s| load(&s.split) > 2 * number - 1)?;
        if color < 0 {
            return Ok(None);
        }
        let rank = members.iter().position(|m| m.1 == self.rank).unwrap_or(0);
        let id = self.id.derived(number, color as u32);
        let comm = Comm::join(id, members.len() as c_int, rank as c_int, self.device)?;
        comm.wait_for_all()?;
        Ok(Some(comm))
    }

    pub(crate) fn slot(&self) -> &shm::RankSlot {
        self.segment.slot(self.rank)
    }

    /// The asynchronous error, 0 if none.
    pub(crate) fn error(&self) -> c_int {
        self.error.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> NcclResult {
        let code = match self.error() {
            0 => return Ok(()),
            1 => NcclError::UnhandledCuda,
            2 => NcclError::System,
            4 => NcclError::InvalidArgument,
            5 => NcclError::InvalidUsage,
            6 => NcclError::Remote,
            _ => NcclError::Internal,
        };
        Err(failure(code, guard(&self.message).clone()))
    }

    /// Records an asynchronous error and tells the other ranks.
    pub(crate) fn fail(&self, failure: &Failure) {
        let first = self.error.compare_exchange(
            0,
            failure.code as i32,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if first.is_ok() {
            *guard(&self.message) = failure.message.clone();
            report!("{}", failure.message);
            self.slot().state.store(FAILED, Ordering::Release);
        }
    }

    /// `ncclCommAbort`
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.slot().state.store(FAILED, Ordering::Release);
    }

    /// Waits for the operations that are still queued.
    pub(crate) fn flush(&self) {
        let start = Instant::now();
        while self.finished.load(Ordering::Acquire) < self.tickets.load(Ordering::Acquire) {
            let stream = guard(&self.unfinished).front().copied();
            if let (Some(stream), Ok(driver)) = (stream, driver()) {
                // SAFETY: a function of the fake driver.
                unsafe { (driver.progress)(stream) };
            }
            std::thread::sleep(Duration::from_micros(100));
            if self.error() != 0 || start.elapsed() > timeout() {
                return;
            }
        }
    }

    pub(crate) fn leave(&self) {
        let state = &self.slot().state;
        let _ = state.compare_exchange(ATTACHED, LEFT, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(crate) fn note_enqueued(&self, stream: Stream) {
        guard(&self.unfinished).push_back(stream);
    }

    pub(crate) fn note_finished(&self) {
        guard(&self.unfinished).pop_front();
    }

    /// Is a rank of another process waiting inside an operation?
    fn others_wait(&self) -> bool {
        let own = std::process::id();
        let waits = |s: &shm::RankSlot| {
            s.waiting.load(Ordering::Acquire) != 0 && s.pid.load(Ordering::Acquire) != own
        };
        self.segment.slots().iter().any(waits)
    }
}

/// Unless streams are eager nothing runs before this process waits for it; but another process may be
/// waiting for our part of a collective. On a device it would have run long ago, so run it.
fn help_other_processes(comm: &Arc<Comm>) {
    static COMMS: Mutex<Vec<Weak<Comm>>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    guard(&COMMS).push(Arc::downgrade(comm));
    ONCE.call_once(|| {
        std::thread::spawn(|| loop {
            std::thread::sleep(Duration::from_millis(20));
            let comms: Vec<Arc<Comm>> = guard(&COMMS).iter().filter_map(Weak::upgrade).collect();
            guard(&COMMS).retain(|c| c.strong_count() > 0);
            for comm in comms.iter().filter(|c| c.others_wait()) {
                let stream = guard(&comm.unfinished).front().copied();
                if let (Some(stream), Ok(driver)) = (stream, driver()) {
                    // SAFETY: a function of the fake driver.
                    unsafe { (driver.progress)(stream) };
                }
            }
        });
    });
}

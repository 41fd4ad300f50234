//! Memory that processes of one host share.
//!
//! A region is an unnamed file in memory: its maker reserves all of it, so that a later write
//! cannot fail for want of memory, and peers open it through the maker's `/proc/PID/fd`. No name
//! is ever given to it, so that nothing is left however the processes end.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::session::Session;
use crate::backend::RegionOwner;
use crate::comm::cells::Cells;
use crate::comm::direct::MOST;
use crate::comm::endpoint::{Allocation, Sharing};
use crate::comm::gate::Gate;
use crate::comm::options::Hosts;
use crate::comm::presence::Presence;
use crate::comm::transport::Transport;
use crate::comm::{CommError, REGION};

/// Mapped bytes; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address and a length; whoever uses the memory orders the accesses.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`, or memory of this process alone.
    fn new(bytes: usize, file: Option<&OwnedFd>) -> io::Result<Self> {
        let bytes = bytes.max(1);
        let (flags, descriptor) = match file {
            Some(file) => (libc::MAP_SHARED | libc::MAP_POPULATE, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping touches no existing memory.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, descriptor, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn cells(&self, bytes: usize) -> Cells<u8> {
        // SAFETY: mapped, and at least as long; kept by whoever is given the cells.
        unsafe { Cells::new(self.start.as_ptr(), bytes) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, once. A failure leaves it mapped, which harms nobody.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[derive(Debug)]
struct Mappings {
    _all: Vec<Mapping>,
}

impl RegionOwner for Mappings {}

/// An unnamed file of `bytes` zeros, all of them reserved.
fn create(bytes: usize) -> io::Result<OwnedFd> {
    let name = c"ringstep";
    // SAFETY: the name is a C string; a descriptor that is returned is ours.
    let file = unsafe {
        let descriptor = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    // SAFETY: a descriptor of ours.
    let code = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes.max(1) as libc::off_t) };
    if code == 0 {
        Ok(file)
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

/// How a peer finds a file: the process above, the descriptor below; zero if there is none.
fn address(file: &io::Result<OwnedFd>) -> u64 {
    file.as_ref().map_or(0, |file| {
        u64::from(std::process::id()) << 32 | u64::from(file.as_raw_fd().unsigned_abs())
    })
}

/// Opens a peer's file.
fn open(address: u64) -> io::Result<OwnedFd> {
    if address == 0 {
        return Err(io::Error::other("the peer has no shared memory"));
    }
    let path = format!("/proc/{}/fd/{}", address >> 32, address & 0xffff_ffff);
    let path = CString::new(path)?;
    // SAFETY: the path is a C string; a descriptor that is returned is ours.
    let descriptor = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// What the ranks of a host share from the start.
pub(super) struct Meeting {
    pub(super) hosts: Hosts,
    pub(super) gate: Gate,
    pub(super) block: Block,
}

/// Joins the ranks of each host; every rank becomes a host of its own where that fails. Collective.
pub(super) fn meet(session: &Session, hosts: Hosts) -> Result<Meeting, CommError> {
    let rank = session.rank();
    let ranks = hosts.ranks(hosts.host(rank));
    let bytes = Block::size(ranks.len());
    let file = create(bytes);
    let addresses = session.everybody().gather(address(&file))?;
    let block = open(addresses[ranks[0]]).and_then(|file| Mapping::new(bytes, Some(&file)));
    let fits = ranks.len() <= MOST;
    // The file is closed only after this, when everybody has opened what it needs.
    let failed = session
        .everybody()
        .gather(u64::from(block.is_err() || !fits))?;
    if failed.iter().all(|&failed| failed == 0)
        && let Ok(mapping) = block
    {
        return Ok(Meeting::new(rank, hosts, mapping));
    }
    if let (Err(problem), true) = (block, failed[rank] != 0) {
        tracing::warn!(rank, %problem, "cannot share memory with the ranks of this host");
    }
    let alone: Vec<usize> = (0..session.world()).collect();
    let mapping = Mapping::new(Block::size(1), None).map_err(|problem| CommError::Memory {
        what: REGION,
        rank,
        bytes: Block::size(1),
        problem: problem.to_string(),
    })?;
    Ok(Meeting::new(rank, Hosts::new(&alone), mapping))
}

impl Meeting {
    fn new(rank: usize, hosts: Hosts, mapping: Mapping) -> Self {
        let ranks = hosts.ranks(hosts.host(rank)).to_vec();
        let index = ranks.iter().position(|&other| other == rank).unwrap_or(0);
        let mapping = Arc::new(mapping);
        // SAFETY: pages are aligned and zeroed, and the gate's part is used by gates only.
        let gate = unsafe {
            let start = mapping.start.add(Block::gate_offset(ranks.len()));
            Gate::new(start, ranks.clone(), index, Arc::<Mapping>::clone(&mapping))
        };
        let block = Block {
            mapping,
            ranks,
            index,
        };
        Self { hosts, gate, block }
    }
}

/// Where the ranks of a host tell each other how far they are, and who gave up.
#[derive(Clone)]
pub(super) struct Block {
    mapping: Arc<Mapping>,
    pub(super) ranks: Vec<usize>,
    pub(super) index: usize,
}

/// Longest reason for giving up that is passed on.
pub(super) const REASON: usize = 496;

/// Who gave up and why; the rank that claims it writes, then announces.
#[repr(C, align(64))]
struct Stop {
    claimed: AtomicU64,
    /// One more than the rank.
    announced: AtomicU64,
    words: [AtomicU64; REASON / 8],
}

/// One rank's place in the block.
#[repr(C, align(64))]
struct Desk {
    presence: Presence,
    /// The file it offers its peers.
    file: AtomicU64,
    /// Whether it has opened all of theirs: 1 yes, 2 no.
    opened: AtomicU64,
}

impl Block {
    fn size(ranks: usize) -> usize {
        Self::gate_offset(ranks) + Gate::size(ranks)
    }

    fn gate_offset(ranks: usize) -> usize {
        size_of::<Stop>() + ranks * size_of::<Desk>()
    }

    fn stop(&self) -> &Stop {
        // SAFETY: the block begins with it, and it is all atomics, for which zero is valid.
        unsafe { self.mapping.start.cast::<Stop>().as_ref() }
    }

    fn desk(&self, index: usize) -> &Desk {
        assert!(index < self.ranks.len(), "no desk {index}");
        // SAFETY: the desks follow, one for each rank, all atomics.
        unsafe {
            self.mapping
                .start
                .add(size_of::<Stop>())
                .cast::<Desk>()
                .add(index)
                .as_ref()
        }
    }

    /// How far the host's rank `index` is.
    pub(super) fn presence(&self, index: usize) -> &Presence {
        &self.desk(index).presence
    }

    /// Announces that `rank` gave up, unless somebody did before.
    pub(super) fn announce(&self, rank: usize, reason: &str) {
        let stop = self.stop();
        if stop.claimed.swap(1, Ordering::AcqRel) != 0 {
            return;
        }
        let mut end = reason.len().min(REASON);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        for (word, bytes) in stop.words.iter().zip(reason.as_bytes()[..end].chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
        }
        stop.announced.store(rank as u64 + 1, Ordering::Release);
    }

    /// Who gave up, and why.
    pub(super) fn announced(&self) -> Option<(usize, String)> {
        let stop = self.stop();
        let rank = stop.announced.load(Ordering::Acquire).checked_sub(1)?;
        let words = stop
            .words
            .iter()
            .map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let bytes: Vec<u8> = words.flatten().take_while(|&byte| byte != 0).collect();
        Some((rank as usize, String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Regions in memory that the processes of a host share.
pub(super) struct SharedMemory {
    block: Block,
    left: usize,
}

impl SharedMemory {
    pub(super) fn new(block: &Block, limit: Option<usize>) -> Self {
        Self {
            block: block.clone(),
            left: limit.unwrap_or(usize::MAX),
        }
    }

    /// This rank's memory and that of its peers, or why not.
    fn share(
        &mut self,
        bytes: usize,
        gate: &Gate,
        transport: &mut dyn Transport,
    ) -> Result<io::Result<Vec<Mapping>>, CommError> {
        let file = if bytes > self.left {
            let left = self.left;
            Err(io::Error::other(format!(
                "{left} bytes are left of the limit on shared memory"
            )))
        } else {
            create(bytes)
        };
        let own = self.block.desk(self.block.index);
        own.file.store(address(&file), Ordering::Release);
        gate.meet(transport)?;
        let map = |index| {
            let address = self.block.desk(index).file.load(Ordering::Acquire);
            Mapping::new(bytes, Some(&open(address)?))
        };
        let all = file.and_then(|own| {
            let all = (0..self.block.ranks.len())
                .map(map)
                .collect::<io::Result<Vec<_>>>();
            // Peers open it until they meet below.
            all.map(|all| (all, own))
        });
        own.opened
            .store(if all.is_ok() { 1 } else { 2 }, Ordering::Release);
        gate.meet(transport)?;
        let opened = |index| self.block.desk(index).opened.load(Ordering::Acquire) == 1;
        let everybody = (0..self.block.ranks.len()).all(opened);
        gate.meet(transport)?;
        Ok(match all {
            Ok(_) if !everybody => Err(io::Error::other("a rank of this host could not open it")),
            Ok((all, _)) => {
                self.left -= bytes;
                Ok(all)
            }
            Err(problem) => Err(problem),
        })
    }
}

impl Sharing for SharedMemory {
    fn allocate(
        &mut self,
        bytes: usize,
        is_shared: bool,
        gate: &Gate,
        transport: &mut dyn Transport,
    ) -> Result<Allocation, CommError> {
        let rank = transport.rank();
        if is_shared {
            match self.share(bytes, gate, transport)? {
                Ok(all) => {
                    let memories = all.iter().map(|mapping| mapping.cells(bytes)).collect();
                    let keep = Arc::new(Mappings { _all: all });
                    return Ok(Allocation {
                        memories,
                        own: gate.index(),
                        keep,
                    });
                }
                Err(problem) => tracing::warn!(rank, bytes, %problem, "no shared memory"),
            }
        }
        let alone = Mapping::new(bytes, None).map_err(|problem| CommError::Memory {
            what: REGION,
            rank,
            bytes,
            problem: problem.to_string(),
        })?;
        let memories = vec![alone.cells(bytes)];
        Ok(Allocation {
            memories,
            own: 0,
            keep: Arc::new(Mappings { _all: vec![alone] }),
        })
    }
}

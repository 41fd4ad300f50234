//! The shared memory in which the ranks of a communicator meet.
//!
//! Layout: [`Header`] with one [`RankSlot`] per rank, one [`Mailbox`] per (sender, receiver), one
//! staging buffer per rank, one buffer per mailbox. New memory is zero, which is the initial state
//! of everything.

use std::ffi::CString;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::result::{failure, NcclError, NcclResult};

pub(crate) const MAX_RANKS: usize = 32;
/// Staging buffer of a rank: collectives go through it piece by piece.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Buffer of a mailbox.
pub(crate) const MAIL_BYTES: usize = 64 << 10;

pub(crate) const ABSENT: u32 = 0;
pub(crate) const ATTACHED: u32 = 1;
pub(crate) const LEFT: u32 = 2;
pub(crate) const FAILED: u32 = 3;

#[repr(C)]
pub(crate) struct RankSlot {
    pub state: AtomicU32,
    pub pid: AtomicU32,
    /// Physical device.
    pub device: AtomicU32,
    /// The rank waits inside an operation.
    pub waiting: AtomicU32,
    /// Collectives entered so far.
    pub entered: AtomicU64,
    /// What the current collective is: kind, type, operator, root.
    pub shape: [AtomicU32; 4],
    pub count: AtomicU64,
    /// Pieces put into the staging buffer, and pieces taken from everybody's.
    pub published: AtomicU64,
    pub consumed: AtomicU64,
    /// `ncclCommSplit`: number of the split, colour and key.
    pub split: AtomicU64,
    pub color: AtomicU32,
    pub key: AtomicU32,
}

#[repr(C)]
pub(crate) struct Mailbox {
    /// Bytes of the whole message being sent.
    pub message_bytes: AtomicU64,
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

#[repr(C)]
pub(crate) struct Header {
    pub ranks: AtomicU32,
    pub attached: AtomicU32,
    pub slots: [RankSlot; MAX_RANKS],
}

pub(crate) struct Segment {
    base: *mut u8,
    bytes: usize,
    ranks: usize,
    name: CString,
}

// SAFETY: the segment is only accessed through atomics, or through buffers whose ownership is
// passed on with acquire/release counters.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

fn mailboxes_at() -> usize {
    std::mem::size_of::<Header>().next_multiple_of(64)
}

fn staging_at(ranks: usize) -> usize {
    let mailboxes = ranks * ranks * std::mem::size_of::<Mailbox>();
    (mailboxes_at() + mailboxes).next_multiple_of(4096)
}

fn segment_bytes(ranks: usize) -> usize {
    staging_at(ranks) + ranks * PIECE_BYTES + ranks * ranks * MAIL_BYTES
}

impl Segment {
    /// Opens the segment of that name, creating it if this rank is the first.
    pub(crate) fn open(name: &str, ranks: usize) -> NcclResult<Segment> {
        let system = |what: &str| {
            let error = std::io::Error::last_os_error();
            failure(NcclError::System, format!("{what} {name}: {error}"))
        };
        let name = CString::new(name).map_err(|_| system("name"))?;
        let bytes = segment_bytes(ranks);
        // SAFETY: plain system calls with valid arguments; the mapping is checked.
        let base = unsafe {
            let fd = libc::shm_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600);
            if fd < 0 {
                return Err(system("shm_open"));
            }
            if libc::ftruncate(fd, bytes as libc::off_t) != 0 {
                libc::close(fd);
                return Err(system("ftruncate"));
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let base = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            );
            libc::close(fd);
            if base == libc::MAP_FAILED {
                return Err(system("mmap"));
            }
            base.cast::<u8>()
        };
        Ok(Segment {
            base,
            bytes,
            ranks,
            name,
        })
    }

    /// Removes the name; the memory lives until the last rank lets go.
    pub(crate) fn unlink(&self) {
        // SAFETY: the name is a valid string.
        unsafe { libc::shm_unlink(self.name.as_ptr()) };
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is larger than the header, aligned to a page, and all of its fields
        // are atomics for which every bit pattern is valid.
        unsafe { &*self.base.cast::<Header>() }
    }

    pub(crate) fn slot(&self, rank: usize) -> &RankSlot {
        &self.header().slots[rank]
    }

    pub(crate) fn slots(&self) -> &[RankSlot] {
        &self.header().slots[..self.ranks]
    }

    fn pair(&self, from: usize, to: usize) -> usize {
        assert!(from < self.ranks && to < self.ranks);
        from * self.ranks + to
    }

    pub(crate) fn mailbox(&self, from: usize, to: usize) -> &Mailbox {
        let index = self.pair(from, to);
        // SAFETY: inside the mapping, see `staging_at`.
        unsafe { &*self.base.add(mailboxes_at()).cast::<Mailbox>().add(index) }
    }

    pub(crate) fn staging(&self, rank: usize) -> *mut u8 {
        assert!(rank < self.ranks);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(staging_at(self.ranks) + rank * PIECE_BYTES) }
    }

    pub(crate) fn mail(&self, from: usize, to: usize) -> *mut u8 {
        let start = staging_at(self.ranks) + self.ranks * PIECE_BYTES;
        // SAFETY: inside the mapping.
        unsafe { self.base.add(start + self.pair(from, to) * MAIL_BYTES) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this size.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Is a process gone (or a zombie)?
pub(crate) fn process_is_gone(pid: u32) -> bool {
    if pid == 0 {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state letter follows the command name in parentheses.
        Ok(stat) => {
            matches!(stat.rsplit(')').next().map(str::trim_start), Some(s) if s.starts_with(['Z', 'X']))
        }
        // SAFETY: signal 0 only asks whether the process exists.
        Err(_) => unsafe { libc::kill(pid as i32, 0) != 0 },
    }
}

pub(crate) fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Acquire)
}

pub(crate) fn store(value: &AtomicU64, to: u64) {
    value.store(to, Ordering::Release);
}

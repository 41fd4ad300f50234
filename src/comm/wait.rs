//! Waiting for another rank: spin for a moment, then yield, then sleep until it rings.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use super::CommError;

/// Looks before the first yield; each costs a pause of the processor, some 40 ns.
const SPINS: u32 = 500;

/// Yields before the first sleep.
const YIELDS: u32 = 30;

/// Longest sleep before a waiter looks whether somebody gave up.
const NAP: Duration = Duration::from_millis(20);

/// What a waiter asks when nothing comes.
pub(crate) trait Watch {
    /// Fails if a rank gave up or left.
    fn check(&mut self) -> Result<(), CommError>;

    /// Says that this rank still waits, and returns a rank that has not even begun the collective,
    /// as far as is known.
    fn missing(&mut self) -> Option<usize>;

    /// The collective that runs.
    fn operation(&self) -> &'static str;

    /// How long to wait.
    fn patience(&self) -> Duration;
}

/// Where ranks sleep until something changes. Lies in memory that they share; zero is its start.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Bell {
    rings: AtomicU32,
    sleepers: AtomicU32,
}

impl Bell {
    /// Wakes whoever sleeps; to be called after the change they wait for.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.rings.fetch_add(1, Ordering::SeqCst);
            wake(&self.rings);
        }
    }

    /// Sleeps until a ring or [`NAP`], unless `ready`.
    fn sleep(&self, ready: impl FnOnce() -> bool) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let rings = self.rings.load(Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !ready() {
            doze(&self.rings, rings);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until `ready`; `bell` is rung after each change that can make it so, and `awaited` names
/// the rank that has to act.
pub(crate) fn wait(
    bell: &Bell,
    watch: &mut (impl Watch + ?Sized),
    mut ready: impl FnMut() -> bool,
    awaited: impl Fn() -> usize,
) -> Result<(), CommError> {
    for look in 0..SPINS + YIELDS {
        if ready() {
            return Ok(());
        }
        if look < SPINS {
            std::hint::spin_loop()
        } else {
            std::thread::yield_now()
        }
    }
    let start = Instant::now();
    loop {
        bell.sleep(&mut ready);
        if ready() {
            return Ok(());
        }
        give_up(watch, start, &awaited)
            .or_else(|error| if ready() { Ok(()) } else { Err(error) })?;
    }
}

/// Waits until `poll` says so, where nobody rings: by looking ever less often.
#[cfg(feature = "mpi")]
pub(crate) fn poll<W: Watch + ?Sized>(
    watch: &mut W,
    mut poll: impl FnMut(&mut W) -> Result<bool, CommError>,
    awaited: impl Fn() -> usize,
) -> Result<(), CommError> {
    for look in 0..SPINS + YIELDS {
        if poll(watch)? {
            return Ok(());
        }
        if look < SPINS {
            std::hint::spin_loop()
        } else {
            std::thread::yield_now()
        }
    }
    let start = Instant::now();
    let mut nap = Duration::from_micros(20);
    while !poll(watch)? {
        if let Err(error) = give_up(watch, start, &awaited) {
            return if poll(watch)? { Ok(()) } else { Err(error) };
        }
        std::thread::sleep(nap);
        nap = (nap * 5 / 4).min(Duration::from_millis(1));
    }
    Ok(())
}

/// Fails if somebody gave up or the time is over.
fn give_up(
    watch: &mut (impl Watch + ?Sized),
    start: Instant,
    awaited: &impl Fn() -> usize,
) -> Result<(), CommError> {
    watch.check()?;
    let (waited, patience) = (start.elapsed(), watch.patience());
    if waited < patience / 2 {
        return Ok(());
    }
    let missing = watch.missing();
    if waited < patience {
        return Ok(());
    }
    Err(CommError::Timeout {
        operation: watch.operation(),
        rank: missing.unwrap_or_else(awaited),
        waited: patience,
    })
}

#[cfg(target_os = "linux")]
fn doze(word: &AtomicU32, value: u32) {
    let nap = libc::timespec {
        tv_sec: 0,
        tv_nsec: NAP.as_nanos() as libc::c_long,
    };
    // SAFETY: the word outlives the call; every outcome, an error too, is a reason to look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            &nap,
        )
    };
}

#[cfg(target_os = "linux")]
fn wake(word: &AtomicU32) {
    // SAFETY: the word outlives the call, and the kernel only looks at its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(not(target_os = "linux"))]
fn doze(_: &AtomicU32, _: u32) {
    std::thread::sleep(Duration::from_micros(50));
}

#[cfg(not(target_os = "linux"))]
fn wake(_: &AtomicU32) {}

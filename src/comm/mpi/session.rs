//! MPI from its initialisation to its end.

use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::mpi::ffi;

use super::call::{Group, check};
use crate::comm::CommError;

/// Connections of this process that are open or ended in failure: MPI is finalised after the last.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// One connection's use of MPI.
pub(super) struct Session {
    everybody: Group,
    healthy: bool,
}

impl Session {
    /// Initialises MPI if this is the first connection.
    pub(super) fn open() -> Result<Self, CommError> {
        let (mut initialised, mut finalised, mut main): (c_int, c_int, c_int) = (0, 0, 0);
        let mut provided: c_int = 0;
        // SAFETY: these may be called at any time; the others only once MPI is initialised.
        unsafe {
            check("MPI_Initialized", 0, ffi::MPI_Initialized(&mut initialised))?;
            check("MPI_Finalized", 0, ffi::MPI_Finalized(&mut finalised))?;
            if finalised != 0 {
                return Err(refused(
                    "MPI was finalised; a process can connect only while another \
                                    of its connections is open",
                ));
            }
            if initialised == 0 {
                let level = ffi::RSMPI_THREAD_FUNNELED;
                let none = std::ptr::null_mut();
                let code = ffi::MPI_Init_thread(none, std::ptr::null_mut(), level, &mut provided);
                check("MPI_Init_thread", 0, code)?;
                if provided < level {
                    return Err(refused("this MPI cannot be used by a program with threads"));
                }
                abort_on_panic();
            }
            check("MPI_Is_thread_main", 0, ffi::MPI_Is_thread_main(&mut main))?;
            if main == 0 {
                return Err(refused("another thread of this process initialised MPI"));
            }
        }
        // SAFETY: a constant once MPI is initialised.
        let everybody = Group::new(unsafe { ffi::RSMPI_COMM_WORLD })?;
        OPEN.fetch_add(1, Ordering::SeqCst);
        Ok(Self {
            everybody,
            healthy: true,
        })
    }

    /// This rank.
    pub(super) fn rank(&self) -> usize {
        self.everybody.rank
    }

    /// Number of ranks.
    pub(super) fn world(&self) -> usize {
        self.everybody.world
    }

    /// All ranks.
    pub(super) fn everybody(&self) -> &Group {
        &self.everybody
    }

    /// For each rank, the lowest rank that shares memory with it. Collective.
    pub(super) fn host_names(&self) -> Result<Vec<usize>, CommError> {
        let host = self.everybody.split_by_host()?;
        let lowest = host
            .gather(self.rank() as u64)?
            .into_iter()
            .min()
            .unwrap_or(0);
        Ok(self
            .everybody
            .gather(lowest)?
            .into_iter()
            .map(|rank| rank as usize)
            .collect())
    }

    /// Leaves MPI unfinalised: that would wait for ranks that may be gone.
    pub(super) fn spoil(&mut self) {
        self.healthy = false;
    }

    /// Whether no collective has failed.
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.healthy || std::thread::panicking() {
            return;
        }
        if OPEN.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SAFETY: initialised, on its thread, and no request is open after a clean run. There
            // is nobody left to tell of an error.
            unsafe { ffi::MPI_Finalize() };
        }
    }
}

/// Ends all ranks when a thread of this one panics: they would wait for it.
fn abort_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            if OPEN.load(Ordering::SeqCst) > 0 {
                // SAFETY: initialised and not finalised while a connection is open.
                unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, 101) };
            }
        }));
    });
}

fn refused(problem: &str) -> CommError {
    CommError::Transport {
        operation: "start of MPI",
        rank: 0,
        problem: problem.to_owned(),
    }
}

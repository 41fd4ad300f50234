//! MPI's functions with their return codes as results.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use ::mpi::ffi;

use crate::comm::CommError;
use crate::comm::cells::Cells;

/// Turns a return code into a result, with MPI's own words.
pub(super) fn check(operation: &'static str, rank: usize, code: c_int) -> Result<(), CommError> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0_u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut len: c_int = 0;
    // SAFETY: the text has the length that MPI demands.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut len) };
    let text = &text[..usize::try_from(len).unwrap_or(0).min(text.len())];
    let problem = format!("{} (code {code})", String::from_utf8_lossy(text));
    Err(CommError::Transport {
        operation,
        rank,
        problem,
    })
}

/// What the MPI library calls itself, such as "Open MPI v4.1.4"; at any time, from any thread.
pub fn library() -> String {
    let mut text = [0_u8; ffi::MPI_MAX_LIBRARY_VERSION_STRING as usize];
    let mut len: c_int = 0;
    // SAFETY: the text has the length that MPI demands.
    unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast::<c_char>(), &mut len) };
    let text = &text[..usize::try_from(len).unwrap_or(0).min(text.len())];
    let text = String::from_utf8_lossy(text);
    let name = text.split([',', '\n', '\0']).next().unwrap_or_default();
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A communicator of MPI's, with errors returned rather than fatal. Never freed: that would be one
/// more collective at the end of a failed run.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) raw: ffi::MPI_Comm,
    pub(super) rank: usize,
    pub(super) world: usize,
}

/// A message on its way.
pub(super) struct Request(ffi::MPI_Request);

/// A message that has arrived.
pub(super) struct Arrival {
    pub(super) from: usize,
    pub(super) bytes: usize,
}

impl Group {
    /// `raw`, whose errors are returned from now on.
    pub(super) fn new(raw: ffi::MPI_Comm) -> Result<Self, CommError> {
        let (mut rank, mut world): (c_int, c_int) = (0, 0);
        // SAFETY: the communicator is valid, as are the places for the answers.
        unsafe {
            let code = ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN);
            check("MPI_Comm_set_errhandler", 0, code)?;
            check("MPI_Comm_rank", 0, ffi::MPI_Comm_rank(raw, &mut rank))?;
            check("MPI_Comm_size", 0, ffi::MPI_Comm_size(raw, &mut world))?;
        }
        Ok(Self {
            raw,
            rank: rank as usize,
            world: world as usize,
        })
    }

    /// A copy whose messages do not mix with this one's. Collective.
    pub(super) fn duplicate(&self) -> Result<Self, CommError> {
        // SAFETY: the result is written before it is read.
        let raw = unsafe {
            let mut raw = MaybeUninit::uninit();
            let code = ffi::MPI_Comm_dup(self.raw, raw.as_mut_ptr());
            check("MPI_Comm_dup", self.rank, code)?;
            raw.assume_init()
        };
        Self::new(raw)
    }

    /// The ranks of this one that can share memory, in the same order. Collective.
    pub(super) fn split_by_host(&self) -> Result<Self, CommError> {
        // SAFETY: the result is written before it is read; the info object is the empty one.
        let raw = unsafe {
            let mut raw = MaybeUninit::uninit();
            let kind = ffi::RSMPI_COMM_TYPE_SHARED;
            let info = ffi::RSMPI_INFO_NULL;
            let code = ffi::MPI_Comm_split_type(
                self.raw,
                kind,
                self.rank as c_int,
                info,
                raw.as_mut_ptr(),
            );
            check("MPI_Comm_split_type", self.rank, code)?;
            raw.assume_init()
        };
        Self::new(raw)
    }

    /// Every rank's `value`. Collective; for the start only.
    pub(super) fn gather(&self, value: u64) -> Result<Vec<u64>, CommError> {
        let mut values = vec![0_u64; self.world];
        // SAFETY: one value is read and as many written as there are ranks.
        let code = unsafe {
            let (from, to) = (
                (&raw const value).cast::<c_void>(),
                values.as_mut_ptr().cast(),
            );
            let kind = ffi::RSMPI_UINT64_T;
            ffi::MPI_Allgather(from, 1, kind, to, 1, kind, self.raw)
        };
        check("MPI_Allgather", self.rank, code)?;
        Ok(values)
    }

    /// Starts a send; the bytes stay as they are until the request is done.
    pub(super) fn send(
        &self,
        to: usize,
        tag: c_int,
        data: Cells<u8>,
    ) -> Result<Request, CommError> {
        let mut request = MaybeUninit::uninit();
        // SAFETY: the cells are readable by their maker's promise; see above for how long.
        unsafe {
            let (start, count) = (data.start().cast::<c_void>(), data.len() as c_int);
            let kind = ffi::RSMPI_UINT8_T;
            let to = to as c_int;
            let code = ffi::MPI_Isend(start, count, kind, to, tag, self.raw, request.as_mut_ptr());
            check("MPI_Isend", self.rank, code)?;
            Ok(Request(request.assume_init()))
        }
    }

    /// Starts a receive; nobody else uses the cells until the request is done.
    pub(super) fn receive(
        &self,
        from: usize,
        tag: c_int,
        to: Cells<u8>,
    ) -> Result<Request, CommError> {
        let mut request = MaybeUninit::uninit();
        // SAFETY: the cells are writable by their maker's promise; see above for how long.
        unsafe {
            let (start, count) = (to.start().cast::<c_void>(), to.len() as c_int);
            let kind = ffi::RSMPI_UINT8_T;
            let from = from as c_int;
            let code = ffi::MPI_Irecv(
                start,
                count,
                kind,
                from,
                tag,
                self.raw,
                request.as_mut_ptr(),
            );
            check("MPI_Irecv", self.rank, code)?;
            Ok(Request(request.assume_init()))
        }
    }

    /// Whether a message with this tag waits to be received, and from whom.
    pub(super) fn probe(&self, tag: c_int) -> Result<Option<Arrival>, CommError> {
        let (mut flag, mut status) = (0, MaybeUninit::<ffi::MPI_Status>::uninit());
        // SAFETY: the status is written where the flag is set.
        unsafe {
            let any = ffi::RSMPI_ANY_SOURCE;
            let code = ffi::MPI_Iprobe(any, tag, self.raw, &mut flag, status.as_mut_ptr());
            check("MPI_Iprobe", self.rank, code)?;
            if flag == 0 {
                Ok(None)
            } else {
                self.arrival(status.assume_init()).map(Some)
            }
        }
    }

    /// Whether a request is done, and what came if it was a receive.
    pub(super) fn test(&self, request: &mut Request) -> Result<Option<Arrival>, CommError> {
        let (mut flag, mut status) = (0, MaybeUninit::<ffi::MPI_Status>::zeroed());
        // SAFETY: the request is live or null; the status is written where the flag is set.
        unsafe {
            let code = ffi::MPI_Test(&mut request.0, &mut flag, status.as_mut_ptr());
            check("MPI_Test", self.rank, code)?;
            if flag == 0 {
                Ok(None)
            } else {
                self.arrival(status.assume_init()).map(Some)
            }
        }
    }

    fn arrival(&self, status: ffi::MPI_Status) -> Result<Arrival, CommError> {
        let mut count: c_int = 0;
        // SAFETY: a status as MPI wrote it.
        let code = unsafe { ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut count) };
        check("MPI_Get_count", self.rank, code)?;
        // The status of a send has no source.
        let from = usize::try_from(status.MPI_SOURCE).unwrap_or(self.rank);
        Ok(Arrival {
            from,
            bytes: usize::try_from(count).unwrap_or(0),
        })
    }
}

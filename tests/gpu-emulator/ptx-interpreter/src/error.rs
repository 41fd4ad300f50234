//! Errors: what went wrong, and exactly where.

use std::fmt;

/// The class of an error. A driver maps these to its own error codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The PTX text could not be understood.
    Parse,
    /// The kernel uses something this interpreter does not implement.
    Unsupported,
    /// Bad grid, block or parameter size.
    InvalidLaunch,
    /// No kernel of that name in the module.
    UnknownKernel,
    /// Access outside every allocation, or outside the shared or local window.
    OutOfBounds,
    Misaligned,
    /// Two threads touch the same shared byte without a barrier between them.
    Race,
    /// Read of shared memory that no thread has written.
    UnwrittenShared,
    /// All threads wait for something that cannot happen.
    Deadlock,
    /// A warp-wide instruction whose member mask does not fit the lanes executing it.
    MemberMask,
    /// `trap`, or a failed device-side `assert`.
    Trap,
    /// The instruction limit was reached.
    StepLimit,
    /// Operands that the ISA forbids.
    InvalidOperation,
}

/// An error inside one instruction, before the place is known. Boxed, because results that carry it
/// are returned by the innermost functions.
#[derive(Clone, Debug)]
pub(crate) struct Fault(Box<FaultDetails>);

#[derive(Clone, Debug)]
pub(crate) struct FaultDetails {
    pub kind: ErrorKind,
    pub message: String,
    pub lane: Option<usize>,
}

impl Fault {
    #[cold]
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault(Box::new(FaultDetails {
            kind,
            message: message.into(),
            lane: None,
        }))
    }

    pub(crate) fn into_details(self) -> FaultDetails {
        *self.0
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidOperation, message)
    }

    pub(crate) fn in_lane(mut self, lane: usize) -> Self {
        self.0.lane.get_or_insert(lane);
        self
    }
}

/// An error with its place in the program.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    pub kernel: Option<String>,
    /// Text of the instruction.
    pub instruction: Option<String>,
    /// Line in the PTX text, from 1.
    pub ptx_line: Option<u32>,
    /// File and line of the CUDA source, when compiled with `-lineinfo`.
    pub source: Option<(String, u32)>,
    pub block: Option<[u32; 3]>,
    pub thread: Option<[u32; 3]>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            kernel: None,
            instruction: None,
            ptx_line: None,
            source: None,
            block: None,
            thread: None,
        }
    }

    pub(crate) fn parse(line: u32, message: impl Into<String>) -> Self {
        Error {
            ptx_line: Some(line),
            ..Error::new(ErrorKind::Parse, message)
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            write!(f, "{kernel}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some((file, line)) = &self.source {
            write!(f, "; {file}:{line}")?;
        }
        if let Some(line) = self.ptx_line {
            write!(f, "; PTX line {line}")?;
        }
        if let Some(text) = &self.instruction {
            write!(f, " `{text}`")?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, "; block ({x},{y},{z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, " thread ({x},{y},{z})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

//! NCCL as it is found on this machine: its functions, and their errors in its own words.
//!
//! The library is opened at run time, so that one program runs with and without it. It is looked
//! for by the name that packages give it, then by the name in a developer's installation, then in
//! the Python environment that is active, where `pip install nvidia-nccl-cu13` puts it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::NcclAlgorithm;
use crate::installed::in_python;

/// The oldest version with communicators that do not block.
const OLDEST: Version = Version(21_400);

/// The oldest version whose `NCCL_ALGO` can name an algorithm for one function alone.
const ALGORITHM_OF_A_FUNCTION: Version = Version(22_400);

/// What NCCL reads its algorithms from, when a communicator is made.
const ALGORITHM_VARIABLE: &str = "NCCL_ALGO";

const SUCCESS: c_int = 0;
/// Another rank has failed, or is gone.
const REMOTE_ERROR: c_int = 6;
/// A communicator that does not block is still at it.
const IN_PROGRESS: c_int = 7;

/// What NCCL calls a communicator.
pub(super) type RawHandle = *mut c_void;

/// What ranks need to find each other: made by one, known to all.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct UniqueId([i64; 16]);

impl UniqueId {
    /// As numbers that a communicator on the host can carry.
    pub(super) const WORDS: usize = 16;

    /// From such numbers.
    pub(super) fn from_words(words: [i64; Self::WORDS]) -> Self {
        Self(words)
    }

    /// Such numbers.
    pub(super) fn words(&self) -> &[i64; Self::WORDS] {
        &self.0
    }
}

/// How a communicator is made: the first fields of `ncclConfig_t`, which every later version of
/// NCCL takes, with its own defaults for the rest.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
}

impl Config {
    /// No call blocks: each returns at once, and the communicator is asked how far it is.
    pub(super) fn without_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: OLDEST.0,
            blocking: 0,
        }
    }
}

macro_rules! functions {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of the library.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> functions!(@$($result)?),)*
        }

        impl Functions {
            fn find(library: &libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of the library's header, unchanged since `OLDEST`.
                unsafe { Ok(Self { $($name: *library.get($symbol)?,)* }) }
            }
        }
    };
    (@) => { c_int };
    (@$result:ty) => { $result };
}

functions! {
    get_version = c"ncclGetVersion": fn(*mut c_int);
    get_unique_id = c"ncclGetUniqueId": fn(*mut UniqueId);
    comm_init = c"ncclCommInitRankConfig": fn(*mut RawHandle, c_int, UniqueId, c_int, *mut Config);
    comm_count = c"ncclCommCount": fn(RawHandle, *mut c_int);
    comm_device = c"ncclCommCuDevice": fn(RawHandle, *mut c_int);
    comm_async_error = c"ncclCommGetAsyncError": fn(RawHandle, *mut c_int);
    comm_finalize = c"ncclCommFinalize": fn(RawHandle);
    comm_destroy = c"ncclCommDestroy": fn(RawHandle);
    comm_abort = c"ncclCommAbort": fn(RawHandle);
    all_reduce = c"ncclAllReduce":
        fn(*const c_void, *mut c_void, usize, c_int, c_int, RawHandle, *mut c_void);
    reduce_scatter = c"ncclReduceScatter":
        fn(*const c_void, *mut c_void, usize, c_int, c_int, RawHandle, *mut c_void);
    all_gather = c"ncclAllGather":
        fn(*const c_void, *mut c_void, usize, c_int, RawHandle, *mut c_void);
    broadcast = c"ncclBroadcast":
        fn(*const c_void, *mut c_void, usize, c_int, c_int, RawHandle, *mut c_void);
    group_start = c"ncclGroupStart": fn();
    group_end = c"ncclGroupEnd": fn();
    error_string = c"ncclGetErrorString": fn(c_int) -> *const c_char;
    last_error = c"ncclGetLastError": fn(RawHandle) -> *const c_char;
}

/// A version of NCCL, such as 2.27.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

impl Version {
    /// From NCCL's own number: since 2.9 with two digits for each part but the first.
    fn from_code(code: c_int) -> Self {
        let code = code.unsigned_abs();
        if code < 10_000 {
            Self(code / 1000 * 10_000 + code % 1000 / 100 * 100 + code % 100)
        } else {
            Self(code)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = (self.0 / 10_000, self.0 / 100 % 100, self.0 % 100);
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Why there is no NCCL to use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// No library can be opened.
    #[error(
        "NCCL was not found: {}; install it with `pip install nvidia-nccl-cu13` into the active \
         Python environment or put the folder of libnccl.so.2 on LD_LIBRARY_PATH, or sum through \
         the host with `--collective staged`",
        .attempts.join("; ")
    )]
    Missing {
        /// What was tried, and what the system said.
        attempts: Vec<String>,
    },
    /// A library that is too old, or none of NCCL's.
    #[error(
        "{} is not a usable NCCL: {problem}; install {OLDEST} or newer, for instance with `pip \
         install nvidia-nccl-cu13`, or sum through the host with `--collective staged`",
        .path.display()
    )]
    Unusable {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A call that failed, in NCCL's words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{function}: {text}")]
pub struct CallError {
    /// The function.
    pub function: &'static str,
    /// What NCCL says about it.
    pub text: String,
    /// Whether the failure is another rank's.
    pub is_remote: bool,
}

/// NCCL, open for as long as the process lives.
pub struct Library {
    functions: Functions,
    version: Version,
    path: PathBuf,
    algorithm: String,
    _open: libloading::Library,
}

/// Opens NCCL once for the process, which asks it for `algorithm`; later calls get the same library
/// and cannot ask for another.
///
/// To be called before other threads are started: what NCCL is asked for stands in its environment.
///
/// # Errors
/// If there is no library, or none that is new enough.
pub fn load(algorithm: NcclAlgorithm) -> Result<&'static Library, LoadError> {
    static LIBRARY: OnceLock<Result<Library, LoadError>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Library::open(&candidates(), algorithm));
    library.as_ref().map_err(Clone::clone)
}

/// Names and paths to try, first to last.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["libnccl.so.2", "libnccl.so"].map(PathBuf::from).into();
    found.extend(in_python("nvidia/nccl/lib/libnccl.so.2"));
    found
}

impl Library {
    /// The first of `candidates` that can be opened.
    fn open(candidates: &[PathBuf], algorithm: NcclAlgorithm) -> Result<Self, LoadError> {
        let mut attempts = Vec::new();
        for candidate in candidates {
            // SAFETY: a library runs code of its own when it is opened; NCCL's only sets itself up.
            match unsafe { libloading::Library::new(candidate) } {
                Ok(open) => return Self::new(open, candidate, algorithm),
                Err(error) => attempts.push(reason(error)),
            }
        }
        Err(LoadError::Missing { attempts })
    }

    fn new(
        open: libloading::Library,
        name: &Path,
        algorithm: NcclAlgorithm,
    ) -> Result<Self, LoadError> {
        let unusable = |path: &Path, problem: String| LoadError::Unusable {
            path: path.to_owned(),
            problem,
        };
        let functions = Functions::find(&open).map_err(|error| unusable(name, reason(error)))?;
        let path = path_of(functions.get_version as *const c_void).unwrap_or(name.to_owned());
        let mut code = 0;
        // SAFETY: one number is written.
        let result = unsafe { (functions.get_version)(&mut code) };
        let version = Version::from_code(code);
        if result != SUCCESS {
            return Err(unusable(&path, format!("ncclGetVersion returned {result}")));
        }
        if version < OLDEST {
            return Err(unusable(&path, format!("it is version {version}")));
        }
        Ok(Self {
            functions,
            version,
            path,
            algorithm: ask_for(algorithm, version),
            _open: open,
        })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its functions.
    pub(super) fn functions(&self) -> &Functions {
        &self.functions
    }

    /// A new id.
    pub(super) fn unique_id(&self) -> Result<UniqueId, CallError> {
        let mut id = UniqueId([0; UniqueId::WORDS]);
        // SAFETY: one id is written.
        let code = unsafe { (self.functions.get_unique_id)(&mut id) };
        self.check("ncclGetUniqueId", code)?;
        Ok(id)
    }

    /// Whether a communicator is still at its last call.
    pub(super) fn is_in_progress(code: c_int) -> bool {
        code == IN_PROGRESS
    }

    /// Turns the code of `function` into a result; work in progress is no error.
    pub(super) fn check(&self, function: &'static str, code: c_int) -> Result<(), CallError> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: any code has a text, which is static; the last error needs no communicator.
        let (text, last) = unsafe {
            let last = (self.functions.last_error)(std::ptr::null_mut());
            (
                self.words((self.functions.error_string)(code)),
                self.words(last),
            )
        };
        let text = if last.is_empty() {
            text
        } else {
            format!("{text}: {last}")
        };
        let is_remote = code == REMOTE_ERROR;
        Err(CallError {
            function,
            text,
            is_remote,
        })
    }

    /// # Safety
    /// A C string or null.
    unsafe fn words(&self, text: *const c_char) -> String {
        if text.is_null() {
            return String::new();
        }
        // SAFETY: the caller's promise.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        text.trim().to_owned()
    }
}

/// As the start of a run prints it.
impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version, algorithm, ..
        } = self;
        write!(f, "NCCL {version} ({}), {algorithm}", self.path.display())
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What the system says, which is the source of what the crate says.
fn reason(error: libloading::Error) -> String {
    std::error::Error::source(&error).map_or_else(|| error.to_string(), |source| source.to_string())
}

/// Leaves the choice in NCCL's environment; says in words what is asked for.
fn ask_for(algorithm: NcclAlgorithm, version: Version) -> String {
    let Some(value) = value_for(algorithm, version) else {
        return match std::env::var(ALGORITHM_VARIABLE) {
            Ok(value) => format!("{ALGORITHM_VARIABLE}={value} as it was found"),
            Err(_) => "algorithm chosen by NCCL".to_owned(),
        };
    };
    // SAFETY: `load` is called before there are threads that read the environment: the one that waits for
    // ctrl-C does not.
    unsafe { std::env::set_var(ALGORITHM_VARIABLE, value) };
    format!("{ALGORITHM_VARIABLE}={value}")
}

/// What NCCL calls an algorithm. Functions that do not have it run a ring: newer versions refuse
/// to work where that is not said, and older ones do it by themselves.
fn value_for(algorithm: NcclAlgorithm, version: Version) -> Option<&'static str> {
    let by_function = version >= ALGORITHM_OF_A_FUNCTION;
    match algorithm {
        NcclAlgorithm::Auto => None,
        NcclAlgorithm::Ring => Some("Ring"),
        NcclAlgorithm::Tree if by_function => Some("Ring;AllReduce:Tree"),
        NcclAlgorithm::Tree => Some("Tree"),
        NcclAlgorithm::Nvls if by_function => Some("Ring;AllReduce:NVLS"),
        NcclAlgorithm::Nvls => Some("NVLS"),
    }
}

/// The file that the code at `address` was loaded from.
fn path_of(address: *const c_void) -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address may be asked about; the name is written where the answer is not zero, and
    // belongs to the loader for as long as the library is open.
    let name = unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        let name = info.assume_init().dli_fname;
        (!name.is_null()).then(|| CStr::from_ptr(name))?
    };
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    Some(path.canonicalize().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_nvidia_writes_them() {
        assert_eq!(Version::from_code(22_703).to_string(), "2.27.3");
        assert_eq!(Version::from_code(21_400), OLDEST);
        assert_eq!(Version::from_code(2_804).to_string(), "2.8.4");
        assert!(Version::from_code(2_804) < OLDEST);
    }

    #[test]
    fn a_missing_library_is_reported_with_what_was_tried_and_the_remedy() {
        let names = ["libnothing-nccl.so.2", "/nowhere/libnccl.so.2"].map(PathBuf::from);
        let error = Library::open(&names, NcclAlgorithm::Auto)
            .unwrap_err()
            .to_string();
        for part in [
            "NCCL was not found: libnothing-nccl.so.2: ",
            "; /nowhere/libnccl.so.2: ",
            "pip install nvidia-nccl-cu13",
            "--collective staged",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_library_of_something_else_is_named() {
        let names = ["libc.so.6"].map(PathBuf::from);
        let error = Library::open(&names, NcclAlgorithm::Auto)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("libc.so.6 is not a usable NCCL: "),
            "{error}"
        );
        assert!(error.contains("install 2.14.0 or newer"), "{error}");
    }

    #[test]
    fn other_functions_keep_a_ring_where_only_a_sum_has_the_algorithm() {
        let (old, new) = (Version(21_903), Version(22_703));
        assert_eq!(value_for(NcclAlgorithm::Tree, old), Some("Tree"));
        assert_eq!(
            value_for(NcclAlgorithm::Tree, new),
            Some("Ring;AllReduce:Tree")
        );
        assert_eq!(value_for(NcclAlgorithm::Auto, new), None);
    }
}

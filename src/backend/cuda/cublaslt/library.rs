//! cuBLASLt on this machine: whether there is one, and a handle of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use cudarc::cublaslt::{result, sys};

use crate::backend::cuda::survey;

/// cuBLASLt as it was found; open for as long as the process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Such as 13.0.2.
    pub version: String,
    /// Its file, where the system says.
    pub path: Option<PathBuf>,
}

/// As the start of a run prints it.
impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuBLASLt {}", self.version)?;
        match &self.path {
            Some(path) => write!(f, " ({})", path.display()),
            None => Ok(()),
        }
    }
}

/// Every function that is used here: `cudarc` panics where one is missing.
const FUNCTIONS: [&str; 13] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetVersion",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

/// Looks for cuBLASLt: by its name, then in the active Python environment. Opens no GPU.
///
/// # Errors
/// In words, with the remedy, where there is none or none that can be used.
pub fn find() -> Result<&'static Library, String> {
    static FOUND: OnceLock<Result<Library, String>> = OnceLock::new();
    FOUND.get_or_init(open).as_ref().map_err(String::clone)
}

fn open() -> Result<Library, String> {
    const IN_PACKAGES: [&str; 2] = [
        "nvidia/cu13/lib/libcublasLt.so.13",
        "nvidia/cublas/lib/libcublasLt.so.12",
    ];
    // SAFETY: loads cuBLASLt's library, which only sets itself up.
    let has_name = || unsafe { sys::is_culib_present() };
    if !survey::is_there(has_name, IN_PACKAGES) {
        return Err(
            "cuBLASLt was not found; `pip install nvidia-cublas` into the active Python environment, \
             or put the CUDA toolkit's folder lib64 on LD_LIBRARY_PATH"
                .to_owned(),
        );
    }
    // SAFETY: the library is there; it stays open.
    let library = unsafe { sys::culib() };
    let path = survey::mapped("libcublasLt.so");
    let is_missing = |name: &&&str| {
        // SAFETY: the symbol is looked for, not called.
        unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
    };
    if let Some(name) = FUNCTIONS.iter().find(is_missing) {
        let path = path.map_or_else(String::new, |path| format!(" {}", path.display()));
        return Err(format!(
            "the library{path} is no usable cuBLASLt: it has no {name}; `pip install nvidia-cublas` \
             installs one"
        ));
    }
    // SAFETY: the function is there, and takes nothing.
    let number = unsafe { sys::cublasLtGetVersion() };
    Ok(Library {
        version: version(number),
        path,
    })
}

/// cuBLASLt's own number in words: 130002 is 13.0.2.
fn version(number: usize) -> String {
    let (major, minor, patch) = (number / 10_000, number / 100 % 100, number % 100);
    format!("{major}.{minor}.{patch}")
}

/// A handle of the library, for the device whose context was bound when it was made.
pub(super) struct Handle(pub(super) sys::cublasLtHandle_t);

impl Handle {
    /// # Errors
    /// In the library's words.
    pub(super) fn new() -> Result<Self, String> {
        result::create_handle().map(Self).map_err(said)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// What the library calls an error.
pub(super) fn said(error: result::CublasError) -> String {
    format!("{:?}", error.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_nvidia_writes_them() {
        assert_eq!(version(130_002), "13.0.2");
        assert_eq!(version(120_804), "12.8.4");
    }
}

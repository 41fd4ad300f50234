//! What of CUDA there is on this machine, for those who ask.

use std::path::PathBuf;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::{Cuda, cache, compile, device};
use crate::backend::{BackendError, Memory};
use crate::installed::in_python;

/// A library that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version of CUDA that it is of or for: major and minor.
    pub version: (u32, u32),
    /// Its file, where the system says.
    pub path: Option<PathBuf>,
}

/// The driver.
///
/// # Errors
/// [`BackendError::NoDevice`] where there is none, or it does not start or is too old.
pub fn driver() -> Result<Found, BackendError> {
    device::count()?;
    Ok(Found {
        version: device::version()?,
        path: mapped("libcuda.so"),
    })
}

/// NVRTC, which compiles the kernels.
///
/// # Errors
/// In words, where there is none.
pub fn compiler() -> Result<Found, String> {
    let version = compile::compiler_version()?;
    let path = mapped("libnvrtc.so");
    Ok(Found { version, path })
}

/// Where compiled kernels are kept; `None` for a user without a home.
pub fn kernel_cache() -> Option<PathBuf> {
    cache::folder()
}

/// The file of an open library whose name begins like this.
pub(super) fn mapped(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let files = maps
        .lines()
        .filter_map(|line| line.find('/').map(|start| &line[start..]));
    let mut paths = files.map(PathBuf::from);
    paths.find(|path| {
        path.file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(name))
    })
}

/// Whether a library can be opened by its name; opens those of the active Python environment where not,
/// newest first, which have the name from then on.
pub(super) fn is_there(has_name: impl Fn() -> bool, in_packages: [&str; 2]) -> bool {
    if has_name() {
        return true;
    }
    for path in in_packages.into_iter().flat_map(in_python) {
        // SAFETY: a library of CUDA only sets itself up when it is opened.
        if let Ok(library) = unsafe { libloading::Library::new(path) } {
            // It stays open, for else the name would be lost.
            std::mem::forget(library);
        }
    }
    has_name()
}

impl Cuda {
    /// Bytes of the GPU's memory: those that are free, and all.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn memory(&self) -> Result<(usize, usize), BackendError> {
        self.device.bind();
        self.done("cuMemGetInfo", result::mem_get_info())
    }

    /// Whether this GPU can read and write the memory of `other` without the host.
    ///
    /// # Errors
    /// If the driver does not say.
    pub fn reaches(&self, other: &Self) -> Result<bool, BackendError> {
        let ask = || -> Result<i32, DriverError> {
            let device = result::device::get(self.ordinal() as i32)?;
            let peer = result::device::get(other.ordinal() as i32)?;
            let mut can = 0;
            // SAFETY: both devices exist; a number is written.
            unsafe { sys::cuDeviceCanAccessPeer(&mut can, device, peer) }.result()?;
            Ok(can)
        };
        Ok(self.done("cuDeviceCanAccessPeer", ask())? != 0)
    }

    /// Compiles a kernel, runs it and looks at what it wrote.
    ///
    /// # Errors
    /// Whatever is in the way of kernels on this GPU.
    pub fn run_a_kernel(&mut self) -> Result<(), BackendError> {
        const VALUE: i64 = 0x0123_4567_89ab_cdef;
        let mut buffer = self.allocate::<i64>("a kernel's output", 1000)?;
        self.fill(buffer.view_mut(), VALUE);
        let mut values = [0; 1000];
        self.download(buffer.view(), &mut values);
        self.synchronize()?;
        match values.iter().all(|&value| value == VALUE) {
            true => Ok(()),
            false => Err(BackendError::Device {
                device: self.ordinal(),
                operation: "a kernel that fills memory",
                problem: "it wrote other values than it was told".to_owned(),
            }),
        }
    }
}

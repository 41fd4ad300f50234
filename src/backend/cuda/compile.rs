//! From CUDA source to code that a GPU runs: NVRTC, and the cache in front of it.
//!
//! Code is made for the device at hand. A driver that takes none (the emulator's) is given PTX.

mod report;

use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUmodule, CUresult};
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::sys as nvrtc_sys;

pub use report::{Compilation, compile_every_kernel};

use super::cache;
use super::device::{Capability, Device, describe};
use super::kernels::HEADERS;
use super::survey::{self, driver, mapped};
use crate::backend::{BackendError, Precision};

/// A kernel file, or what one includes.
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// Passed for every file, beside the architecture and the precision. Products and sums are fused where a kernel says
/// so, not where a compiler likes: an element's bits must not depend on which loop it is in.
const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false", "-lineinfo"];

/// What NVRTC is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Machine code for one architecture.
    MachineCode(Capability),
    /// PTX for it alone.
    Ptx(Capability),
    /// PTX for it and its successors.
    Portable(Capability),
}

impl Target {
    /// The option that says so.
    fn option(self) -> String {
        match self {
            // The suffix unlocks what 9.0 alone has: TMA and wgmma.
            Self::MachineCode(Capability { major: 9, minor: 0 }) => {
                "--gpu-architecture=sm_90a".to_owned()
            }
            Self::Ptx(Capability { major: 9, minor: 0 }) => {
                "--gpu-architecture=compute_90a".to_owned()
            }
            Self::MachineCode(Capability { major, minor }) => {
                format!("--gpu-architecture=sm_{major}{minor}")
            }
            Self::Ptx(Capability { major, minor })
            | Self::Portable(Capability { major, minor }) => {
                format!("--gpu-architecture=compute_{major}{minor}")
            }
        }
    }

    /// Ending of a file with such code.
    fn extension(self) -> &'static str {
        match self {
            Self::MachineCode(_) => "cubin",
            Self::Ptx(_) | Self::Portable(_) => "ptx",
        }
    }
}

/// The option that says what operands of products are rounded to.
fn precision_option(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "--define-macro=PRECISION=F32",
        Precision::Tf32 => "--define-macro=PRECISION=Tf32",
        Precision::Bf16 => "--define-macro=PRECISION=Bf16",
        Precision::F16 => "--define-macro=PRECISION=F16",
    }
}

/// What NVRTC is told to make code of a file for `target`.
fn options(precision: Option<Precision>, target: Target) -> Vec<String> {
    let options = OPTIONS.iter().copied();
    let options = options.chain(precision.map(precision_option));
    options
        .map(str::to_owned)
        .chain([target.option()])
        .collect()
}

/// Builds `source` for the device, whose context is bound, and loads it; products of operands that are
/// rounded to `precision`, where it makes any.
pub(super) fn load(
    device: &Device,
    source: &Source,
    precision: Option<Precision>,
) -> Result<CUmodule, BackendError> {
    // A driver that has refused some is taken to refuse all: the compiler's longest step is then left out.
    static REFUSES_MACHINE_CODE: AtomicBool = AtomicBool::new(false);
    let failed = |problem| BackendError::Kernels {
        device: device.ordinal,
        file: source.name,
        problem,
    };
    let compiler = Compiler::find().map_err(failed)?;
    let targets = compiler.targets(device.capability).map_err(failed)?;
    let mut refusal = DriverError(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    for target in targets {
        let is_machine_code = matches!(target, Target::MachineCode(_));
        if is_machine_code && REFUSES_MACHINE_CODE.load(Ordering::Relaxed) {
            continue;
        }
        let code = build(&compiler, source, precision, target).map_err(failed)?;
        // SAFETY: a whole image of either kind; PTX ends with a zero byte.
        match unsafe { result::module::load_data(code.as_ptr().cast()) } {
            Ok(module) => return Ok(module),
            Err(error) => refusal = error,
        }
        if !matches!(
            refusal.0,
            CUresult::CUDA_ERROR_INVALID_IMAGE
                | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | CUresult::CUDA_ERROR_INVALID_PTX
                | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        ) {
            break;
        }
        if is_machine_code {
            REFUSES_MACHINE_CODE.store(true, Ordering::Relaxed);
        }
    }
    Err(failed(compiler.refused(refusal)))
}

/// Whether NVRTC compiles for this very capability, not only for an older one. One that is missing is
/// looked for again, and missed, when it is needed.
///
/// # Errors
/// Where it knows nothing that runs on such a device.
pub(super) fn check(device: Capability) -> Result<bool, BackendError> {
    let Ok(compiler) = Compiler::find() else {
        return Ok(false);
    };
    match compiler.targets(device) {
        Ok(targets) => Ok(targets.contains(&Target::MachineCode(device))),
        Err(problem) => Err(BackendError::NoDevice {
            problem,
            remedy: "or use `--device cpu`",
        }),
    }
}

/// Major and minor version of NVRTC, or why there is none.
pub(super) fn compiler_version() -> Result<(u32, u32), String> {
    Compiler::find().map(|Compiler { major, minor }| (major, minor))
}

/// The code of `source` for `target`, from the cache where it is there.
fn build(
    compiler: &Compiler,
    source: &Source,
    precision: Option<Precision>,
    target: Target,
) -> Result<Vec<u8>, String> {
    // Ranks of one process want the same files at the same time: the first builds them.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let options = options(precision, target);
    let mut key = cache::Key::new();
    for Source { name, text } in HEADERS.iter().chain([source]) {
        key.add(name);
        key.add(text);
    }
    key.add(&compiler.version());
    options.iter().for_each(|option| key.add(option));
    let entry = key.entry(target.extension());
    if let Some(code) = entry.read() {
        return Ok(code);
    }
    let rounded = precision.map_or_else(String::new, |precision| format!(" in {precision}"));
    tracing::info!(
        "compiling {}{rounded} with {}, once",
        source.name,
        target.option()
    );
    let code = compiler.compile(source, &options)?.code(target);
    let code = code.map_err(|error| compiler.failure(error))?;
    entry.write(&code);
    Ok(code)
}

/// Whether there is NVRTC, open by its name from then on.
fn is_there() -> bool {
    const IN_PACKAGES: [&str; 2] = [
        "nvidia/cu13/lib/libnvrtc.so.13",
        "nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
    ];
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: loads NVRTC's library, which only sets itself up.
    let has_name = || unsafe { nvrtc_sys::is_culib_present() };
    *FOUND.get_or_init(|| survey::is_there(has_name, IN_PACKAGES))
}

/// NVRTC as it was found.
struct Compiler {
    major: u32,
    minor: u32,
}

impl Compiler {
    fn find() -> Result<Self, String> {
        if !is_there() {
            return Err(
                "NVRTC was not found; `pip install nvidia-cuda-nvrtc` into the active Python \
                 environment, or put the CUDA toolkit's folder lib64 on LD_LIBRARY_PATH"
                    .to_owned(),
            );
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both are written.
        unsafe { nvrtc_sys::nvrtcVersion(&mut major, &mut minor) }
            .result()
            .map_err(|error| format!("NVRTC does not say its version: {error}"))?;
        Ok(Self {
            major: major.unsigned_abs(),
            minor: minor.unsigned_abs(),
        })
    }

    fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// Which one it is, for whoever has to replace it.
    fn name(&self) -> String {
        let path = mapped("libnvrtc.so").map(|path| format!(" ({})", path.display()));
        format!("NVRTC {}{}", self.version(), path.unwrap_or_default())
    }

    /// What to try for a device, best first.
    fn targets(&self, device: Capability) -> Result<Vec<Target>, String> {
        let known = self.capabilities()?;
        if known.contains(&device) {
            return Ok(vec![Target::MachineCode(device), Target::Ptx(device)]);
        }
        // The driver compiles portable code of an older architecture for a newer one.
        let older = known.iter().filter(|known| **known < device).max();
        let oldest = known.iter().min();
        match (older, oldest) {
            (Some(&older), _) => Ok(vec![Target::Portable(older)]),
            (None, Some(oldest)) => Err(format!(
                "{} compiles for compute capability {oldest} and above, and the GPU has {device}; \
                 install an older one in its place (`pip install nvidia-cuda-nvrtc-cu12` has 5.0 and \
                 above)",
                self.name()
            )),
            (None, None) => Err(format!("{} knows no compute capability", self.name())),
        }
    }

    /// Why the driver took none of the code that was made, and what to do about it.
    fn refused(&self, error: DriverError) -> String {
        let is_of_another_version = matches!(
            error.0,
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION | CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        );
        match driver() {
            Ok(driver) if is_of_another_version && driver.version < (self.major, self.minor) => {
                let (major, minor) = driver.version;
                // No driver is of a CUDA before 12.
                let package = match major {
                    ..13 => format!("nvidia-cuda-nvrtc-cu{major}"),
                    _ => "nvidia-cuda-nvrtc".to_owned(),
                };
                format!(
                    "{} makes code that the driver, which is of CUDA {major}.{minor}, does not take: \
                     {}; install a newer driver, or an NVRTC that is not newer in its place (`pip \
                     install '{package}=={major}.{minor}.*'`)",
                    self.name(),
                    describe(error)
                )
            }
            _ => format!(
                "the driver does not take what {} made: {}",
                self.name(),
                describe(error)
            ),
        }
    }

    /// The compute capabilities NVRTC knows.
    fn capabilities(&self) -> Result<Vec<Capability>, String> {
        let ask = || {
            let mut count = 0;
            // SAFETY: the count is written, and then so many numbers.
            unsafe {
                nvrtc_sys::nvrtcGetNumSupportedArchs(&mut count).result()?;
                let mut numbers = vec![0; count.max(0) as usize];
                nvrtc_sys::nvrtcGetSupportedArchs(numbers.as_mut_ptr()).result()?;
                Ok(numbers)
            }
        };
        let numbers = ask().map_err(|error: nvrtc::NvrtcError| {
            format!("NVRTC does not say what it knows: {error}")
        })?;
        let capability = |number: i32| Capability {
            major: number as u32 / 10,
            minor: number as u32 % 10,
        };
        Ok(numbers.into_iter().map(capability).collect())
    }

    /// The program of a file, which has the code of any target with the architecture of `options`.
    fn compile(&self, source: &Source, options: &[String]) -> Result<Program, String> {
        let program = Program::new(source).map_err(|error| self.failure(error))?;
        // SAFETY: the program exists until it is dropped.
        unsafe { nvrtc::compile_program(program.0, options) }
            .map_err(|error| format!("{}\n{}", self.failure(error), program.log()))?;
        Ok(program)
    }

    fn failure(&self, error: nvrtc::NvrtcError) -> String {
        format!("NVRTC {}: {error}", self.version())
    }
}

/// Functions of NVRTC: how long the code of a program is, and the code itself.
type AskSize = unsafe fn(nvrtc_sys::nvrtcProgram, *mut usize) -> nvrtc_sys::nvrtcResult;
type CopyCode = unsafe fn(nvrtc_sys::nvrtcProgram, *mut c_char) -> nvrtc_sys::nvrtcResult;

/// A program of NVRTC, compiled by [`Compiler::compile`] and destroyed when dropped.
struct Program(nvrtc_sys::nvrtcProgram);

impl Program {
    fn new(source: &Source) -> Result<Self, nvrtc::NvrtcError> {
        let zero_ended = |text: &str| CString::new(text).expect("sources have no zero byte");
        let (text, name) = (zero_ended(source.text), zero_ended(source.name));
        let headers: Vec<_> = HEADERS
            .iter()
            .map(|header| (zero_ended(header.text), zero_ended(header.name)))
            .collect();
        let texts: Vec<_> = headers.iter().map(|(text, _)| text.as_ptr()).collect();
        let names: Vec<_> = headers.iter().map(|(_, name)| name.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: all strings end with zero; NVRTC copies them.
        unsafe {
            nvrtc_sys::nvrtcCreateProgram(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as i32,
                texts.as_ptr(),
                names.as_ptr(),
            )
        }
        .result()?;
        Ok(Self(program))
    }

    fn log(&self) -> String {
        // SAFETY: the program exists.
        let log = unsafe { nvrtc::get_program_log(self.0) }.unwrap_or_default();
        text(&log)
    }

    fn code(&self, target: Target) -> Result<Vec<u8>, nvrtc::NvrtcError> {
        let (size_of, copy): (AskSize, CopyCode) = match target {
            Target::MachineCode(_) => (nvrtc_sys::nvrtcGetCUBINSize, nvrtc_sys::nvrtcGetCUBIN),
            Target::Ptx(_) | Target::Portable(_) => {
                (nvrtc_sys::nvrtcGetPTXSize, nvrtc_sys::nvrtcGetPTX)
            }
        };
        let mut size = 0;
        // SAFETY: the program is compiled; as many bytes are written as it said.
        unsafe {
            size_of(self.0, &mut size).result()?;
            let mut code = vec![0u8; size];
            copy(self.0, code.as_mut_ptr().cast()).result()?;
            Ok(code)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created once, destroyed once.
        let _ = unsafe { nvrtc::destroy_program(self.0) };
    }
}

/// What a zero-ended array of characters says.
fn text(characters: &[c_char]) -> String {
    let bytes = bytemuck::cast_slice(characters);
    let said = CStr::from_bytes_until_nul(bytes).map(CStr::to_string_lossy);
    said.unwrap_or_default().trim().to_owned()
}

//! What the compiler makes of every kernel, for checks that need no GPU.

use cudarc::nvrtc::result as nvrtc;

use super::{Compiler, OPTIONS, Program, Target};
use crate::backend::cuda::Capability;
use crate::backend::cuda::kernels::{FILES, Kernel};

/// A kernel file as it is compiled for one architecture.
#[derive(Debug)]
pub struct Compilation {
    /// The file.
    pub file: &'static str,
    /// Names of its kernels.
    pub kernels: Vec<&'static str>,
    /// Warnings, and for each kernel its registers, shared memory and spills as `ptxas -v` has them.
    pub log: String,
    /// What the machine code was made of.
    pub ptx: String,
    /// Machine code: an ELF file.
    pub code: Vec<u8>,
}

/// Compiles every file of kernels for GPUs of this capability, past the cache; needs NVRTC, but
/// neither a driver nor a GPU.
///
/// # Errors
/// If there is no NVRTC, or a file does not compile: the compiler's words.
pub fn compile_every_kernel(capability: Capability) -> Result<Vec<Compilation>, String> {
    Compiler::find()?;
    let target = Target::MachineCode(capability);
    let architecture = target.option();
    let mut options = vec![&*architecture, "--ptxas-options=-v"];
    options.extend(OPTIONS);
    let compile = |(source, kernels): &(super::Source, &[Kernel])| {
        let failed = |error: nvrtc::NvrtcError| format!("{}: {error}", source.name);
        let program = Program::new(source).map_err(failed)?;
        // SAFETY: the program exists until it is dropped.
        unsafe { nvrtc::compile_program(program.0, &options) }
            .map_err(|error| format!("{}\n{}", failed(error), program.log()))?;
        let ptx = program.code(Target::Portable(capability)).map_err(failed)?;
        Ok(Compilation {
            file: source.name,
            kernels: kernels.iter().map(|kernel| kernel.name()).collect(),
            log: program.log(),
            ptx: String::from_utf8_lossy(&ptx).into_owned(),
            code: program.code(target).map_err(failed)?,
        })
    };
    FILES.iter().map(compile).collect()
}

/// Major and minor version of NVRTC.
///
/// # Errors
/// If there is none.
pub(in crate::backend::cuda) fn compiler_version() -> Result<(u32, u32), String> {
    let Compiler { major, minor } = Compiler::find()?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

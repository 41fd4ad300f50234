//! What the compiler makes of every kernel, for checks that need no GPU.

use cudarc::nvrtc::result as nvrtc;

use super::{Compiler, OPTIONS, Program, Source, Target, precision_option};
use crate::backend::Precision;
use crate::backend::cuda::Capability;
use crate::backend::cuda::kernels::{FILES, Kernel, PRODUCTS};

/// A kernel file as it is compiled for one architecture.
#[derive(Debug)]
pub struct Compilation {
    /// The file.
    pub file: &'static str,
    /// What the operands of its products are rounded to.
    pub precision: Precision,
    /// Names of its kernels.
    pub kernels: Vec<&'static str>,
    /// Warnings, and for each kernel its registers, shared memory and spills as `ptxas -v` has them.
    pub log: String,
    /// What the machine code was made of.
    pub ptx: String,
    /// Machine code: an ELF file.
    pub code: Vec<u8>,
}

/// Compiles every file of kernels, those of products in every precision, for GPUs of this capability, past
/// the cache; needs NVRTC, but
/// neither a driver nor a GPU.
///
/// # Errors
/// If there is no NVRTC, or a file does not compile: the compiler's words.
pub fn compile_every_kernel(capability: Capability) -> Result<Vec<Compilation>, String> {
    Compiler::find()?;
    let target = Target::MachineCode(capability);
    let architecture = target.option();
    let compile = |(source, kernels): &(Source, &[Kernel]), precision| -> Result<_, String> {
        let precise = precision_option(precision);
        let mut options = vec![&*architecture, precise, "--ptxas-options=-v"];
        options.extend(OPTIONS);
        let failed = |error: nvrtc::NvrtcError| format!("{}: {error}", source.name);
        let program = Program::new(source).map_err(failed)?;
        // SAFETY: the program exists until it is dropped.
        unsafe { nvrtc::compile_program(program.0, &options) }
            .map_err(|error| format!("{}\n{}", failed(error), program.log()))?;
        let ptx = program.code(Target::Portable(capability)).map_err(failed)?;
        Ok(Compilation {
            file: source.name,
            precision,
            kernels: kernels.iter().map(|kernel| kernel.name()).collect(),
            log: program.log(),
            ptx: String::from_utf8_lossy(&ptx).into_owned(),
            code: program.code(target).map_err(failed)?,
        })
    };
    let mut compilations = Vec::new();
    for file in FILES {
        let precisions = match PRODUCTS.contains(&file.0.name) {
            true => Precision::ALL,
            false => &[Precision::F32],
        };
        for &precision in precisions {
            compilations.push(compile(file, precision)?);
        }
    }
    Ok(compilations)
}

/// Major and minor version of NVRTC.
///
/// # Errors
/// If there is none.
pub(in crate::backend::cuda) fn compiler_version() -> Result<(u32, u32), String> {
    let Compiler { major, minor } = Compiler::find()?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

//! What the compiler makes of every kernel, for checks that need no GPU.

use super::{Compiler, Target, options};
use crate::backend::Precision;
use crate::backend::cuda::Capability;
use crate::backend::cuda::kernels::{FILES, File};

/// A kernel file as it is compiled for one architecture.
#[derive(Debug)]
pub struct Compilation {
    /// The file.
    pub file: &'static str,
    /// What operands of products are rounded to, where it has to do with these.
    pub precision: Option<Precision>,
    /// Whether its kernels make products, and do nothing else.
    pub makes_products: bool,
    /// Names of its kernels, and the dynamic shared memory that each is launched with, in bytes.
    pub kernels: Vec<(&'static str, u32)>,
    /// Warnings, and for each kernel its registers, shared memory and spills as `ptxas -v` has them.
    pub log: String,
    /// What the machine code was made of.
    pub ptx: String,
    /// Machine code: an ELF file.
    pub code: Vec<u8>,
}

/// Compiles every file of kernels that is built for GPUs of this capability, those of products in every
/// precision that such GPUs take, past the cache; needs NVRTC, but neither a driver nor a GPU.
///
/// # Errors
/// If there is no NVRTC, or a file does not compile: the compiler's words.
pub fn compile_every_kernel(capability: Capability) -> Result<Vec<Compilation>, String> {
    let compiler = Compiler::find()?;
    let target = Target::MachineCode(capability);
    let compile = |file: &File, precision| -> Result<_, String> {
        let mut options = options(precision, target);
        options.push("--ptxas-options=-v".to_owned());
        let failed = |problem| format!("{}: {problem}", file.source.name);
        let program = compiler.compile(&file.source, &options).map_err(failed)?;
        let refused = |error| failed(compiler.failure(error));
        let code = |target| program.code(target).map_err(refused);
        let kernels = file.kernels.iter();
        let kernels = kernels.map(|kernel| (kernel.name(), kernel.dynamic_shared_bytes()));
        Ok(Compilation {
            file: file.source.name,
            precision,
            makes_products: file.variants.makes_products(),
            kernels: kernels.collect(),
            log: program.log(),
            ptx: String::from_utf8_lossy(&code(Target::Ptx(capability))?).into_owned(),
            code: code(target)?,
        })
    };
    let mut compilations = Vec::new();
    for file in FILES {
        for precision in file.variants.on(capability) {
            compilations.push(compile(file, precision)?);
        }
    }
    Ok(compilations)
}

//! `ringstep doctor`: what this machine has for training, where it was found, and what to do about
//! what is missing.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, show};
use crate::backend::DeviceChoice;
use crate::backend::cpu::InstructionSet;
use crate::backend::cuda::{self, Cuda, Found};
use crate::comm::launcher;
use crate::comm::nccl::{self, NcclAlgorithm};

/// Shared memory below this is what containers get unless they ask, in bytes.
const LITTLE_SHARED_MEMORY: u64 = 128 << 20;

/// Looks at everything, prints a line for each thing, or with `only_problems` for each problem.
///
/// # Errors
/// If ranks cannot train on the default device.
pub(super) fn run(only_problems: bool) -> Result<(), Failure> {
    let device = DeviceChoice::Auto.resolve();
    let mut findings = Vec::new();
    findings.extend(host());
    findings.extend(processes());
    findings.extend(gpus(device));
    let problems = findings
        .iter()
        .filter(|finding| finding.level == Level::Problem);
    let problems = problems.count();
    let shown = findings
        .iter()
        .filter(|finding| !only_problems || finding.level == Level::Problem);
    let mut text: String = shown.map(Finding::line).collect();
    if problems > 0 {
        show(text)?;
        return Err(format!("training on the default device ({device}) is not possible").into());
    }
    if !only_problems {
        text += &format!("training is possible; the default device is {device}\n");
    }
    show(text)
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// It is there.
    Fine,
    /// It is missing or poor, and training goes on without.
    Note,
    /// Ranks cannot train on the default device.
    Problem,
}

struct Finding {
    level: Level,
    what: &'static str,
    says: String,
}

impl Finding {
    fn new(level: Level, what: &'static str, says: impl Into<String>) -> Self {
        let says = says.into();
        Self { level, what, says }
    }

    fn line(&self) -> String {
        let level = match self.level {
            Level::Fine => "ok",
            Level::Note => "note",
            Level::Problem => "problem",
        };
        format!("{level:<8} {:<14} {}\n", self.what, self.says)
    }
}

/// The processor and the kinds of memory.
fn host() -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned())
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let model = value(&read("/proc/cpuinfo"), "model name");
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let instructions = InstructionSet::detect();
    let cpu = format!(
        "{processors} processors, {model}, instructions {}",
        instructions.name()
    );
    let level = match instructions {
        InstructionSet::Portable => Level::Note,
        _ => Level::Fine,
    };
    let mut findings = vec![Finding::new(level, "CPU", cpu)];

    let memory = read("/proc/meminfo");
    let size = |key| {
        let kibibytes: Option<u64> = value(&memory, key)?.strip_suffix(" kB")?.parse().ok();
        kibibytes.map(|kibibytes| kibibytes << 10)
    };
    if let (Some(available), Some(total)) = (size("MemAvailable"), size("MemTotal")) {
        let mut says = format!("{} of {} available", gibibytes(available), gibibytes(total));
        let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
        if let Some((_, mode)) = huge.split_once('[') {
            let mode = mode.split(']').next().unwrap_or_default();
            says += &format!(", transparent huge pages: {mode}");
        }
        findings.push(Finding::new(Level::Fine, "memory", says));
    }
    findings.push(shared_memory(Path::new("/dev/shm")));
    findings
}

/// The memory through which processes of a host see each other's gradients.
fn shared_memory(folder: &Path) -> Finding {
    let what = "shared memory";
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let [size, free] =
                [found.f_blocks, found.f_bavail].map(|blocks| blocks * found.f_frsize);
            let folder = folder.display();
            let says = format!(
                "{} of {} free in {folder}",
                gibibytes(free),
                gibibytes(size)
            );
            match free < LITTLE_SHARED_MEMORY {
                true => Finding::new(
                    Level::Note,
                    what,
                    format!(
                        "{says}; ranks under MPI sum gradients there, and by slower messages where it \
                         is too small: give a container more with --shm-size=1g"
                    ),
                ),
                false => Finding::new(Level::Fine, what, says),
            }
        }
        Err(error) => {
            let says = format!(
                "no {}: {error}; ranks under MPI send messages",
                folder.display()
            );
            Finding::new(Level::Note, what, says)
        }
    }
}

/// What makes ranks of processes.
fn processes() -> Vec<Finding> {
    #[cfg(feature = "mpi")]
    let mpi = Finding::new(Level::Fine, "MPI", crate::comm::mpi::library());
    #[cfg(not(feature = "mpi"))]
    let mpi = Finding::new(
        Level::Note,
        "MPI",
        "not built in, ranks are threads of one process; `cargo build --release --features mpi` for \
         ranks as processes",
    );
    let what = "launcher";
    let launcher = match launcher::detect(|name| std::env::var(name).ok()) {
        None => Finding::new(Level::Fine, what, "none: ranks are threads of one process"),
        Some(launcher) => {
            let refusal = match cfg!(feature = "mpi") {
                true => None,
                false => launcher.refuse_without_mpi().err(),
            };
            let ranks = launcher
                .world
                .map_or("a rank".to_owned(), |world| format!("{world} ranks"));
            match refusal {
                Some(refusal) => Finding::new(Level::Problem, what, refusal.to_string()),
                None => Finding::new(
                    Level::Fine,
                    what,
                    format!(
                        "{ranks} by {} ({} is set)",
                        launcher.name, launcher.variable
                    ),
                ),
            }
        }
    };
    vec![mpi, launcher]
}

/// The driver, the GPUs and the libraries for them.
///
/// A driver or a compiler that is missing makes the CPU the default device, which needs neither: it is
/// noted.
fn gpus(device: DeviceChoice) -> Vec<Finding> {
    let mut findings = Vec::new();
    let driver = cuda::driver();
    let compiler = cuda::compiler();
    findings.push(match &driver {
        Ok(driver) => Finding::new(Level::Fine, "CUDA driver", found(driver)),
        Err(error) => Finding::new(Level::Note, "CUDA driver", error.to_string()),
    });
    if driver.is_ok() {
        findings.extend(devices(device));
    }
    findings.push(match (&compiler, &driver) {
        (Ok(compiler), Ok(driver)) if compiler.version > driver.version => Finding::new(
            Level::Note,
            "NVRTC",
            format!(
                "{}; newer than the driver, which may refuse what it makes: see above whether it does, \
                 and install one that is not newer",
                found(compiler)
            ),
        ),
        (Ok(compiler), _) => Finding::new(Level::Fine, "NVRTC", found(compiler)),
        (Err(error), _) => Finding::new(Level::Note, "NVRTC", error.clone()),
    });
    findings.push(match cuda::cublaslt() {
        Ok(library) => {
            let path = library.path.as_ref();
            let path = path.map_or_else(String::new, |path| format!(" at {}", path.display()));
            Finding::new(
                Level::Fine,
                "cuBLASLt",
                format!("{}{path}", library.version),
            )
        }
        Err(error) => {
            let says = format!("{error}; own kernels multiply");
            Finding::new(Level::Note, "cuBLASLt", says)
        }
    });
    findings.push(match nccl::load(NcclAlgorithm::Auto) {
        Ok(library) => {
            let says = format!("{} at {}", library.version(), library.path().display());
            Finding::new(Level::Fine, "NCCL", says)
        }
        Err(error) => Finding::new(Level::Note, "NCCL", error.to_string()),
    });
    findings.push(kernel_cache(cuda::kernel_cache()));
    findings
}

/// Each GPU, and whether they see each other's memory.
fn devices(device: DeviceChoice) -> Vec<Finding> {
    let what = "GPU";
    let visible = std::env::var("CUDA_VISIBLE_DEVICES");
    let visible = visible.map_or(String::new(), |list| {
        format!("; CUDA_VISIBLE_DEVICES={list}")
    });
    let count = match Cuda::count() {
        Ok(0) => {
            let says = format!("none; `nvidia-smi -L` lists those of the machine{visible}");
            return vec![Finding::new(Level::Note, what, says)];
        }
        Ok(count) => count,
        Err(error) => return vec![Finding::new(Level::Note, what, error.to_string())],
    };
    // With GPUs, the CPU is the default device only where nothing compiles kernels for them.
    let (runs_kernels, failing) = match device {
        DeviceChoice::Cuda(_) => (true, Level::Problem),
        _ => (false, Level::Note),
    };
    let mut findings = Vec::new();
    let mut opened = Vec::new();
    for ordinal in 0..count {
        let look = || {
            let mut gpu = Cuda::new(ordinal)?;
            let (free, total) = gpu.memory()?;
            let precisions = gpu.capability().precisions();
            let precisions: Vec<_> = precisions.map(|precision| precision.to_string()).collect();
            let mut says = format!(
                "{ordinal}: {}, compute capability {}, products in {}, {} of {} free",
                gpu.name(),
                gpu.capability(),
                precisions.join(", "),
                gibibytes(free as u64),
                gibibytes(total as u64)
            );
            if runs_kernels {
                gpu.run_a_kernel()?;
                says += ", runs kernels";
            }
            Ok((gpu, says + &visible))
        };
        match look() {
            Ok((gpu, says)) => {
                findings.push(Finding::new(Level::Fine, what, says));
                opened.push(gpu);
            }
            Err::<_, crate::backend::BackendError>(error) => {
                findings.push(Finding::new(failing, what, format!("{ordinal}: {error}")));
            }
        }
    }
    findings.extend(peers(&opened));
    findings
}

/// Which GPUs do not see each other's memory.
fn peers(gpus: &[Cuda]) -> Option<Finding> {
    if gpus.len() < 2 {
        return None;
    }
    let mut apart = Vec::new();
    for (index, gpu) in gpus.iter().enumerate() {
        for other in &gpus[index + 1..] {
            if !gpu.reaches(other).unwrap_or(false) || !other.reaches(gpu).unwrap_or(false) {
                apart.push(format!("{}-{}", gpu.ordinal(), other.ordinal()));
            }
        }
    }
    Some(match apart.is_empty() {
        true => Finding::new(
            Level::Fine,
            "GPU peers",
            "every GPU sees the memory of every other",
        ),
        false => Finding::new(
            Level::Note,
            "GPU peers",
            format!(
                "sums between GPUs {} go through the host's memory",
                apart.join(", ")
            ),
        ),
    })
}

/// The folder of compiled kernels, its size, and whether more can be kept.
fn kernel_cache(folder: Option<PathBuf>) -> Finding {
    let what = "kernel cache";
    let Some(folder) = folder else {
        let says = "none: neither XDG_CACHE_HOME nor HOME is set; every start compiles all kernels";
        return Finding::new(Level::Note, what, says);
    };
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let sizes: Vec<u64> = entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .collect();
    let bytes: u64 = sizes.iter().sum();
    let says = format!(
        "{}: {} files, {:.1} MiB",
        folder.display(),
        sizes.len(),
        bytes as f64 / f64::from(1 << 20)
    );
    match is_writable(&folder) {
        true => Finding::new(Level::Fine, what, says),
        false => Finding::new(
            Level::Note,
            what,
            format!("{says}; cannot be written, so every start compiles again: set XDG_CACHE_HOME"),
        ),
    }
}

/// Whether files can be made in the folder, or in the one that it would be made in.
fn is_writable(folder: &Path) -> bool {
    let mut existing = folder.ancestors().filter(|folder| folder.exists());
    existing.next().is_some_and(|folder| {
        rustix::fs::access(
            folder,
            rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        )
        .is_ok()
    })
}

/// `CUDA 13.0 at PATH`.
fn found(library: &Found) -> String {
    let (major, minor) = library.version;
    let path = library
        .path
        .as_ref()
        .map_or(String::new(), |path| format!(" at {}", path.display()));
    format!("CUDA {major}.{minor}{path}")
}

/// `1.5 GiB`
fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_missing_or_read_only_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.cubin"), [0; 1 << 20]).unwrap();
        let there = kernel_cache(Some(folder.path().to_owned()));
        assert_eq!(there.level, Level::Fine);
        assert!(there.says.ends_with(": 1 files, 1.0 MiB"), "{}", there.says);
        let later = kernel_cache(Some(folder.path().join("not/yet")));
        assert_eq!(later.level, Level::Fine);
        assert_eq!(kernel_cache(None).level, Level::Note);
        let never = kernel_cache(Some("/proc/self/kernels".into()));
        assert!(never.says.contains("set XDG_CACHE_HOME"), "{}", never.says);
    }

    #[test]
    fn missing_shared_memory_is_noted() {
        assert_eq!(shared_memory(Path::new("/nowhere")).level, Level::Note);
    }

    #[test]
    fn lines_are_aligned() {
        let line = Finding::new(Level::Problem, "NVRTC", "not found").line();
        assert_eq!(line, "problem  NVRTC          not found\n");
    }
}

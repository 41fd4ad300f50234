//! Ranks on GPUs: which one each computes on, and what sums between them.

use super::{TrainError, Wrap};
use crate::backend::BackendError;
use crate::backend::cuda::Cuda;
use crate::comm::nccl::{self, Library, LoadError, Nccl, NcclAlgorithm};
use crate::comm::{CollectiveChoice, CommError, Communicator, Staged};

/// The GPUs of a process, and how they are summed.
pub(super) struct Gpus {
    /// The GPU of all ranks, where one was asked for.
    number: Option<usize>,
    sums: Sums,
}

/// What sums between GPUs.
#[derive(Clone)]
enum Sums {
    /// The host.
    Host,
    /// NCCL.
    Nccl(&'static Library),
    /// NCCL where every rank has it and a GPU of its own, else the host.
    Best(Result<&'static Library, LoadError>),
}

impl Gpus {
    /// Looks for NCCL, where `collective` may use it. To be called before threads are started.
    ///
    /// # Errors
    /// If there is no GPU or nothing to compile its kernels, or NCCL is what was asked for and cannot be
    /// used.
    pub(super) fn find(
        number: Option<usize>,
        collective: CollectiveChoice,
        algorithm: NcclAlgorithm,
    ) -> Result<Self, TrainError> {
        use CollectiveChoice::{Auto, Direct, Hierarchical, Nccl, Ring, Staged};
        Cuda::find()?;
        let sums = match collective {
            Auto => Sums::Best(nccl::load(algorithm)),
            Nccl => Sums::Nccl(nccl::load(algorithm)?),
            Direct | Hierarchical | Ring | Staged => Sums::Host,
        };
        Ok(Self { number, sums })
    }

    /// The GPU of the rank with this number on its host.
    ///
    /// # Errors
    /// If it is not there, or cannot be used.
    pub(super) fn open(&self, local_rank: usize) -> Result<Cuda, BackendError> {
        let cuda = match self.number {
            Some(number) => Cuda::new(number)?,
            None => gpu_of_rank(local_rank)?,
        };
        tracing::info!("GPU {}: {}", cuda.ordinal(), cuda.name());
        Ok(cuda)
    }

    /// Makes the communicator between the GPUs, around that of the hosts.
    pub(super) fn connect(&self, cuda: &Cuda) -> Wrap {
        let (cuda, sums) = (cuda.clone(), self.sums.clone());
        Box::new(move |mut host| {
            let library = match sums {
                Sums::Host => None,
                Sums::Nccl(library) => Some(library),
                Sums::Best(library) => shared_by_all(&mut *host, &cuda, library)
                    .inspect_err(|error| host.abort(&error.to_string()))?,
            };
            let Some(library) = library else {
                return Ok(Box::new(Staged::new(cuda, host)));
            };
            let nccl = Nccl::connect(library, cuda, host)?;
            if nccl.rank() == 0 {
                tracing::info!("{library}");
            }
            Ok(Box::new(nccl))
        })
    }
}

/// The GPU of the rank with this number on its host: one for each, and around again where there are more
/// ranks than GPUs.
///
/// # Errors
/// If there is none, or it cannot be used.
pub(crate) fn gpu_of_rank(local_rank: usize) -> Result<Cuda, BackendError> {
    let count = Cuda::count()?;
    Cuda::new(local_rank.checked_rem(count).unwrap_or(0))
}

/// NCCL, if every rank has it and a GPU of its own; where not, rank 0 says why the host sums. Collective.
fn shared_by_all(
    host: &mut dyn Communicator,
    cuda: &Cuda,
    library: Result<&'static Library, LoadError>,
) -> Result<Option<&'static Library>, CommError> {
    if host.world() == 1 {
        return Ok(None);
    }
    let found = nccl::survey(host, cuda, library.is_ok())?;
    if found.fits() {
        return Ok(library.ok());
    }
    if host.rank() == 0 {
        match (found.on_one_gpu, found.without_library, library) {
            (Some((first, second)), _, _) => tracing::info!(
                "ranks {first} and {second} are on one GPU: sums go through the host"
            ),
            (None, _, Err(error)) => tracing::warn!("sums go through the host: {error}"),
            (None, Some(rank), Ok(_)) => {
                tracing::warn!("sums go through the host: rank {rank} has no NCCL");
            }
            (None, None, Ok(_)) => {}
        }
    }
    Ok(None)
}

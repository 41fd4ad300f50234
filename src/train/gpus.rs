//! Ranks on GPUs: which one each computes on, and what sums between them.

use super::{TrainError, Wrap};
use crate::backend::BackendError;
use crate::backend::cuda::Cuda;
use crate::comm::nccl::{self, Library, LoadError, Nccl, NcclAlgorithm};
use crate::comm::{CollectiveChoice, CommError, Communicator, Staged, gather};

/// The GPUs of a process, and how they are summed.
pub(super) struct Gpus {
    /// The GPU of all ranks, where one was asked for.
    number: Option<usize>,
    /// NCCL, or why it cannot be used; nothing where the host is to sum.
    library: Option<Result<&'static Library, LoadError>>,
    /// Whether a rank without NCCL is an error.
    is_nccl_required: bool,
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
        Cuda::find()?;
        use CollectiveChoice::{Auto, Direct, Hierarchical, Nccl, Ring, Staged};
        let library = match collective {
            Auto | Nccl => Some(nccl::load(algorithm)),
            Direct | Hierarchical | Ring | Staged => None,
        };
        let is_nccl_required = collective == Nccl;
        if let (true, Some(Err(error))) = (is_nccl_required, &library) {
            return Err(error.clone().into());
        }
        Ok(Self {
            number,
            library,
            is_nccl_required,
        })
    }

    /// The GPU of the rank with this number on its host: one for each, and around again where there
    /// are more ranks than GPUs.
    ///
    /// # Errors
    /// If there is none, or it cannot be used.
    pub(super) fn open(&self, local_rank: usize) -> Result<Cuda, BackendError> {
        let number = match self.number {
            Some(number) => number,
            None => local_rank % Cuda::count()?.max(1),
        };
        let cuda = Cuda::new(number)?;
        tracing::info!("GPU {number}: {}", cuda.name());
        Ok(cuda)
    }

    /// Makes the communicator between the GPUs, around that of the hosts.
    pub(super) fn connect(&self, cuda: &Cuda) -> Wrap {
        let (cuda, library) = (cuda.clone(), self.library.clone());
        let is_required = self.is_nccl_required;
        Box::new(move |mut host| {
            let by_nccl = match &library {
                None => Ok(false),
                Some(_) if is_required => Ok(true),
                Some(library) => sums_by_nccl(&mut *host, &cuda, library),
            };
            let by_nccl = by_nccl.inspect_err(|error| host.abort(&error.to_string()))?;
            let library = library.and_then(Result::ok).filter(|_| by_nccl);
            Ok(match library {
                Some(library) => {
                    let nccl = Nccl::connect(library, cuda, host)?;
                    if nccl.rank() == 0 {
                        tracing::info!("{library}");
                    }
                    Box::new(nccl)
                }
                None => Box::new(Staged::new(cuda, host)),
            })
        })
    }
}

/// Whether every rank has NCCL and a GPU of its own; where not, rank 0 says why the host sums.
/// Collective.
fn sums_by_nccl(
    host: &mut dyn Communicator,
    cuda: &Cuda,
    library: &Result<&'static Library, LoadError>,
) -> Result<bool, CommError> {
    if host.world() == 1 {
        return Ok(false);
    }
    let found = gather(host, &[library.is_ok().into()])?;
    let without = found.iter().position(|&found| found == 0);
    let shared = nccl::ranks_on_one_gpu(host, cuda)?;
    if host.rank() == 0 {
        match (without, shared, library) {
            (_, Some((first, second)), _) => tracing::info!(
                "ranks {first} and {second} are on one GPU: sums go through the host"
            ),
            (Some(0), _, Err(error)) => tracing::warn!("sums go through the host: {error}"),
            (Some(rank), _, _) => {
                tracing::warn!("sums go through the host: rank {rank} has no NCCL");
            }
            (None, None, _) => {}
        }
    }
    Ok(without.is_none() && shared.is_none())
}

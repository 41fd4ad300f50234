//! Ranks on GPUs: which one each computes on, and what sums between them.

use super::devices::Devices;
use super::{Reducer, TrainError, Wrap};
use crate::backend::cuda::{self, Cuda};
use crate::backend::{BackendError, MatmulChoice, TimedMatmul};
use crate::comm::nccl::{self, Library, LoadError, Nccl};
use crate::comm::{CollectiveChoice, CommError, Communicator, Staged, gather, tell};
use crate::config::TrainConfig;

/// The GPUs of a process, and how they are summed.
pub(super) struct Gpus {
    /// The GPU of all ranks, where one was asked for.
    number: Option<usize>,
    sums: Sums,
    train: TrainConfig,
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
    /// Looks for NCCL, where what `train` says of sums may use it. To be called before threads are started.
    ///
    /// # Errors
    /// If there is no GPU or nothing to compile its kernels, or NCCL is what was asked for and cannot be
    /// used.
    pub(super) fn find(number: Option<usize>, train: &TrainConfig) -> Result<Self, TrainError> {
        use CollectiveChoice::{Auto, Direct, Hierarchical, Nccl, Ring, Staged};
        Cuda::find()?;
        let sums = match train.collective {
            Auto => Sums::Best(nccl::load(train.nccl_algo)),
            Nccl => Sums::Nccl(nccl::load(train.nccl_algo)?),
            Direct | Hierarchical | Ring | Staged => Sums::Host,
        };
        if train.matmul != MatmulChoice::Kernels {
            match (train.matmul, cuda::cublaslt()) {
                (_, Ok(library)) => tracing::info!("{library}"),
                (MatmulChoice::Auto, Err(problem)) => {
                    tracing::info!("own kernels multiply: {problem}");
                }
                // `open` says so.
                (_, Err(_)) => {}
            }
        }
        Ok(Self {
            number,
            sums,
            train: train.clone(),
        })
    }

    /// The GPU of the rank with this number on its host, which multiplies as it is configured.
    ///
    /// # Errors
    /// If it is not there, or cannot be used, or cuBLASLt is asked for and cannot.
    pub(super) fn open(&self, local_rank: usize) -> Result<Cuda, BackendError> {
        let number = match self.number {
            Some(number) => number,
            None => gpu_of_rank(local_rank)?,
        };
        let cuda = Cuda::open(number, self.train.precision)?;
        tracing::info!("GPU {}: {}", cuda.ordinal(), cuda.name());
        let cuda = cuda.with_matmul(self.train.matmul)?;
        Ok(match self.train.graphs {
            true => cuda.with_graphs(),
            false => cuda,
        })
    }

    /// Makes the communicator between the GPUs, around that of the hosts.
    fn connect(&self, cuda: &Cuda) -> Wrap {
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

impl Devices<Cuda> for Gpus {
    fn join(&self, cuda: &Cuda, reducer: &mut Reducer) -> Result<(), CommError> {
        reducer.wrap(self.connect(cuda))
    }

    fn choose_products(
        &self,
        cuda: &mut Cuda,
        reducer: &mut Reducer,
        pinned: Option<&[TimedMatmul]>,
    ) -> Result<Vec<TimedMatmul>, TrainError> {
        let mut products = Vec::new();
        let without = first_without_library(cuda, reducer)?;
        match (without, pinned) {
            (None, Some(pinned)) => products = pinned.to_vec(),
            (None, None) => products = timed_by_rank_0(cuda, reducer)?,
            (Some(rank), Some(pinned)) if reducer.rank() == 0 && is_by_library(pinned) => {
                tracing::warn!(
                    "cuBLASLt has multiplied so far, and rank {rank} has none: own kernels go on, and \
                     round otherwise"
                );
            }
            (Some(rank), _) if reducer.rank() == 0 => {
                tracing::info!("matmul: own kernels, for rank {rank} has no cuBLASLt");
            }
            (Some(_), _) => {}
        }
        cuda.choose_products(&products);
        Ok(products)
    }
}

/// What rank 0 finds when it times all products. Collective.
fn timed_by_rank_0(cuda: &mut Cuda, reducer: &mut Reducer) -> Result<Vec<TimedMatmul>, TrainError> {
    let timed = match reducer.rank() {
        0 => cuda.time_products()?,
        _ => Vec::new(),
    };
    let timed = serde_json::to_string(&timed).expect("numbers and names are JSON");
    let timed = reducer.call(move |communicator| tell(communicator, &timed))?;
    Ok(serde_json::from_str(&timed).expect("rank 0 is of this version"))
}

/// The first rank without cuBLASLt. Collective.
fn first_without_library(cuda: &Cuda, reducer: &mut Reducer) -> Result<Option<usize>, CommError> {
    let has_library = cuda.has_library();
    let all = reducer.call(move |communicator| gather(communicator, &[has_library.into()]))?;
    Ok(all.iter().position(|&has| has == 0))
}

fn is_by_library(products: &[TimedMatmul]) -> bool {
    let mut chosen = products.iter().map(|timed| timed.chosen);
    chosen.any(|chosen| chosen == MatmulChoice::Cublaslt)
}

/// The number of the GPU of the rank with this number on its host: one for each, and around again where there are more
/// ranks than GPUs.
///
/// # Errors
/// If there is no driver.
pub(crate) fn gpu_of_rank(local_rank: usize) -> Result<usize, BackendError> {
    let count = Cuda::count()?;
    Ok(local_rank.checked_rem(count).unwrap_or(0))
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

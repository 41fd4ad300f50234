//! Whether NCCL can sum: asked before it is, because it would only say that something is invalid.

use crate::backend::cuda::Cuda;
use crate::comm::{CommError, Communicator, gather};

/// What keeps ranks from NCCL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Survey {
    /// Two ranks that are on one GPU, the lower first.
    pub(crate) on_one_gpu: Option<(usize, usize)>,
    /// The first rank without the library.
    pub(crate) without_library: Option<usize>,
}

impl Survey {
    /// Whether nothing does.
    pub(crate) fn fits(&self) -> bool {
        self.on_one_gpu.is_none() && self.without_library.is_none()
    }
}

/// Compares the GPUs of all ranks, and whether they have the library. Collective.
pub(crate) fn survey(
    host: &mut dyn Communicator,
    cuda: &Cuda,
    has_library: bool,
) -> Result<Survey, CommError> {
    let [low, high]: [i64; 2] = bytemuck::cast(cuda.uuid()?);
    let all = gather(host, &[low, high, has_library.into()])?;
    let (ranks, _) = all.as_chunks::<3>();
    let same = |a: usize, b: usize| ranks[a][..2] == ranks[b][..2];
    let first = |rank: usize| (0..rank).find(|&other| same(other, rank));
    Ok(Survey {
        on_one_gpu: (0..ranks.len()).find_map(|rank| Some((first(rank)?, rank))),
        without_library: ranks.iter().position(|&[.., has]| has == 0),
    })
}

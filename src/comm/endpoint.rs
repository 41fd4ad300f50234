//! One rank's communicator: regions, and the algorithm that runs over them.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use half::bf16;

use super::cells::{Cells, Summand, sum};
use super::direct::{Add, Direct};
use super::fixed_point;
use super::gate::Gate;
use super::hierarchical::Hierarchical;
use super::options::{Hosts, Options};
use super::ring::{Group, Ring, Steps};
use super::transport::Transport;
use super::{Algorithm, CommError, Communicator, Entered, REGION, Span};
use crate::backend::{BLOCK, Element, Region, RegionOwner};
use crate::params::partition;

/// How the ranks of a host give each other memory.
pub(crate) trait Sharing: Send {
    /// Allocates `bytes` zeroed bytes on every rank, aligned to 64, or fails on every rank of the
    /// host. Where it `is_shared`, they are to see each other's, if they can. Collective.
    fn allocate(
        &mut self,
        bytes: usize,
        is_shared: bool,
        gate: &Gate,
        transport: &mut dyn Transport,
    ) -> Result<Allocation, CommError>;
}

/// Memory of a region.
pub(crate) struct Allocation {
    /// That of every rank of the host, in their order; this rank's alone where it is not shared.
    pub(crate) memories: Vec<Cells<u8>>,
    /// Which of them is this rank's.
    pub(crate) own: usize,
    /// Keeps all of it.
    pub(crate) keep: Arc<dyn RegionOwner>,
}

/// A rank of threads or of processes.
pub(crate) struct Endpoint<T, S> {
    ring: Ring<T>,
    sharing: S,
    gate: Gate,
    hosts: Hosts,
    algorithm: Algorithm,
    local_rank: usize,
    overlap: Option<bool>,
    everybody: Vec<usize>,
    regions: Vec<Registered>,
}

struct Registered {
    memories: Memories,
    own: usize,
    /// For sums in fixed point, one for each block.
    exponents: Option<Cells<i64>>,
    _keep: Arc<dyn RegionOwner>,
}

enum Memories {
    F32(Vec<Cells<f32>>),
    Bf16(Vec<Cells<bf16>>),
    I64(Vec<Cells<i64>>),
}

/// What to do with a span.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Collective {
    AllReduce,
    ReduceScatter,
    AllGather,
    /// From this rank.
    Broadcast(usize),
}

impl Collective {
    /// As errors name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all-reduce",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllGather => "all-gather",
            Self::Broadcast(_) => "broadcast",
        }
    }
}

/// An element whose regions an endpoint keeps apart.
trait Registers: Summand {
    fn register(memories: Vec<Cells<Self>>) -> Memories;
}

impl Registers for f32 {
    fn register(memories: Vec<Cells<f32>>) -> Memories {
        Memories::F32(memories)
    }
}

impl Registers for bf16 {
    fn register(memories: Vec<Cells<bf16>>) -> Memories {
        Memories::Bf16(memories)
    }
}

impl Registers for i64 {
    fn register(memories: Vec<Cells<i64>>) -> Memories {
        Memories::I64(memories)
    }
}

impl<T: Transport, S: Sharing> Endpoint<T, S> {
    pub(crate) fn new(
        transport: T,
        sharing: S,
        gate: Gate,
        hosts: Hosts,
        algorithm: Algorithm,
        local_rank: usize,
        options: &Options,
    ) -> Self {
        let everybody = (0..transport.world()).collect();
        let ring = Ring::new(transport, options.chunk);
        Self {
            ring,
            sharing,
            gate,
            hosts,
            algorithm,
            local_rank,
            overlap: options.overlap,
            everybody,
            regions: Vec::new(),
        }
    }

    fn allocate<E: Registers>(&mut self, len: usize) -> Result<Region<E>, CommError> {
        self.ring.transport().enter("allocation")?;
        let bytes = len.saturating_mul(size_of::<E>());
        let is_shared = self.algorithm != Algorithm::Ring;
        let allocation = self
            .sharing
            .allocate(bytes, is_shared, &self.gate, self.ring.transport());
        // All ranks go on in the same way, whatever went wrong on one of them.
        let got = self.ring.all(&self.everybody, allocation.is_ok())?;
        let allocation = allocation?;
        if !got {
            let problem = "another rank could not".to_owned();
            return Err(CommError::Memory {
                what: REGION,
                rank: self.rank(),
                bytes,
                problem,
            });
        }
        let shared = allocation.memories.len() == self.gate.ranks().len();
        let shared = self.ring.all(&self.everybody, shared)?;
        if is_shared && !shared {
            tracing::warn!(
                rank = self.rank(),
                bytes,
                "the ranks of a host cannot share this memory; what is allocated from now on is summed by \
                 messages"
            );
            self.algorithm = Algorithm::Ring;
        }
        let memories: Vec<Cells<E>> = allocation
            .memories
            .iter()
            .map(|memory| memory.of::<E>())
            .collect();
        let (own, keep) = (allocation.own, allocation.keep);
        // SAFETY: the memory lives as long as `keep`.
        let region = unsafe {
            Region::new(
                memories[own].start(),
                len,
                self.regions.len(),
                Arc::clone(&keep),
            )
        };
        let memories = E::register(memories);
        self.regions.push(Registered {
            memories,
            own,
            exponents: None,
            _keep: keep,
        });
        Ok(region)
    }

    fn run(&mut self, collective: Collective, span: &Span) -> Result<(), CommError> {
        // Taken out and put back, so that the memories and the rest can be borrowed apart.
        let regions = std::mem::take(&mut self.regions);
        let Some(region) = regions.get(span.region) else {
            panic!(
                "{} of region {}, but there are {}",
                collective.name(),
                span.region,
                regions.len()
            )
        };
        let result = match &region.memories {
            Memories::F32(memories) => match region.exponents {
                Some(exponents) => self.run_in_fixed_point(collective, span, memories, exponents),
                None => self.run_on(collective, span, memories, region),
            },
            Memories::Bf16(memories) => self.run_on(collective, span, memories, region),
            Memories::I64(memories) => self.run_on(collective, span, memories, region),
        };
        self.regions = regions;
        self.noting_failure(result)
    }

    fn noting_failure<R>(&mut self, result: Result<R, CommError>) -> Result<R, CommError> {
        if let Err(cause) = &result {
            self.ring.transport().spoil(cause);
        }
        result
    }

    /// [`Communicator::watch`], before a failure is told to others.
    fn look_after(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError> {
        let (rank, transport) = (self.rank(), self.ring.transport());
        transport.check()?;
        let patience = transport.patience();
        if waited < patience / 2 {
            return Ok(());
        }
        let missing = transport.missing_in(collective.number);
        if waited < patience {
            return Ok(());
        }
        let operation = collective.operation;
        Err(match missing {
            Some(rank) => CommError::Timeout {
                operation,
                rank,
                waited: patience,
            },
            None => CommError::Transport {
                operation,
                rank,
                problem: format!(
                    "every rank has begun it, but it is not over after {patience:?}; look for a \
                     device that is stuck or busy with other work"
                ),
            },
        })
    }

    /// Even one rank rounds its values, as it would among others.
    fn run_in_fixed_point(
        &mut self,
        collective: Collective,
        span: &Span,
        memories: &[Cells<f32>],
        exponents: Cells<i64>,
    ) -> Result<(), CommError> {
        self.ring.transport().enter(collective.name())?;
        self.direct(collective, span, memories, &|sources, targets, start| {
            fixed_point::sum(sources, targets, start, exponents)
        })
    }

    fn run_on<E: Summand>(
        &mut self,
        collective: Collective,
        span: &Span,
        memories: &[Cells<E>],
        region: &Registered,
    ) -> Result<(), CommError> {
        if self.world() == 1 {
            return Ok(());
        }
        self.ring.transport().enter(collective.name())?;
        let own = memories[region.own].slice(span.range.clone());
        if own.len() == 0 {
            return Ok(());
        }
        match self.algorithm {
            Algorithm::Direct => self.direct(collective, span, memories, &|sources, targets, _| {
                sum(sources, targets)
            }),
            Algorithm::Hierarchical => self.hierarchical(collective, span, memories),
            Algorithm::Ring | Algorithm::Nccl => self.messages(collective, own),
        }
    }

    fn direct<E: Element>(
        &mut self,
        collective: Collective,
        span: &Span,
        memories: &[Cells<E>],
        add: Add<'_, E>,
    ) -> Result<(), CommError> {
        let direct = Direct {
            gate: &self.gate,
            memories,
            range: span.range.clone(),
        };
        let watch = self.ring.transport();
        match collective {
            Collective::AllReduce => direct.all_reduce(watch, add),
            Collective::ReduceScatter => direct.reduce_scatter(watch, add),
            Collective::AllGather => direct.all_gather(watch),
            Collective::Broadcast(root) => direct.broadcast(watch, root),
        }
    }

    fn hierarchical<E: Summand>(
        &mut self,
        collective: Collective,
        span: &Span,
        memories: &[Cells<E>],
    ) -> Result<(), CommError> {
        let local = Direct {
            gate: &self.gate,
            memories,
            range: span.range.clone(),
        };
        let mut algorithm = Hierarchical {
            local,
            hosts: &self.hosts,
            ring: &mut self.ring,
        };
        match collective {
            Collective::AllReduce => algorithm.reduce(Steps::ALL_REDUCE),
            Collective::ReduceScatter => algorithm.reduce(Steps::REDUCE_SCATTER),
            Collective::AllGather => algorithm.all_gather(),
            Collective::Broadcast(root) => algorithm.broadcast(root),
        }
    }

    fn messages<E: Summand>(
        &mut self,
        collective: Collective,
        own: Cells<E>,
    ) -> Result<(), CommError> {
        let (index, world) = (self.rank(), self.everybody.len());
        let group = Group {
            index,
            members: &|member| self.everybody[member],
            len: world,
        };
        let piece = |member| partition(own.len(), world, member);
        match collective {
            Collective::AllReduce => self.ring.run(group, own, piece, Steps::ALL_REDUCE),
            Collective::ReduceScatter => self.ring.run(group, own, piece, Steps::REDUCE_SCATTER),
            Collective::AllGather => self.ring.run(group, own, piece, Steps::ALL_GATHER),
            Collective::Broadcast(root) => self.ring.broadcast(group, own, root),
        }
    }
}

impl<T: Transport, S: Sharing> Communicator for Endpoint<T, S> {
    fn rank(&self) -> usize {
        self.ring.rank()
    }

    fn world(&self) -> usize {
        self.everybody.len()
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn overlaps(&self) -> bool {
        let gains = || {
            // Sums in shared memory take processors and nothing else; messages take time as well.
            let ranks = self.gate.ranks().len();
            let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
            self.algorithm != Algorithm::Direct || processors >= 2 * ranks
        };
        self.world() > 1 && self.overlap.unwrap_or_else(gains)
    }

    fn is_thread_bound(&self) -> bool {
        self.ring.is_thread_bound()
    }

    fn allocate_f32(&mut self, len: usize) -> Result<Region<f32>, CommError> {
        let result = self.allocate(len);
        self.noting_failure(result)
    }

    fn allocate_bf16(&mut self, len: usize) -> Result<Region<bf16>, CommError> {
        let result = self.allocate(len);
        self.noting_failure(result)
    }

    fn allocate_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        let result = self.allocate(len);
        self.noting_failure(result)
    }

    fn sum_in_fixed_point(
        &mut self,
        region: &Region<f32>,
    ) -> Result<Option<Region<i64>>, CommError> {
        if self.algorithm != Algorithm::Direct {
            return Ok(None);
        }
        let exponents = self.allocate_i64(region.len().div_ceil(BLOCK))?;
        if self.algorithm != Algorithm::Direct {
            // That memory cannot be shared: the ranks have turned to messages.
            return Ok(None);
        }
        // SAFETY: this rank's own memory, which the region registered behind it keeps.
        let cells = unsafe { Cells::new(exponents.as_ptr(), exponents.len()) };
        self.regions[region.id()].exponents = Some(cells);
        Ok(Some(exponents))
    }

    fn all_reduce(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::AllReduce, span)
    }

    fn reduce_scatter(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::ReduceScatter, span)
    }

    fn all_gather(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(Collective::AllGather, span)
    }

    fn broadcast(&mut self, span: &Span, root: usize) -> Result<(), CommError> {
        self.run(Collective::Broadcast(root), span)
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        if self.world() == 1 {
            return Ok(());
        }
        let entered = self.ring.transport().enter("barrier");
        let result = entered.and_then(|_| match self.algorithm {
            Algorithm::Direct => self.gate.meet(self.ring.transport()),
            Algorithm::Ring | Algorithm::Hierarchical | Algorithm::Nccl => {
                self.ring.all(&self.everybody, true).map(drop)
            }
        });
        self.noting_failure(result)
    }

    fn enter(&mut self, operation: &'static str) -> Result<Entered, CommError> {
        let result = self.ring.transport().enter(operation);
        let number = self.noting_failure(result)?;
        Ok(Entered { number, operation })
    }

    fn watch(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError> {
        let result = self.look_after(collective, waited);
        self.noting_failure(result)
    }

    fn abort(&mut self, reason: &str) {
        self.ring.transport().abort(reason);
    }
}

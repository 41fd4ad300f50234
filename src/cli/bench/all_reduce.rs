//! `ringstep bench all-reduce`.

use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::{AllReduceArguments, median};
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::backend::{Memory, Region};
use crate::cli::table::{Align, Table, thousands};
use crate::cli::{Failure, show};
use crate::comm::launcher::{self, Launcher};
use crate::comm::nccl::{self, Nccl, NcclAlgorithm};
use crate::comm::{CollectiveChoice, CommError, Communicator, Options, Span, Staged, threads};
use crate::train::{connect_mpi, gpu_of_rank};

/// Sums before those that count.
const WARM_UP: usize = 2;

/// Sums that are queued on a GPU before one waits for them.
const QUEUED: usize = 10;

/// Measures what was asked for, or all that there is.
pub(super) fn run(arguments: &AllReduceArguments) -> Result<(), Failure> {
    let gpus = Cuda::count().unwrap_or(0);
    let launcher = launcher::here();
    let launcher = launcher.filter(|launcher| launcher.world != Some(1));
    if let (Some(launcher), false) = (&launcher, cfg!(feature = "mpi")) {
        launcher.refuse_without_mpi()?;
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let ranks = arguments.ranks.map(|ranks| ranks as usize);
    let ranks = ranks.unwrap_or(if gpus > 0 { gpus } else { processors }.clamp(2, 8));
    let sizes = match arguments.sizes.is_empty() {
        true => (5..=14).map(|power| 1 << (2 * power)).collect(),
        false => arguments.sizes.clone(),
    };
    let plan = Plan {
        sizes,
        repeats: arguments.repeats.map(|repeats| repeats as usize),
        nccl_algo: arguments.nccl_algo,
    };
    let world = match launcher {
        Some(launcher) => World::Processes(launcher),
        None => World::Threads(ranks),
    };
    // MPI ends with the last connection, and cannot begin again.
    let _connection = world.hold()?;
    let mut measured = Vec::new();
    for collective in collectives(arguments, &world, gpus)? {
        measured.extend(plan.measure(&world, collective)?);
    }
    match arguments.json {
        _ if measured.is_empty() => Ok(()),
        true => show(serde_json::to_string_pretty(&measured)? + "\n"),
        false => show(table(&measured)),
    }
}

/// What is to be measured: what was asked for, or all that this machine has.
fn collectives(
    arguments: &AllReduceArguments,
    world: &World,
    gpus: usize,
) -> Result<Vec<CollectiveChoice>, Failure> {
    use CollectiveChoice::{Auto, Direct, Hierarchical, Nccl, Ring, Staged};
    let mut chosen = arguments.collective.clone();
    if chosen.is_empty() {
        chosen = match world {
            World::Threads(_) => vec![Direct, Ring, Hierarchical],
            World::Processes(_) => vec![Auto, Ring],
        };
        let ranks = match world {
            World::Threads(ranks) => Some(*ranks),
            World::Processes(launcher) => launcher.world,
        };
        if gpus > 0 {
            chosen.push(Staged);
            // Perhaps processes are on several hosts.
            if ranks.is_none_or(|ranks| ranks > gpus) {
                tracing::warn!(
                    "nccl is left out: it needs a GPU for each rank, and here are {gpus}; \
                     `--collective nccl` tries it"
                );
            } else if let Err(error) = nccl::load(arguments.nccl_algo) {
                tracing::warn!("nccl is left out: {error}");
            } else {
                chosen.push(Nccl);
            }
        }
    } else if gpus == 0 && chosen.iter().any(|choice| matches!(choice, Staged | Nccl)) {
        return Err(
            "staged and nccl sum between GPUs, and there is none: see `ringstep doctor`".into(),
        );
    }
    Ok(chosen)
}

/// Where ranks come from.
enum World {
    Threads(usize),
    Processes(Launcher),
}

impl World {
    /// What has to be kept for as long as ranks connect.
    fn hold(&self) -> Result<Option<Box<dyn Communicator>>, CommError> {
        match self {
            Self::Threads(_) => Ok(None),
            Self::Processes(launcher) => {
                connect_mpi(&Options::default(), Some(launcher.clone()))().map(Some)
            }
        }
    }

    /// What rank 0 makes of `body`; nothing where it is another process.
    fn run<R: Send>(
        &self,
        options: &Options,
        body: impl Fn(Box<dyn Communicator>) -> Result<R, Failure> + Sync,
    ) -> Result<Option<R>, Failure> {
        match self {
            Self::Threads(ranks) => {
                let communicators = threads(*ranks, options)?;
                let body = &body;
                let results: Vec<Result<R, Failure>> = thread::scope(|scope| {
                    let start = |communicator| scope.spawn(move || body(communicator));
                    let ranks: Vec<_> = communicators.into_iter().map(start).collect();
                    let end = |rank: thread::ScopedJoinHandle<'_, _>| {
                        rank.join()
                            .unwrap_or_else(|_| Err("a rank panicked".into()))
                    };
                    ranks.into_iter().map(end).collect()
                });
                let results: Vec<R> = results.into_iter().collect::<Result<_, _>>()?;
                Ok(results.into_iter().next())
            }
            Self::Processes(launcher) => {
                let communicator = connect_mpi(options, Some(launcher.clone()))()?;
                let is_first = communicator.rank() == 0;
                let result = body(communicator)?;
                Ok(is_first.then_some(result))
            }
        }
    }
}

/// What is summed, and how often.
struct Plan {
    /// Bytes, rounded up to whole floats.
    sizes: Vec<usize>,
    repeats: Option<usize>,
    nccl_algo: NcclAlgorithm,
}

/// One size.
#[derive(Debug, Serialize)]
struct Measured {
    collective: &'static str,
    /// What ran: `direct` for `auto` on one host.
    algorithm: &'static str,
    ranks: usize,
    bytes: usize,
    /// Of one sum, the median.
    seconds: f64,
    /// Bytes by time, in GB/s.
    algorithm_bandwidth: f64,
    /// What a link of a ring carries meanwhile: that times `2 (ranks - 1) / ranks`.
    bus_bandwidth: f64,
}

impl Plan {
    /// Measures all sizes; nothing on processes other than rank 0's.
    fn measure(
        &self,
        world: &World,
        collective: CollectiveChoice,
    ) -> Result<Vec<Measured>, Failure> {
        use CollectiveChoice::{Hierarchical, Nccl, Staged};
        let mut options = Options::default().with_collective(collective.of_hosts());
        if let (Hierarchical, World::Threads(ranks @ 2..)) = (collective, world) {
            options.hosts = vec![ranks.div_ceil(2), ranks / 2];
        }
        let rows = match collective {
            Staged => world.run(&options, |host| {
                let mut cuda = Cuda::new(gpu_of_rank(host.local_rank())?)?;
                let mut staged = self::Staged::new(cuda.clone(), host);
                self.rank(collective, &mut cuda, &mut staged, QUEUED)
            })?,
            Nccl => {
                let library = nccl::load(self.nccl_algo)?;
                world.run(&options, |host| {
                    let mut cuda = Cuda::new(gpu_of_rank(host.local_rank())?)?;
                    let mut nccl = self::Nccl::connect(library, cuda.clone(), host)?;
                    self.rank(collective, &mut cuda, &mut nccl, QUEUED)
                })?
            }
            _ => world.run(&options, |mut host| {
                self.rank(collective, &mut Cpu::new(), &mut *host, 1)
            })?,
        };
        Ok(rows.unwrap_or_default())
    }

    /// What one rank does; it tells the others where it fails. `calls` are made before it waits.
    fn rank<B: Memory>(
        &self,
        collective: CollectiveChoice,
        backend: &mut B,
        communicator: &mut dyn Communicator,
        calls: usize,
    ) -> Result<Vec<Measured>, Failure> {
        let seconds = self.time(backend, communicator, calls);
        if let Err(failure) = &seconds {
            communicator.abort(&failure.to_string());
        }
        let (ranks, algorithm) = (communicator.world(), communicator.algorithm());
        let row = |(&bytes, seconds): (&usize, f64)| {
            let bandwidth = bytes as f64 / seconds / 1e9;
            Measured {
                collective: collective.name(),
                algorithm: algorithm.name(),
                ranks,
                bytes,
                seconds,
                algorithm_bandwidth: bandwidth,
                bus_bandwidth: bandwidth * 2.0 * (ranks as f64 - 1.0) / ranks as f64,
            }
        };
        Ok(self.sizes.iter().zip(seconds?).map(row).collect())
    }

    /// Seconds of a sum of each size, once it is seen to be right.
    fn time<B: Memory>(
        &self,
        backend: &mut B,
        communicator: &mut dyn Communicator,
        calls: usize,
    ) -> Result<Vec<f64>, Failure> {
        let lens = self
            .sizes
            .iter()
            .map(|bytes| bytes.div_ceil(size_of::<f32>()));
        let lens: Vec<usize> = lens.collect();
        let region = communicator.allocate_f32(lens.iter().copied().max().unwrap_or(0))?;
        let ranks = communicator.world();
        let mut medians = Vec::new();
        for len in lens {
            let sum = Sum {
                region: &region,
                len,
            };
            sum.run(backend, communicator, 1.0, 1)?;
            let mut last = [0.0];
            // SAFETY: the sum is over, and no other has begun.
            backend.download(unsafe { B::region(&region, len - 1..len) }, &mut last);
            backend.synchronize()?;
            if last[0] != ranks as f32 {
                return Err(
                    format!("{ranks} ranks with 1 in {len} elements sum to {last:?}").into(),
                );
            }
            communicator.barrier()?;
            let repeats = (64 << 20) / (len * size_of::<f32>());
            let repeats = self.repeats.unwrap_or(repeats.clamp(5, 50));
            let times = (0..WARM_UP + repeats)
                .map(|_| Ok(sum.run(backend, communicator, 0.0, calls)? / calls as f64));
            let times: Result<Vec<f64>, Failure> = times.collect();
            medians.push(median(times?.split_off(WARM_UP)));
        }
        Ok(medians)
    }
}

/// The first elements of a region, to be summed.
struct Sum<'a> {
    region: &'a Region<f32>,
    len: usize,
}

impl Sum<'_> {
    /// Seconds from when all ranks have filled their memory with `value` until this one has summed it
    /// `calls` times.
    fn run<B: Memory>(
        &self,
        backend: &mut B,
        communicator: &mut dyn Communicator,
        value: f32,
        calls: usize,
    ) -> Result<f64, Failure> {
        let span = Span {
            region: self.region.id(),
            range: 0..self.len,
        };
        // SAFETY: nobody sums before the fence and the barrier.
        backend.fill(unsafe { B::region_mut(self.region, 0..self.len) }, value);
        let fence = backend.release();
        communicator.after(fence)?;
        backend.synchronize()?;
        communicator.barrier()?;
        let start = Instant::now();
        for _ in 0..calls {
            communicator.all_reduce(&span)?;
        }
        backend.acquire();
        backend.synchronize()?;
        communicator.poll()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

fn table(measured: &[Measured]) -> String {
    let mut table = Table::new([
        ("collective", Align::Left),
        ("ran", Align::Left),
        ("ranks", Align::Right),
        ("bytes", Align::Right),
        ("us", Align::Right),
        ("algorithm GB/s", Align::Right),
        ("bus GB/s", Align::Right),
    ]);
    for row in measured {
        table.row([
            row.collective.to_owned(),
            row.algorithm.to_owned(),
            row.ranks.to_string(),
            thousands(row.bytes as u64),
            format!("{:.1}", row.seconds * 1e6),
            format!("{:.2}", row.algorithm_bandwidth),
            format!("{:.2}", row.bus_bandwidth),
        ]);
    }
    table.to_string()
}

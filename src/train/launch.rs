//! From a number of ranks to that many replicas running one body.
//!
//! Ranks are threads of this process, or this process is one rank among those that `mpirun`
//! started. Either way each rank is a compute thread with its reducer. A rank that fails
//! tells the others before it stops, so that nobody waits for it, and the error that comes out is
//! the first cause, not its echo.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::{Reducer, TrainError};
use crate::comm::launcher::Launcher;
use crate::comm::{CommError, Communicator, Options, threads};

/// Makes the communicator of one rank, on the thread that will use it.
pub type Connect = Box<dyn FnOnce() -> Result<Box<dyn Communicator>, CommError> + Send>;

/// How each of `world` thread ranks connects.
///
/// # Errors
/// If the options do not fit the world.
pub fn connect_threads(world: usize, options: &Options) -> Result<Vec<Connect>, CommError> {
    let communicators = threads(world, options)?.into_iter();
    let connect = |communicator| Box::new(move || Ok(communicator)) as Connect;
    Ok(communicators.map(connect).collect())
}

/// How this process connects to the others of its MPI job.
#[cfg(feature = "mpi")]
pub fn connect_mpi(options: &Options, launcher: Option<Launcher>) -> Connect {
    let options = options.clone();
    Box::new(move || crate::comm::mpi::connect(&options, launcher.as_ref()))
}

/// How this process connects to the others of its MPI job: not at all, without MPI.
#[cfg(not(feature = "mpi"))]
pub fn connect_mpi(_: &Options, _: Option<Launcher>) -> Connect {
    Box::new(|| {
        Err(CommError::Transport {
            operation: "start under MPI",
            rank: 0,
            problem: "this program was built without MPI; build it with `cargo build --release \
                      --features mpi`"
                .to_owned(),
        })
    })
}

/// Runs `body` on one thread per entry of `connects` and returns what every rank returned, in
/// order.
///
/// # Errors
/// The error of the rank that failed first; the others are told to stop. `E` says of its own kind
/// whether it only echoes another rank's failure.
pub fn run_threads<R, E, F>(connects: Vec<Connect>, body: F) -> Result<Vec<R>, E>
where
    R: Send,
    E: RankError,
    F: Fn(Reducer) -> Result<R, E> + Sync,
{
    let body = &body;
    let results: Vec<Result<R, E>> = thread::scope(|scope| {
        let ranks: Vec<_> = connects
            .into_iter()
            .enumerate()
            .map(|(rank, connect)| {
                let builder = thread::Builder::new().name(format!("rank-{rank}"));
                builder.spawn_scoped(scope, move || run_rank(connect, body))
            })
            .collect();
        let join = |(rank, spawned): (usize, std::io::Result<thread::ScopedJoinHandle<'_, _>>)| {
            match spawned {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| Err(panicked(rank, &*panic))),
                Err(source) => Err(TrainError::Spawn { rank, source }.into()),
            }
        };
        ranks.into_iter().enumerate().map(join).collect()
    });
    let (values, mut errors) = split(results);
    let cause = errors
        .iter()
        .position(|error| !error.is_echo())
        .unwrap_or(0);
    if errors.is_empty() {
        Ok(values)
    } else {
        Err(errors.swap_remove(cause))
    }
}

/// Runs `body` as the one rank of this process.
///
/// # Errors
/// Its error, which names the rank where a device failed; the other ranks have been told.
pub fn run_rank<R, E, F>(connect: Connect, body: &F) -> Result<R, E>
where
    E: RankError,
    F: Fn(Reducer) -> Result<R, E>,
{
    let (reducer, connection) = Reducer::start(connect).map_err(TrainError::from)?;
    let rank = reducer.rank();
    let result = catch_unwind(AssertUnwindSafe(|| body(reducer)))
        .unwrap_or_else(|panic| Err(panicked(rank, &*panic)));
    let result = result.map_err(|error: E| error.on_rank(rank));
    let failure = result
        .as_ref()
        .err()
        .filter(|error| !error.is_echo())
        .map(E::to_string);
    connection.close(failure.as_deref());
    result
}

/// An error that knows whether another rank's failure caused it.
pub trait RankError: std::error::Error + From<TrainError> + Send {
    /// Whether this only says that another rank stopped.
    fn is_echo(&self) -> bool;

    /// The same as this rank's, where it does not say whose it is.
    #[must_use]
    fn on_rank(self, _rank: usize) -> Self {
        self
    }
}

impl RankError for TrainError {
    fn is_echo(&self) -> bool {
        matches!(self, Self::Comm(CommError::Aborted { .. }))
    }

    fn on_rank(self, rank: usize) -> Self {
        self.on_rank(rank, None)
    }
}

fn split<R, E>(results: Vec<Result<R, E>>) -> (Vec<R>, Vec<E>) {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    (values, errors)
}

fn panicked<E: RankError>(rank: usize, panic: &(dyn Any + Send)) -> E {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let message = message.unwrap_or_else(|| "no message".to_owned());
    TrainError::Panic { rank, message }.into()
}

//! Ranks that are MPI processes.
//!
//! Every call is made by the thread that connected. Ranks of one host share memory; messages run
//! between hosts, or everywhere if the ring is asked for.

mod call;
mod memory;
mod processes;
mod session;

use super::endpoint::Endpoint;
use super::launcher::Launcher;
use super::options::{Hosts, Options};
use super::{CommError, Communicator};
pub use call::library;
use memory::SharedMemory;
use processes::Processes;
use session::Session;

/// Joins the world that the launcher started; collective, and all calls of the result come from
/// the same thread. The first connection of a process initialises MPI and the last one to be
/// dropped finalises it, unless a collective failed.
///
/// # Errors
/// If MPI cannot be initialised, if it counts other ranks than `launcher` started, or if the
/// options do not fit the world.
pub fn connect(
    options: &Options,
    launcher: Option<&Launcher>,
) -> Result<Box<dyn Communicator>, CommError> {
    let session = Session::open()?;
    let (rank, world) = (session.rank(), session.world());
    if let Some(launcher) = launcher {
        launcher
            .check(world)
            .map_err(|error| CommError::Transport {
                operation: "start under MPI",
                rank,
                problem: error.to_string(),
            })?;
    }
    let mut names = session.host_names()?;
    // Whatever ranks make of their memory, they share the devices of their host.
    let before = names[..rank].iter();
    let local_rank = before.filter(|name| **name == names[rank]).count();
    if let Some(pretended) = options.pretended_hosts(world)? {
        for (name, host) in names.iter_mut().zip(pretended) {
            *name = *name * world + host;
        }
    }
    let meeting = memory::meet(&session, Hosts::new(&names))?;
    let hosts = meeting.hosts.clone();
    let algorithm = options.algorithm(&hosts)?;
    let gate = meeting.gate;
    let sharing = SharedMemory::new(&meeting.block, options.shared_memory_limit);
    let transport = Processes::new(session, hosts.clone(), meeting.block, options)?;
    Ok(Box::new(Endpoint::new(
        transport, sharing, gate, hosts, algorithm, local_rank, options,
    )))
}

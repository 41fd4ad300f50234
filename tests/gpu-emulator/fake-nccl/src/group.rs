//! `ncclGroupStart` / `ncclGroupEnd`, and enqueueing.
//!
//! Inside a group calls are only collected. At its end, communicators are initialised together, and
//! all operations on one communicator and stream become one task.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::comm::Comm;
use crate::driver::{driver, Stream};
use crate::progress::{release, step, Part, Task};
use crate::result::{failure, NcclError, NcclResult};

#[derive(Default)]
struct Group {
    depth: u32,
    parts: Vec<(Arc<Comm>, Stream, Part)>,
    joining: Vec<Arc<Comm>>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

pub(crate) fn start() {
    GROUP.with(|g| g.borrow_mut().depth += 1);
}

pub(crate) fn end() -> NcclResult {
    let group = GROUP.with(|g| {
        let mut group = g.borrow_mut();
        if group.depth == 0 {
            return Err(failure(
                NcclError::InvalidUsage,
                "ncclGroupEnd without ncclGroupStart",
            ));
        }
        group.depth -= 1;
        Ok(if group.depth == 0 {
            std::mem::take(&mut *group)
        } else {
            Group::default()
        })
    })?;
    group.joining.iter().try_for_each(Comm::wait_for_all)?;
    let mut tasks: Vec<(Arc<Comm>, Stream, Vec<Part>)> = Vec::new();
    for (comm, stream, part) in group.parts {
        let same =
            |t: &&mut (Arc<Comm>, Stream, Vec<Part>)| Arc::ptr_eq(&t.0, &comm) && t.1 == stream;
        match tasks.iter_mut().find(same) {
            Some(task) => task.2.push(part),
            None => tasks.push((comm, stream, vec![part])),
        }
    }
    tasks
        .into_iter()
        .try_for_each(|(comm, stream, parts)| enqueue(comm, stream, parts))
}

/// A communicator has been joined: wait now, or at the end of the group.
pub(crate) fn joined(comm: &Arc<Comm>) -> NcclResult {
    let inside = GROUP.with(|g| {
        let mut group = g.borrow_mut();
        if group.depth > 0 {
            group.joining.push(comm.clone());
        }
        group.depth > 0
    });
    if inside {
        Ok(())
    } else {
        comm.wait_for_all()
    }
}

/// Adds an operation to the group, or enqueues it.
pub(crate) fn add(comm: Arc<Comm>, stream: Stream, part: Part) -> NcclResult {
    comm.check()?;
    // SAFETY: a function of the fake driver.
    let resolved = unsafe { (driver()?.resolve_stream)(stream) };
    if resolved == 0 {
        let message = format!("stream {stream:#x} does not exist");
        return Err(failure(NcclError::InvalidArgument, message));
    }
    let mut part = Some(part);
    GROUP.with(|g| {
        let mut group = g.borrow_mut();
        if group.depth > 0 {
            group
                .parts
                .extend(part.take().map(|p| (comm.clone(), resolved, p)));
        }
    });
    match part {
        Some(part) => enqueue(comm, resolved, vec![part]),
        None => Ok(()),
    }
}

fn enqueue(comm: Arc<Comm>, stream: Stream, parts: Vec<Part>) -> NcclResult {
    let driver = driver()?;
    let ticket = if driver.is_capturing(stream) {
        None
    } else {
        comm.note_enqueued(stream);
        Some(comm.tickets.fetch_add(1, Ordering::AcqRel))
    };
    let task = Box::into_raw(Box::new(Task::new(comm, ticket, parts)));
    // SAFETY: the driver calls `release` once, whatever happens.
    match unsafe { (driver.enqueue_host)(stream, step, release, task.cast()) } {
        0 => Ok(()),
        code => Err(failure(
            NcclError::UnhandledCuda,
            format!("CUDA error {code}"),
        )),
    }
}

//! Worlds of threads for tests.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use super::{CommError, Communicator, Options, threads};

/// Runs `body` once per rank of a world of threads and returns what each returned, in rank order.
///
/// # Panics
/// If a rank panics, with what it said; the others are told to stop.
///
/// ```
/// use ringstep::comm::{Options, Span, testing};
///
/// let sums = testing::world(4, &Options::default(), |communicator| {
///     let region = communicator.allocate_i64(1)?;
///     unsafe { region.slice_mut(0..1)[0] = communicator.rank() as i64 + 1 };
///     communicator.all_reduce(&Span { region: region.id(), range: 0..1 })?;
///     Ok(unsafe { region.slice(0..1)[0] })
/// });
/// assert!(sums.into_iter().all(|sum| sum.unwrap() == 10));
/// ```
pub fn world<R: Send>(
    ranks: usize,
    options: &Options,
    body: impl Fn(&mut dyn Communicator) -> Result<R, CommError> + Sync,
) -> Vec<Result<R, CommError>> {
    let body = &body;
    let communicators = match threads(ranks, options) {
        Ok(communicators) => communicators,
        Err(error) => panic!("{error}"),
    };
    thread::scope(|scope| {
        let spawn = |mut communicator: Box<dyn Communicator>| {
            scope.spawn(move || {
                let run = AssertUnwindSafe(|| body(communicator.as_mut()));
                catch_unwind(run).unwrap_or_else(|panic| {
                    communicator.abort("it panicked");
                    resume_unwind(panic)
                })
            })
        };
        let threads: Vec<_> = communicators.into_iter().map(spawn).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

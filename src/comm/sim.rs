//! A network that is slower than memory, and ranks that fail on cue.

use std::time::Duration;

use half::bf16;

use super::{Algorithm, CommError, Communicator, Entered, Span};
use crate::backend::{Fence, Region};

/// A slow link out of every rank: a message occupies it for its length over the bandwidth, after
/// the messages before it, and arrives a latency later. Waiting for it costs no processor time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Time between the end of a message's sending and its arrival.
    pub latency: Duration,
    /// Bytes a second.
    pub bandwidth: f64,
}

impl Link {
    /// When a message of `bytes` posted at `now` leaves the link, which is busy until `busy`, and
    /// when it arrives. Times count from any common start.
    pub(crate) fn pass(&self, bytes: usize, now: Duration, busy: Duration) -> (Duration, Duration) {
        let sent = now.max(busy) + Duration::from_secs_f64(bytes as f64 / self.bandwidth);
        (sent, sent + self.latency)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The rank comes late.
    Delay(Duration),
    /// The rank leaves the world without a word; this call and all after it fail.
    Die,
    /// The rank goes on as if the collective had run.
    Stray,
    /// The collective does not wait until its memory is whole ([`Communicator::after`] is forgotten).
    Unfenced,
}

/// A communicator that fails on cue, to see what others make of it.
pub struct Faulty {
    rank: usize,
    world: usize,
    local_rank: usize,
    algorithm: Algorithm,
    /// Nothing once it is dead.
    inner: Option<Box<dyn Communicator>>,
    script: Vec<(usize, Fault)>,
    calls: usize,
}

impl Faulty {
    /// `inner`, with each fault of `script` at its collective, counted from 0; allocations do not
    /// count.
    pub fn new(inner: Box<dyn Communicator>, script: Vec<(usize, Fault)>) -> Self {
        Self {
            rank: inner.rank(),
            world: inner.world(),
            local_rank: inner.local_rank(),
            algorithm: inner.algorithm(),
            inner: Some(inner),
            script,
            calls: 0,
        }
    }

    fn alive(&mut self) -> Result<&mut Box<dyn Communicator>, CommError> {
        let rank = self.rank;
        self.inner.as_mut().ok_or_else(|| CommError::Transport {
            operation: "scripted fault",
            rank,
            problem: "this rank is dead".to_owned(),
        })
    }

    fn run(
        &mut self,
        collective: impl FnOnce(&mut dyn Communicator) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        let call = self.calls;
        self.calls += 1;
        match self.fault(call) {
            Some(Fault::Delay(delay)) => std::thread::sleep(delay),
            Some(Fault::Die) => self.inner = None,
            Some(Fault::Stray) => return Ok(()),
            Some(Fault::Unfenced) | None => {}
        }
        collective(self.alive()?.as_mut())
    }

    /// What goes wrong at collective number `call`.
    fn fault(&self, call: usize) -> Option<Fault> {
        let fault = self.script.iter().find(|(at, _)| *at == call);
        fault.map(|(_, fault)| *fault)
    }
}

impl Communicator for Faulty {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn local_rank(&self) -> usize {
        self.local_rank
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn overlaps(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.overlaps())
    }

    fn is_thread_bound(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.is_thread_bound())
    }

    fn allocate_f32(&mut self, len: usize) -> Result<Region<f32>, CommError> {
        self.alive()?.allocate_f32(len)
    }

    fn allocate_bf16(&mut self, len: usize) -> Result<Region<bf16>, CommError> {
        self.alive()?.allocate_bf16(len)
    }

    fn allocate_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        self.alive()?.allocate_i64(len)
    }

    fn allocate_host_i64(&mut self, len: usize) -> Result<Region<i64>, CommError> {
        self.alive()?.allocate_host_i64(len)
    }

    fn after(&mut self, fence: Fence) -> Result<(), CommError> {
        if self.fault(self.calls) == Some(Fault::Unfenced) {
            return Ok(());
        }
        self.alive()?.after(fence)
    }

    fn sum_in_fixed_point(
        &mut self,
        region: &Region<f32>,
    ) -> Result<Option<Region<i64>>, CommError> {
        self.alive()?.sum_in_fixed_point(region)
    }

    fn all_reduce(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(|inner| inner.all_reduce(span))
    }

    fn reduce_scatter(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(|inner| inner.reduce_scatter(span))
    }

    fn all_gather(&mut self, span: &Span) -> Result<(), CommError> {
        self.run(|inner| inner.all_gather(span))
    }

    fn broadcast(&mut self, span: &Span, root: usize) -> Result<(), CommError> {
        self.run(|inner| inner.broadcast(span, root))
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.run(|inner| inner.barrier())
    }

    fn enter(&mut self, operation: &'static str) -> Result<Entered, CommError> {
        self.alive()?.enter(operation)
    }

    fn watch(&mut self, collective: &Entered, waited: Duration) -> Result<(), CommError> {
        self.alive()?.watch(collective, waited)
    }

    fn poll(&mut self) -> Result<(), CommError> {
        self.alive()?.poll()
    }

    fn abort(&mut self, reason: &str) {
        if let Some(inner) = &mut self.inner {
            inner.abort(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_queue_for_the_link_and_arrive_a_latency_later() {
        let link = Link {
            latency: Duration::from_millis(5),
            bandwidth: 1e6,
        };
        let ms = Duration::from_millis;
        let (sent, arrives) = link.pass(2000, ms(10), ms(0));
        assert_eq!((sent, arrives), (ms(12), ms(17)));
        assert_eq!(link.pass(1000, ms(11), sent), (ms(13), ms(18)));
    }
}

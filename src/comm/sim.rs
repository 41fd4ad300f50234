//! A network that is slower than memory, and ranks that fail on cue.

use std::time::Duration;

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

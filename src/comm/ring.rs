//! The ring all-reduce: every rank talks to two neighbours only, in pipelined chunks.
//!
//! Four ranks `0..4` hold vectors that are cut into four pieces `a b c d`; rank 0 is to own the sum
//! of piece `a`, rank 1 that of `b`, and so on. In each step every rank sends a piece to its right
//! neighbour and receives another from its left one. In the first three steps (reduce-scatter) the
//! receiver adds what comes to its own values and passes the partial sum on in the next step; in
//! the last three (all-gather) it keeps what comes and passes it on as it is.
//!
//! ```text
//! step      rank 0 sends  rank 1 sends  rank 2 sends  rank 3 sends
//! 0 add     d             a             b             c
//! 1 add     c (3+0)       d (0+1)       a (1+2)       b (2+3)
//! 2 add     b (2+3+0)     c (3+0+1)     d (0+1+2)     a (1+2+3)
//!           now rank 0 has all of a, rank 1 of b, rank 2 of c, rank 3 of d
//! 3 keep    a             b             c             d
//! 4 keep    d             a             b             c
//! 5 keep    c             d             a             b
//! ```
//!
//! Cost for `n` ranks and `b` bytes: every rank sends and receives `2 (n - 1) / n * b` bytes, which
//! is the least possible, in `2 (n - 1)` steps; with a latency `l` and a bandwidth `w` per link,
//! `2 (n - 1) (l + b / (n w))`. (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for
//! clusters of workstations", 2009.)
//!
//! Pieces travel in chunks. All messages of a rank form one line: chunk by chunk, step by step. The
//! chunk that is received as number `m` of the line is sent on as number `m + chunks per piece`, so
//! that several chunks are on their way while one is added, across the border between steps too.
//!
//! The order of additions depends on the piece, not on time or chunks: all ranks end with the same
//! bits, but another number of ranks gives others. 16-bit floats are rounded at every hop.

use std::ops::Range;

use super::CommError;
use super::cells::{Cells, Summand, sum};
use super::transport::{Landing, SLOTS, Transport};
use crate::params::partition;

/// Chunks that a rank sends before it waits for the first to come in.
const AHEAD: usize = SLOTS / 2;

/// Which steps of the ring run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    reduce: bool,
    gather: bool,
}

impl Steps {
    pub(crate) const ALL_REDUCE: Self = Self {
        reduce: true,
        gather: true,
    };
    pub(crate) const REDUCE_SCATTER: Self = Self {
        reduce: true,
        gather: false,
    };
    pub(crate) const ALL_GATHER: Self = Self {
        reduce: false,
        gather: true,
    };

    fn range(self, len: usize) -> Range<usize> {
        let start = if self.reduce { 0 } else { len - 1 };
        start..if self.gather { 2 * (len - 1) } else { len - 1 }
    }
}

/// The ranks of a ring, in its order.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    /// Which of them this one is.
    pub(crate) index: usize,
    /// How many there are.
    pub(crate) len: usize,
    /// The rank of each.
    pub(crate) members: &'a dyn Fn(usize) -> usize,
}

impl Group<'_> {
    fn right(&self) -> usize {
        (self.members)((self.index + 1) % self.len)
    }

    fn left(&self) -> usize {
        (self.members)((self.index + self.len - 1) % self.len)
    }
}

/// Collectives by messages between neighbours.
pub(crate) struct Ring<T> {
    transport: T,
    chunk: usize,
}

impl<T: Transport> Ring<T> {
    /// Over `transport`, in messages of at most `chunk` bytes.
    pub(crate) fn new(transport: T, chunk: usize) -> Self {
        Self { transport, chunk }
    }

    /// What carries the messages.
    pub(crate) fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// This rank.
    pub(crate) fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// Whether it must stay on the thread that made it.
    pub(crate) fn is_thread_bound(&self) -> bool {
        self.transport.is_thread_bound()
    }

    /// Runs `steps` over `own`, of which `piece(i)` belongs to member `i` of the group.
    pub(crate) fn run<E: Summand>(
        &mut self,
        group: Group<'_>,
        own: Cells<E>,
        piece: impl Fn(usize) -> Range<usize>,
        steps: Steps,
    ) -> Result<(), CommError> {
        if group.len == 1 {
            return Ok(());
        }
        let longest = (0..group.len)
            .map(|member| piece(member).len())
            .max()
            .unwrap_or(0);
        let chunks = longest.div_ceil(self.chunk / size_of::<E>()).max(1);
        let line = Line {
            group,
            own,
            piece,
            chunks,
        };
        self.pump(&line, steps.range(group.len))
    }

    /// Moves all chunks of `line` in the steps of `steps`.
    ///
    /// Nobody waits in a circle: what message `m` waits for are messages before it in the line.
    fn pump<E: Summand, P: Fn(usize) -> Range<usize>>(
        &mut self,
        line: &Line<'_, E, P>,
        steps: Range<usize>,
    ) -> Result<(), CommError> {
        let first_kept = (line.group.len - 1) * line.chunks;
        let lag = AHEAD.min(line.chunks);
        let (start, end) = (steps.start * line.chunks, steps.end * line.chunks);
        let mut posted = start;
        for turn in start..end + lag {
            // Receives are started early, so that a message finds where it goes. A kept chunk goes
            // to memory that this rank has sent from: not before that send's slot was used again.
            while posted < end.min(turn + SLOTS - lag) {
                let sent = posted.checked_sub(first_kept).filter(|&sent| sent >= start);
                if let Some(sent) = sent.filter(|&sent| sent + SLOTS >= turn.min(end)) {
                    if posted + lag > turn {
                        break;
                    }
                    self.transport.finish_send(sent % SLOTS)?;
                }
                self.post(line, posted, posted < first_kept)?;
                posted += 1;
            }
            if let Some(number) = turn.checked_sub(lag).filter(|&number| number >= start) {
                let target = line.received(number);
                self.transport
                    .finish_receive(number % SLOTS, &mut |message| {
                        sum(&[message.of::<E>(), target], &[target]);
                    })?;
            }
            if turn < end {
                self.transport.finish_send(turn % SLOTS)?;
                let data = line.sent(turn).bytes();
                if data.len() > 0 {
                    self.transport
                        .start_send(turn % SLOTS, line.group.right(), data)?;
                }
            }
        }
        self.finish_sends()
    }

    fn post<E: Summand, P: Fn(usize) -> Range<usize>>(
        &mut self,
        line: &Line<'_, E, P>,
        number: usize,
        add: bool,
    ) -> Result<(), CommError> {
        let cells = line.received(number).bytes();
        let landing = if add {
            Landing::Glimpse(cells.len())
        } else {
            Landing::Here(cells)
        };
        if landing.is_empty() {
            return Ok(());
        }
        self.transport
            .start_receive(number % SLOTS, line.group.left(), landing)
    }

    fn finish_sends(&mut self) -> Result<(), CommError> {
        (0..SLOTS).try_for_each(|slot| self.transport.finish_send(slot))
    }

    /// Copies the cells of the group's member `root` to all, chunk by chunk along the ring.
    pub(crate) fn broadcast<E: Summand>(
        &mut self,
        group: Group<'_>,
        own: Cells<E>,
        root: usize,
    ) -> Result<(), CommError> {
        let place = (group.index + group.len - root) % group.len;
        let chunks = own.len().div_ceil(self.chunk / size_of::<E>());
        let chunk = |number| own.slice(partition(own.len(), chunks, number)).bytes();
        for number in 0..chunks {
            let slot = number % SLOTS;
            if place > 0 {
                let landing = Landing::Here(chunk(number));
                self.transport.start_receive(slot, group.left(), landing)?;
                self.transport.finish_receive(slot, &mut |_| {})?;
            }
            if place + 1 < group.len {
                self.transport.finish_send(slot)?;
                self.transport
                    .start_send(slot, group.right(), chunk(number))?;
            }
        }
        self.finish_sends()
    }

    /// Waits for all `ranks` and says whether `yes` on all of them. In round `k` everybody hears
    /// from the rank `2^k` to the left, and so from all after the logarithm of their number.
    /// (Hensgen, Finkel and Manber, "Two algorithms for barrier synchronization", 1988.)
    pub(crate) fn all(&mut self, ranks: &[usize], yes: bool) -> Result<bool, CommError> {
        static ANSWERS: [u8; 2] = [0, 1];
        let world = ranks.len();
        let own = ranks
            .iter()
            .position(|&rank| rank == self.rank())
            .unwrap_or(0);
        let (mut everybody, mut distance) = (yes, 1);
        while distance < world {
            let answer = &raw const ANSWERS[usize::from(everybody)];
            // SAFETY: messages only read it, whenever that is.
            let answer = unsafe { Cells::new(answer.cast_mut(), 1) };
            let left = ranks[(own + world - distance) % world];
            self.transport.start_receive(0, left, Landing::Glimpse(1))?;
            self.transport
                .start_send(0, ranks[(own + distance) % world], answer)?;
            self.transport
                .finish_receive(0, &mut |message| everybody &= message.first() != 0)?;
            self.transport.finish_send(0)?;
            distance *= 2;
        }
        Ok(everybody)
    }
}

/// All messages of a rank in one collective, in order.
struct Line<'a, E, P> {
    group: Group<'a>,
    own: Cells<E>,
    piece: P,
    chunks: usize,
}

impl<E: Summand, P: Fn(usize) -> Range<usize>> Line<'_, E, P> {
    /// What message `number` sends.
    fn sent(&self, number: usize) -> Cells<E> {
        self.chunk(number, 1)
    }

    /// Where message `number` is received.
    fn received(&self, number: usize) -> Cells<E> {
        self.chunk(number, 2)
    }

    /// In step `s` member `i` sends piece `i - 1 - s` and receives `i - 2 - s`.
    fn chunk(&self, number: usize, back: usize) -> Cells<E> {
        let (step, chunk) = (number / self.chunks, number % self.chunks);
        let member = (self.group.index + 3 * self.group.len - back - step) % self.group.len;
        let piece = self.own.slice((self.piece)(member));
        piece.slice(partition(piece.len(), self.chunks, chunk))
    }
}

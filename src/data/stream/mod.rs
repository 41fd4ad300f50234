//! Streams of elements: sources, what is done with them on the way, and where they go on after a break.
//!
//! A [`Dataset`] is a description. Nothing is read before it is iterated, and it can be iterated any number
//! of times: pass `epoch` over it gives the same elements whenever and wherever it is made. For five numbers,
//!
//! | what | elements |
//! |---|---|
//! | `range(0..5)` | 0 1 2 3 4 |
//! | `.batch(4, Keep)` | 0123 4 |
//! | `.batch(4, Keep).repeat(2)` | 0123 4 0123 4 |
//! | `.repeat(2).batch(4, Keep)` | 0123 4012 34 |
//! | `.shard(3, 1)` | 1 4 |
//!
//! # Where a stream goes on
//!
//! A [`Position`] is the epoch and the number of elements that were taken of it, and nothing else. Stages that
//! make one element of a known number of others ask only for what comes after it; from the first that does not
//! (a filter, a shuffle of what cannot be sought in, elements of unequal number) all before it is computed again
//! and thrown away. What a stage is given must therefore be a function of its argument alone.
//!
//! Ranks share a stream by [`Dataset::shard`]. Its position is that of the whole: after `n` elements, over all
//! ranks, `dataset.skip(n).shard(world, rank)` is what is left, for any other number of ranks.

mod batch;
mod cache;
mod combine;
mod elements;
mod prefetch;
mod rows;
mod shuffle;
mod sources;

use std::fmt;
use std::sync::Arc;

pub use batch::{Padding, Remainder};
pub use rows::Row;
pub use shuffle::Reshuffle;

use super::DataError;

/// A lazy sequence of elements, to be iterated any number of times.
///
/// ```
/// use ringstep::data::stream::{Dataset, Remainder, Reshuffle};
///
/// let batches = Dataset::range(0..1000)
///     .map(|number| number * 2)
///     .shuffle(1000, 7, Reshuffle::EachEpoch)
///     .batch(32, Remainder::Drop);
/// let first: Vec<Vec<u64>> = batches.iter(0).collect::<Result<_, _>>()?;
/// assert_eq!((first.len(), first[0].len()), (31, 32));
/// // Another order in the next epoch, and the same one whenever this is asked for again.
/// assert_ne!(batches.iter(1).next().unwrap()?, first[0]);
/// assert_eq!(batches.iter(0).next().unwrap()?, first[0]);
/// # Ok::<(), ringstep::data::DataError>(())
/// ```
pub struct Dataset<T> {
    stage: Arc<dyn Stage<T>>,
}

/// What a dataset is made of.
trait Stage<T>: Send + Sync {
    fn size(&self) -> Size;

    /// Whether elements from any place on come without those before it being made.
    fn seeks(&self) -> bool;

    /// The elements of pass `epoch`, without the first `start` of them.
    fn open(&self, epoch: u64, start: u64) -> Boxed<T>;
}

type Boxed<T> = Box<dyn Iterator<Item = Result<T, DataError>> + Send>;

/// How many elements a pass has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many.
    Known(u64),
    /// It never ends.
    Endless,
    /// Only reading tells.
    Unknown,
}

impl Size {
    /// The size of what has `count(n)` elements where this has `n`.
    fn map(self, count: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::Known(elements) => Self::Known(count(elements)),
            other => other,
        }
    }
}

/// A place in a stream: all that has to be kept to go on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The pass.
    pub epoch: u64,
    /// Elements of it that came before.
    pub element: u64,
}

/// One pass over a dataset.
pub struct Elements<T> {
    rest: Boxed<T>,
    position: Position,
}

impl<T> Elements<T> {
    /// Where the next element stands.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl<T> Iterator for Elements<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.rest.next()?;
        self.position.element += 1;
        Some(next)
    }
}

impl<T> Dataset<T> {
    fn new(stage: impl Stage<T> + 'static) -> Self {
        Self {
            stage: Arc::new(stage),
        }
    }

    /// How many elements a pass has.
    pub fn size(&self) -> Size {
        self.stage.size()
    }

    /// Pass `epoch` from its beginning. An element that cannot be made is an error in its place.
    pub fn iter(&self, epoch: u64) -> Elements<T> {
        self.resume(Position { epoch, element: 0 })
    }

    /// The rest of a pass.
    pub fn resume(&self, position: Position) -> Elements<T> {
        Elements {
            rest: self.stage.open(position.epoch, position.element),
            position,
        }
    }
}

/// Of the same elements; nothing is copied.
impl<T> Clone for Dataset<T> {
    fn clone(&self) -> Self {
        Self {
            stage: Arc::clone(&self.stage),
        }
    }
}

impl<T> fmt::Debug for Dataset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a dataset, size {:?}", self.size())
    }
}

impl<T> fmt::Debug for Elements<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements from {:?}", self.position)
    }
}

/// What could be opened, or the error as the only element.
fn opened<T, I>(elements: Result<I, DataError>) -> Boxed<T>
where
    T: Send + 'static,
    I: Iterator<Item = Result<T, DataError>> + Send + 'static,
{
    match elements {
        Ok(elements) => Box::new(elements),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// Leaves out elements that can only be reached by making those before them.
fn replay<T>(elements: impl Iterator<Item = T>, start: u64) -> impl Iterator<Item = T> {
    elements.skip(usize::try_from(start).unwrap_or(usize::MAX))
}

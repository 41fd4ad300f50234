//! Random order.
//!
//! A window of `buffer` elements slides over the stream; the next element is drawn from it, and its place is
//! taken by the first behind the window. A window of 1 changes nothing. One that holds everything draws what is
//! left, each with the same chance: all orders are equally likely. With 2 over `a b c d`, the first is `a` or
//! `b`, never `c`.
//!
//! Where the stream can be sought in, the window is one of places: elements come only when it is their turn, and
//! a stream that goes on draws numbers alone.

use std::iter;

use super::{Boxed, Dataset, Size, Stage, replay};
use crate::random::Stream;

/// Whether every epoch has an order of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reshuffle {
    /// It has.
    EachEpoch,
    /// All have that of the first.
    Never,
}

impl<T: Send + 'static> Dataset<T> {
    /// In random order, drawn from a window of `buffer` elements. The order is a function of `seed` and
    /// epoch; what is shuffled twice wants two seeds.
    ///
    /// # Panics
    /// If `buffer` is 0.
    #[must_use]
    pub fn shuffle(self, buffer: usize, seed: u64, reshuffle: Reshuffle) -> Self {
        assert!(buffer > 0, "a window has at least one element");
        Self::new(Shuffle {
            from: self,
            // What a random number can choose among.
            buffer: buffer.min(u32::MAX as usize),
            seed,
            reshuffle,
        })
    }
}

struct Shuffle<T> {
    from: Dataset<T>,
    buffer: usize,
    seed: u64,
    reshuffle: Reshuffle,
}

impl<T: Send + 'static> Stage<T> for Shuffle<T> {
    fn size(&self) -> Size {
        self.from.size()
    }

    /// Numbers are drawn for all before.
    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let order = match self.reshuffle {
            Reshuffle::EachEpoch => epoch,
            Reshuffle::Never => 0,
        };
        let numbers = Stream::new(self.seed, format_args!("shuffle in epoch {order}"));
        match self.from.size() {
            Size::Known(elements) if self.from.stage.seeks() => {
                let from = self.from.clone();
                let places = replay(window(0..elements, self.buffer, numbers), start);
                Box::new(places.filter_map(move |place| from.stage.open(epoch, place).next()))
            }
            _ => {
                let elements = self.from.stage.open(epoch, 0);
                Box::new(replay(window(elements, self.buffer, numbers), start))
            }
        }
    }
}

fn window<T>(
    elements: impl Iterator<Item = T>,
    buffer: usize,
    mut numbers: Stream,
) -> impl Iterator<Item = T> {
    let mut elements = elements.fuse();
    let mut window = Vec::new();
    iter::from_fn(move || {
        let missing = buffer - window.len();
        window.extend(elements.by_ref().take(missing));
        match window.len() {
            0 => None,
            len => Some(window.swap_remove(numbers.below(len as u32) as usize)),
        }
    })
}

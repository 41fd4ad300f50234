//! One dataset from several.

use std::iter;
use std::sync::Arc;

use super::{Boxed, Dataset, Size, Stage, replay};

impl<T: Send + 'static> Dataset<T> {
    /// Pairs of elements, up to the end of the shorter.
    pub fn zip<U: Send + 'static>(self, other: Dataset<U>) -> Dataset<(T, U)> {
        Dataset::new(Zip(self, other))
    }

    /// These elements and then the others.
    #[must_use]
    pub fn concatenate(self, then: Self) -> Self {
        Self::new(Concatenate { first: self, then })
    }

    /// The elements of the dataset that `f` makes of each, one dataset after the other.
    pub fn flat_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Dataset<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        self.interleave(1, 1, f)
    }

    /// The elements of the datasets that `f` makes, `block` of each in turn out of `cycle` of them. A
    /// dataset that ends gives its place to the next at its next turn.
    ///
    /// # Panics
    /// If `cycle` or `block` is 0.
    pub fn interleave<U: Send + 'static>(
        self,
        cycle: usize,
        block: usize,
        f: impl Fn(T) -> Dataset<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        assert!(cycle > 0 && block > 0, "a cycle and a block are at least 1");
        Dataset::new(Interleave {
            from: self,
            cycle,
            block,
            f: Arc::new(f),
        })
    }
}

struct Zip<T, U>(Dataset<T>, Dataset<U>);

impl<T: Send + 'static, U: Send + 'static> Stage<(T, U)> for Zip<T, U> {
    fn size(&self) -> Size {
        match (self.0.size(), self.1.size()) {
            (Size::Known(one), Size::Known(other)) => Size::Known(one.min(other)),
            (Size::Endless, size) | (size, Size::Endless) => size,
            _ => Size::Unknown,
        }
    }

    fn seeks(&self) -> bool {
        self.0.stage.seeks() && self.1.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<(T, U)> {
        let others = self.1.stage.open(epoch, start);
        let pairs = self.0.stage.open(epoch, start).zip(others);
        Box::new(pairs.map(|(one, other)| Ok((one?, other?))))
    }
}

struct Concatenate<T> {
    first: Dataset<T>,
    then: Dataset<T>,
}

impl<T: Send + 'static> Stage<T> for Concatenate<T> {
    fn size(&self) -> Size {
        match (self.first.size(), self.then.size()) {
            (Size::Known(first), Size::Known(then)) => Size::Known(first.saturating_add(then)),
            (Size::Endless, _) | (_, Size::Endless) => Size::Endless,
            _ => Size::Unknown,
        }
    }

    fn seeks(&self) -> bool {
        self.first.stage.seeks() && self.then.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let (start, replayed) = match self.first.size() {
            Size::Known(first) if start >= first => {
                return self.then.stage.open(epoch, start - first);
            }
            Size::Known(_) | Size::Endless => (start, 0),
            Size::Unknown => (0, start),
        };
        // Opened only once it is its turn.
        let then = iter::once(self.then.clone()).flat_map(move |then| then.stage.open(epoch, 0));
        Box::new(replay(
            self.first.stage.open(epoch, start).chain(then),
            replayed,
        ))
    }
}

struct Interleave<T, F> {
    from: Dataset<T>,
    cycle: usize,
    block: usize,
    f: Arc<F>,
}

impl<T, U, F> Stage<U> for Interleave<T, F>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> Dataset<U> + Send + Sync + 'static,
{
    fn size(&self) -> Size {
        match self.from.size() {
            Size::Known(0) => Size::Known(0),
            Size::Endless => Size::Endless,
            Size::Known(_) | Size::Unknown => Size::Unknown,
        }
    }

    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<U> {
        let mut from = self.from.stage.open(epoch, 0).fuse();
        let f = Arc::clone(&self.f);
        let (cycle, block) = (self.cycle, self.block);
        let mut open: Vec<Option<Boxed<U>>> = (0..cycle).map(|_| None).collect();
        let (mut turn, mut taken) = (0, 0);
        // Places in a row that have nothing more to give.
        let mut idle = 0;
        let elements = iter::from_fn(move || {
            while idle < cycle {
                let place = &mut open[turn];
                if place.is_none() {
                    match from.next() {
                        Some(Ok(element)) => *place = Some(f(element).stage.open(epoch, 0)),
                        Some(Err(error)) => return Some(Err(error)),
                        None => idle += 1,
                    }
                }
                if let Some(elements) = place {
                    idle = 0;
                    match elements.next() {
                        Some(element) => {
                            taken += 1;
                            if taken == block {
                                (turn, taken) = ((turn + 1) % cycle, 0);
                            }
                            return Some(element);
                        }
                        None => *place = None,
                    }
                }
                (turn, taken) = ((turn + 1) % cycle, 0);
            }
            None
        });
        Box::new(replay(elements, start))
    }
}

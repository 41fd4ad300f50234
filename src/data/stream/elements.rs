//! One element from another, and which of them come.

use std::iter;
use std::sync::Arc;

use super::{Boxed, Dataset, Size, Stage, replay};
use crate::data::DataError;

impl<T: Send + 'static> Dataset<T> {
    /// What `f` makes of each element.
    pub fn map<U: Send + 'static>(self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Dataset<U> {
        self.try_map(move |element| Ok(f(element)))
    }

    /// What `f` makes of each element, which may be an error in its place.
    pub fn try_map<U: Send + 'static>(
        self,
        f: impl Fn(T) -> Result<U, DataError> + Send + Sync + 'static,
    ) -> Dataset<U> {
        Dataset::new(Map {
            from: self,
            f: Arc::new(f),
        })
    }

    /// The elements that `keep` says yes to.
    #[must_use]
    pub fn filter(self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self::new(Filter {
            from: self,
            keep: Arc::new(keep),
        })
    }

    /// Each element behind its place, from 0.
    pub fn enumerate(self) -> Dataset<(u64, T)> {
        Dataset::new(Enumerate { from: self })
    }

    /// The first `count` elements.
    #[must_use]
    pub fn take(self, count: u64) -> Self {
        Self::new(Take { from: self, count })
    }

    /// All but the first `count` elements.
    #[must_use]
    pub fn skip(self, count: u64) -> Self {
        Self::new(Skip { from: self, count })
    }

    /// Of every `count` elements that at `index`.
    ///
    /// # Panics
    /// If `index` is not below `count`.
    #[must_use]
    pub fn shard(self, count: u64, index: u64) -> Self {
        assert!(
            index < count,
            "there are shards 0 to below {count}, no {index}"
        );
        Self::new(Shard {
            from: self,
            count,
            index,
        })
    }

    /// All elements `count` times over. Pass `epoch` has the passes from `epoch * count` on.
    #[must_use]
    pub fn repeat(self, count: u64) -> Self {
        Self::new(Repeat {
            from: self,
            count: Some(count),
        })
    }

    /// All elements again and again. There is only one pass: it has all those of what is repeated.
    #[must_use]
    pub fn repeat_endlessly(self) -> Self {
        Self::new(Repeat {
            from: self,
            count: None,
        })
    }
}

struct Map<T, F> {
    from: Dataset<T>,
    f: Arc<F>,
}

impl<T, U, F> Stage<U> for Map<T, F>
where
    T: Send + 'static,
    F: Fn(T) -> Result<U, DataError> + Send + Sync + 'static,
{
    fn size(&self) -> Size {
        self.from.size()
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<U> {
        let f = Arc::clone(&self.f);
        let elements = self.from.stage.open(epoch, start);
        Box::new(elements.map(move |element| f(element?)))
    }
}

struct Filter<T, F> {
    from: Dataset<T>,
    keep: Arc<F>,
}

impl<T, F> Stage<T> for Filter<T, F>
where
    T: Send + 'static,
    F: Fn(&T) -> bool + Send + Sync + 'static,
{
    fn size(&self) -> Size {
        match self.from.size() {
            Size::Known(0) => Size::Known(0),
            Size::Endless => Size::Endless,
            _ => Size::Unknown,
        }
    }

    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let keep = Arc::clone(&self.keep);
        let elements = self.from.stage.open(epoch, 0);
        let kept = elements.filter(move |element| element.as_ref().map_or(true, |it| keep(it)));
        Box::new(replay(kept, start))
    }
}

struct Enumerate<T> {
    from: Dataset<T>,
}

impl<T: Send + 'static> Stage<(u64, T)> for Enumerate<T> {
    fn size(&self) -> Size {
        self.from.size()
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<(u64, T)> {
        let elements = self.from.stage.open(epoch, start);
        Box::new(
            (start..)
                .zip(elements)
                .map(|(place, element)| Ok((place, element?))),
        )
    }
}

struct Take<T> {
    from: Dataset<T>,
    count: u64,
}

impl<T: Send + 'static> Stage<T> for Take<T> {
    fn size(&self) -> Size {
        match self.from.size() {
            Size::Endless => Size::Known(self.count),
            size => size.map(|elements| elements.min(self.count)),
        }
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        match self.count.checked_sub(start) {
            None | Some(0) => Box::new(iter::empty()),
            Some(left) => {
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                Box::new(self.from.stage.open(epoch, start).take(left))
            }
        }
    }
}

struct Skip<T> {
    from: Dataset<T>,
    count: u64,
}

impl<T: Send + 'static> Stage<T> for Skip<T> {
    fn size(&self) -> Size {
        self.from
            .size()
            .map(|elements| elements.saturating_sub(self.count))
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        self.from
            .stage
            .open(epoch, self.count.saturating_add(start))
    }
}

struct Shard<T> {
    from: Dataset<T>,
    count: u64,
    index: u64,
}

impl<T: Send + 'static> Stage<T> for Shard<T> {
    fn size(&self) -> Size {
        let own = |elements: u64| elements.saturating_sub(self.index).div_ceil(self.count);
        self.from.size().map(own)
    }

    fn seeks(&self) -> bool {
        self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let first = self.count.saturating_mul(start).saturating_add(self.index);
        let step = usize::try_from(self.count).unwrap_or(usize::MAX);
        Box::new(self.from.stage.open(epoch, first).step_by(step))
    }
}

struct Repeat<T> {
    from: Dataset<T>,
    count: Option<u64>,
}

impl<T: Send + 'static> Stage<T> for Repeat<T> {
    fn size(&self) -> Size {
        match (self.from.size(), self.count) {
            (Size::Known(0), _) | (_, Some(0)) => Size::Known(0),
            (Size::Known(elements), Some(count)) => Size::Known(elements.saturating_mul(count)),
            (Size::Unknown, Some(_)) => Size::Unknown,
            (Size::Endless, _) | (_, None) => Size::Endless,
        }
    }

    fn seeks(&self) -> bool {
        matches!(self.from.size(), Size::Known(_)) && self.from.stage.seeks()
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let (past, start, replayed) = match self.from.size() {
            Size::Known(0) => return Box::new(iter::empty()),
            Size::Known(elements) => (start / elements, start % elements, 0),
            Size::Endless => (0, start, 0),
            Size::Unknown => (0, 0, start),
        };
        let before = epoch.saturating_mul(self.count.unwrap_or(0));
        let last = self.count.unwrap_or(u64::MAX);
        let from = self.from.clone();
        let mut passes = (past..last).map(move |pass| {
            let start = if pass == past { start } else { 0 };
            from.stage.open(before.saturating_add(pass), start)
        });
        let is_endless = self.count.is_none();
        let mut current = passes.next();
        let mut is_empty = true;
        let elements = iter::from_fn(move || {
            loop {
                if let Some(element) = current.as_mut()?.next() {
                    is_empty = false;
                    return Some(element);
                }
                // What has nothing in it would be repeated for ever.
                current = if is_empty && is_endless {
                    None
                } else {
                    passes.next()
                };
                is_empty = true;
            }
        });
        Box::new(replay(elements, replayed))
    }
}

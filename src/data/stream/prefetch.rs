//! Elements made on a thread of their own, ahead of who takes them.

use std::iter;
use std::panic;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::{Boxed, Dataset, Size, Stage};

impl<T: Send + 'static> Dataset<T> {
    /// The same elements, `ahead` of them made before they are asked for, and one that waits for room.
    #[must_use]
    pub fn prefetch(self, ahead: usize) -> Self {
        Self::new(Prefetch { from: self, ahead })
    }
}

struct Prefetch<T> {
    from: Dataset<T>,
    ahead: usize,
}

impl<T: Send + 'static> Stage<T> for Prefetch<T> {
    fn size(&self) -> Size {
        self.from.size()
    }

    /// To be opened at one place after the other, as a shuffle does, would be a thread for each.
    fn seeks(&self) -> bool {
        false
    }

    fn open(&self, epoch: u64, start: u64) -> Boxed<T> {
        let (made, taken) = sync_channel(self.ahead);
        let from = self.from.clone();
        let thread = thread::Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || {
                for element in from.stage.open(epoch, start) {
                    // Nobody takes more.
                    if made.send(element).is_err() {
                        break;
                    }
                }
            });
        let Ok(thread) = thread else {
            // Without a thread to spare they come when they are asked for.
            return self.from.stage.open(epoch, start);
        };
        let mut thread = Some(thread);
        Box::new(iter::from_fn(move || match taken.recv() {
            Ok(element) => Some(element),
            Err(_) => {
                if let Err(panic) = thread.take()?.join() {
                    panic::resume_unwind(panic);
                }
                None
            }
        }))
    }
}

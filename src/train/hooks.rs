//! What a program is told while a run trains.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Record;

/// A function that a program gave to be called.
type Hook<T> = Arc<dyn Fn(&T) + Send + Sync>;

/// Functions that rank 0 calls, in the order in which they were given.
#[derive(Clone, Default)]
pub struct Hooks {
    records: Vec<Hook<Record>>,
    checkpoints: Vec<Hook<Path>>,
}

impl Hooks {
    /// Adds one that is called for each record.
    pub(super) fn on_record(&mut self, hook: impl Fn(&Record) + Send + Sync + 'static) {
        self.records.push(Arc::new(hook));
    }

    /// Adds one that is called for each checkpoint.
    pub(super) fn on_checkpoint(&mut self, hook: impl Fn(&Path) + Send + Sync + 'static) {
        self.checkpoints.push(Arc::new(hook));
    }

    /// Tells of a record that was written.
    pub(super) fn record(&self, record: &Record) {
        self.records.iter().for_each(|hook| hook(record));
    }

    /// Tells of a checkpoint that is whole.
    pub(super) fn checkpoint(&self, folder: &Path) {
        self.checkpoints.iter().for_each(|hook| hook(folder));
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("records", &self.records.len())
            .field("checkpoints", &self.checkpoints.len())
            .finish()
    }
}

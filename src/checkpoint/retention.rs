//! Which checkpoints are kept.

use std::fs;
use std::io::ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound};
use std::path::Path;

use super::file::{names, remove_folder, sync_folder};
use super::manifest::{is_of_step, step_folder};
use super::reader::{Checkpoint, list};
use super::{CheckpointError, FileError};
use crate::config::Goal;

/// What is kept: the newest few, and the best.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// How many of the newest; at least one is always kept.
    pub last: usize,
    /// Which one is best, if one is to be kept for that.
    pub best: Option<Best>,
    /// The step of one that is needed later, and kept.
    pub needed: Option<u64>,
}

/// What makes a checkpoint the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Best {
    /// Name among the metrics of a checkpoint, such as `test_loss`.
    pub metric: String,
    /// Which end of it is good.
    pub goal: Goal,
}

impl Retention {
    /// Removes what is not kept, once the checkpoint of `newest` is complete.
    ///
    /// Only checkpoints up to `newest` are counted and removed: a later one is left from a run that
    /// went on from an earlier step, and is replaced when that step comes again. One whose manifest
    /// cannot be read counts for nothing and stays.
    pub(super) fn apply(&self, checkpoints: &Path, newest: u64) -> Result<(), CheckpointError> {
        let mut whole = Vec::new();
        for step in list(checkpoints)? {
            if step <= newest
                && let Ok(checkpoint) = Checkpoint::open(&checkpoints.join(step_folder(step)))
            {
                whole.push(checkpoint);
            }
        }
        let last = whole.len().saturating_sub(self.last.max(1));
        let kept = [self.best_of(&whole), self.needed];
        for checkpoint in &whole[..last] {
            if !kept.contains(&Some(checkpoint.step())) {
                remove(checkpoints, checkpoint.step())?;
            }
        }
        Ok(())
    }

    /// Step of the best checkpoint, the earliest of equals, among those that have the metric.
    fn best_of(&self, checkpoints: &[Checkpoint]) -> Option<u64> {
        let Best { metric, goal } = self.best.as_ref()?;
        let mut best: Option<(u64, f64)> = None;
        for checkpoint in checkpoints {
            if let Some(&value) = checkpoint.facts().metrics.get(metric)
                && best.is_none_or(|(_, old)| goal.is_better(value, old))
            {
                best = Some((checkpoint.step(), value));
            }
        }
        best.map(|(step, _)| step)
    }
}

/// Removes every checkpoint, whole or not, and then the folder, unless it holds something else.
///
/// # Errors
/// Where one cannot be removed.
pub fn remove_checkpoints(checkpoints: &Path) -> Result<(), FileError> {
    for name in names(checkpoints)? {
        let path = checkpoints.join(&name);
        if is_of_step(&name) && path.is_dir() {
            remove_folder(&path)?;
        }
    }
    match fs::remove_dir(checkpoints) {
        Err(error) if ![NotFound, DirectoryNotEmpty, NotADirectory].contains(&error.kind()) => {
            Err(FileError::of("remove", checkpoints)(error))
        }
        _ => Ok(()),
    }
}

/// Removes a checkpoint so that no half of it is ever seen under its name.
fn remove(checkpoints: &Path, step: u64) -> Result<(), CheckpointError> {
    let folder = checkpoints.join(step_folder(step));
    let removed = checkpoints.join(format!(".step-{step}.removed"));
    fs::rename(&folder, &removed).map_err(FileError::of("remove", &folder))?;
    sync_folder(checkpoints)?;
    Ok(remove_folder(&removed)?)
}

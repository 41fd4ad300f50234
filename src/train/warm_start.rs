//! Beginning with weights of another run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::{RunFolder, RunFolderError, TrainError, Trainer};
use crate::backend::Backend;
use crate::checkpoint::{
    Checkpoint, CheckpointError, FileError, FileRecord, MANIFEST, StoredTensors, Wanted, decode_all,
};
use crate::comm::agree;
use crate::config::WarmStart;
use crate::models::Model;
use crate::named::listed;

/// Weights that a run cannot begin with.
#[derive(Debug, thiserror::Error)]
pub enum WarmStartError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such run.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// The checkpoint is damaged, or there is none.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What is there is not what is asked for.
    #[error("cannot begin with the weights in {}: {problem}", from.display())]
    Unfit {
        /// Where they come from.
        from: PathBuf,
        /// What does not fit, and what to do.
        problem: String,
    },
}

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// Takes trainable tensors from elsewhere, the same on every rank; collective. Moving statistics,
    /// the optimizer and the step stay as they are at the beginning of a run.
    ///
    /// # Errors
    /// If there is nothing that fits, or ranks find other things there.
    pub fn warm_start(&mut self, warm: &WarmStart) -> Result<(), TrainError> {
        let contents = contents(&warm.from, self.reducer().rank() == 0)?;
        let fields = [("weights to begin with", FileRecord::of(&contents).sha256)];
        self.reducer()
            .call(move |communicator| Ok(agree(communicator, &fields)))??;
        let unfit = |problem| WarmStartError::Unfit {
            from: warm.from.clone(),
            problem,
        };
        let stored = decode_all(&contents).map_err(|problem| {
            unfit(format!(
                "no safetensors: {problem}; name a run, a checkpoint or a file of safetensors"
            ))
        })?;
        let mut host = self.host_tensors();
        let mut own = self.wanted(&mut host);
        own.truncate(self.layout.tensors().len());
        let taken = take(warm, &stored, &mut own).map_err(unfit)?;
        self.set_tensors(&host);
        if self.reducer().rank() == 0 {
            let missing = match taken.missing.join(", ") {
                names if names.is_empty() => String::new(),
                names => format!("; not there: {names}"),
            };
            tracing::info!(
                "beginning with {} of {} trainable tensors from {}{missing}",
                taken.count,
                self.layout.tensors().len(),
                warm.from.display()
            );
        }
        Ok(())
    }
}

/// A file of safetensors: itself, of a checkpoint, or of the newest whole checkpoint of a run. Those that are
/// skipped are warned of where that `is_told`.
fn contents(from: &Path, is_told: bool) -> Result<Vec<u8>, WarmStartError> {
    if from.is_file() {
        return Ok(fs::read(from).map_err(FileError::of("read", from))?);
    }
    let checkpoints = match RunFolder::open(from) {
        Ok(run) => run.checkpoints(),
        // What has a manifest is a checkpoint, if a damaged one.
        Err(_) if from.join(MANIFEST).exists() => return Ok(Checkpoint::open(from)?.weights()?),
        Err(error) => return Err(error.into()),
    };
    let newest = Checkpoint::newest(&checkpoints)?;
    for skipped in newest.skipped.iter().filter(|_| is_told) {
        tracing::warn!("{skipped}");
    }
    Ok(newest.whole(&checkpoints)?.weights()?)
}

/// What was taken.
#[derive(Debug, PartialEq)]
struct Taken {
    /// How many tensors.
    count: usize,
    /// Which were to be taken and are not there.
    missing: Vec<String>,
}

/// Takes what `warm` says from `stored` into `own`.
fn take(warm: &WarmStart, stored: &StoredTensors, own: &mut [Wanted<'_>]) -> Result<Taken, String> {
    let pattern = Pattern::new(&warm.tensors).map_err(|error| error.to_string())?;
    let mut renames: BTreeSet<&str> = warm.rename.keys().map(String::as_str).collect();
    let mut taken = Taken {
        count: 0,
        missing: Vec::new(),
    };
    for tensor in own.iter_mut().filter(|tensor| pattern.matches(tensor.name)) {
        let name = tensor.name;
        renames.remove(name);
        let there = warm.rename.get(name).map_or(name, String::as_str);
        match stored.get(there) {
            Some((shape, values)) if shape == tensor.shape => {
                tensor.values.copy_from_slice(values);
                taken.count += 1;
            }
            Some((shape, _)) => {
                return Err(format!(
                    "'{there}' has shape {shape:?} there, '{name}' has {:?} here; leave it out by \
                     train.warm_start.tensors",
                    tensor.shape
                ));
            }
            None if there != name => {
                return Err(format!("'{name}' is to be '{there}', which is not there"));
            }
            None => taken.missing.push(name.to_owned()),
        }
    }
    if let Some(name) = renames.first() {
        return Err(format!(
            "train.warm_start.rename has '{name}', which is no trainable tensor that '{}' takes",
            warm.tensors
        ));
    }
    if taken.count == 0 {
        let there: Vec<String> = stored.keys().cloned().collect();
        let here: Vec<String> = own.iter().map(|tensor| tensor.name.to_owned()).collect();
        return Err(format!(
            "'{}' takes nothing: there are {} there, and {} here; change train.warm_start.tensors, or \
             name the others by train.warm_start.rename",
            warm.tensors,
            listed(&there),
            listed(&here),
        ));
    }
    Ok(taken)
}

//! Saving: one folder, written by all ranks, that appears whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::{exchange, make_folder, names, remove_folder, sync_folder, write_durably};
use super::manifest::{
    FORMAT, MANIFEST, MANIFEST_CHECKSUM, MODEL, checksum_line, optimizer_file, step_folder,
};
use super::tensors::write_tensors;
use super::{CheckpointError, Facts, FileError, FileRecord, Manifest, Named, Piece, Retention};

/// Rank 0's side of saving; the module's page has the order of calls.
#[derive(Debug)]
pub struct Writer {
    checkpoints: PathBuf,
    step: u64,
}

impl Writer {
    /// Makes the hidden folder of `step` in `checkpoints`, and removes what unfinished saves left.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn begin(checkpoints: &Path, step: u64) -> Result<Self, CheckpointError> {
        make_folder(checkpoints.to_owned())?;
        for name in names(checkpoints)? {
            if name.starts_with(".step-") {
                remove_folder(&checkpoints.join(name))?;
            }
        }
        make_folder(partial_folder(checkpoints, step))?;
        Ok(Self {
            checkpoints: checkpoints.to_owned(),
            step,
        })
    }

    /// Completes the checkpoint once ranks `0..parts` have written their optimizer state, removes
    /// what `retention` does not keep, and returns the checkpoint's folder.
    ///
    /// A checkpoint of the same step is replaced, where the file system can do that in one step without
    /// a moment at which neither is there. Metrics that are not finite are left out.
    ///
    /// # Errors
    /// If something cannot be written, or a rank's part is missing; earlier checkpoints are
    /// untouched then.
    ///
    /// # Panics
    /// If `facts` are of another step, or a tensor's shape is not that of its values.
    pub fn finish(
        self,
        facts: &Facts,
        tensors: &[Named<'_>],
        parts: usize,
        retention: &Retention,
    ) -> Result<PathBuf, CheckpointError> {
        assert_eq!(facts.step, self.step, "facts of another step");
        let partial = partial_folder(&self.checkpoints, self.step);
        let folder = self.checkpoints.join(step_folder(self.step));
        self.fill(&partial, facts, tensors, parts)
            .inspect_err(|_| {
                // The error at hand is the one to report, and the next save cleans up again.
                let _ = remove_folder(&partial);
            })?;
        let mut replaced = self.checkpoints.join(format!(".step-{}.old", self.step));
        if folder.exists() && exchange(&partial, &folder)? {
            replaced = partial;
        } else {
            if folder.exists() {
                fs::rename(&folder, &replaced).map_err(FileError::of("replace", &folder))?;
            }
            fs::rename(&partial, &folder).map_err(FileError::of("create", &folder))?;
        }
        sync_folder(&self.checkpoints)?;
        remove_folder(&replaced)?;
        retention.apply(&self.checkpoints, self.step)?;
        Ok(folder)
    }

    /// Writes everything but the optimizer's files, which are there.
    fn fill(
        &self,
        partial: &Path,
        facts: &Facts,
        tensors: &[Named<'_>],
        parts: usize,
    ) -> Result<(), CheckpointError> {
        let mut files = BTreeMap::new();
        for rank in 0..parts {
            files.insert(
                optimizer_file(rank, parts),
                self.take_part(partial, rank, parts)?,
            );
        }
        let model = write_durably(&partial.join(MODEL), |out| write_tensors(out, tensors))?;
        files.insert(MODEL.to_owned(), model);
        let mut facts = facts.clone();
        facts.metrics.retain(|_, value| value.is_finite());
        let manifest = Manifest {
            format: FORMAT,
            facts,
            files,
        };
        let path = partial.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| FileError::of("write", &path)(error.into()))?;
        write_durably(&path, |out| out.write_all(&text))?;
        let line = checksum_line(&text);
        write_durably(&partial.join(MANIFEST_CHECKSUM), |out| {
            out.write_all(line.as_bytes())
        })?;
        sync_folder(partial)?;
        Ok(())
    }

    /// The record that `rank` left beside its part, which has served its purpose then.
    fn take_part(
        &self,
        partial: &Path,
        rank: usize,
        parts: usize,
    ) -> Result<FileRecord, CheckpointError> {
        let path = record_file(partial, rank);
        let record = fs::read(&path).ok();
        let record = record.and_then(|text| serde_json::from_slice(&text).ok());
        let part = partial.join(optimizer_file(rank, parts));
        let (Some(record), true) = (record, part.exists()) else {
            return Err(CheckpointError::MissingPart {
                step: self.step,
                rank,
                parts,
                folder: partial.to_owned(),
            });
        };
        fs::remove_file(&path).map_err(FileError::of("remove", &path))?;
        Ok(record)
    }
}

/// Writes the optimizer state that `rank` of `parts` holds: its shard, or where the state is
/// replicated all of it, by rank 0 of 1. Called between [`Writer::begin`] and [`Writer::finish`].
///
/// The ranges of all parts together must cover each array once.
///
/// # Errors
/// If it cannot be written.
pub fn write_part(
    checkpoints: &Path,
    step: u64,
    (rank, parts): (usize, usize),
    pieces: &[Piece<'_>],
) -> Result<(), CheckpointError> {
    let partial = partial_folder(checkpoints, step);
    let names: Vec<String> = pieces.iter().map(Piece::stored_name).collect();
    let shapes: Vec<[usize; 1]> = pieces.iter().map(|piece| [piece.values.len()]).collect();
    let tensors: Vec<Named<'_>> = (0..pieces.len())
        .map(|index| Named {
            name: &names[index],
            shape: &shapes[index],
            values: pieces[index].values,
        })
        .collect();
    let path = partial.join(optimizer_file(rank, parts));
    let record = write_durably(&path, |out| write_tensors(out, &tensors))?;
    let text =
        serde_json::to_vec(&record).map_err(|error| FileError::of("write", &path)(error.into()))?;
    write_durably(&record_file(&partial, rank), |out| out.write_all(&text))?;
    Ok(())
}

fn partial_folder(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!(".step-{step}.partial"))
}

/// Where a rank tells rank 0 the checksum of its part.
fn record_file(partial: &Path, rank: usize) -> PathBuf {
    partial.join(format!("part-{rank}.json"))
}

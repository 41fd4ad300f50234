//! Finding and loading checkpoints.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::names;
use super::manifest::{
    FORMAT, MANIFEST, MANIFEST_CHECKSUM, MODEL, checksum_line, parse_step, step_folder,
};
use super::tensors::{decode, parse_piece, parse_tensors};
use super::{CheckpointError, Facts, FileError, FileRecord, Manifest};

/// Most problems that one error lists.
const LISTED_PROBLEMS: usize = 5;

/// A saved run whose manifest is whole. Every other file is checked when it is read.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
    manifest: Manifest,
}

/// A tensor to load.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// The shape it must have.
    pub shape: &'a [usize],
    /// Where its elements go.
    pub values: &'a mut [f32],
}

/// A run of elements of one array of optimizer state to load.
#[derive(Debug)]
pub struct WantedPiece<'a> {
    /// Name of the parameter.
    pub tensor: &'a str,
    /// Name of the state.
    pub state: &'a str,
    /// First element, counted from the tensor's first.
    pub start: usize,
    /// Where the elements go.
    pub values: &'a mut [f32],
}

/// The newest checkpoint that is whole.
#[derive(Debug)]
pub struct Newest {
    /// `None` where there is none at all.
    pub checkpoint: Option<Checkpoint>,
    /// Newer ones that are not, newest first: to warn of.
    pub skipped: Vec<Skipped>,
}

impl Newest {
    /// The checkpoint.
    ///
    /// # Errors
    /// If there is none in `checkpoints`, where it was looked for.
    pub fn whole(self, checkpoints: &Path) -> Result<Checkpoint, CheckpointError> {
        let Self {
            checkpoint,
            skipped,
        } = self;
        checkpoint.ok_or_else(|| CheckpointError::NotFound {
            wanted: "whole checkpoint".to_owned(),
            checkpoints: checkpoints.to_owned(),
            present: match skipped.len() {
                0 => "none; train the run first".to_owned(),
                count => format!("{count} that are damaged; bring one back from a copy"),
            },
        })
    }
}

/// A checkpoint that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// Why; names the folder.
    pub error: CheckpointError,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.error)
    }
}

impl Checkpoint {
    /// Reads the manifest of the checkpoint at `folder`.
    ///
    /// # Errors
    /// If it is missing, damaged, or of another format.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let text = read(folder, MANIFEST)?;
        let checksum = read(folder, MANIFEST_CHECKSUM)?;
        if checksum != checksum_line(&text).as_bytes() {
            return Err(damaged(
                folder,
                format!("{MANIFEST} does not match {MANIFEST_CHECKSUM}"),
            ));
        }
        /// What every format has.
        #[derive(serde::Deserialize)]
        struct Version {
            format: u32,
        }
        let unreadable = |error| damaged(folder, format!("{MANIFEST}: {error}"));
        let Version { format } = serde_json::from_slice(&text).map_err(unreadable)?;
        if format != FORMAT {
            return Err(CheckpointError::Format {
                folder: folder.to_owned(),
                found: format,
                known: FORMAT,
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            manifest: serde_json::from_slice(&text).map_err(unreadable)?,
        })
    }

    /// The newest checkpoint in `checkpoints` of which every file is whole.
    ///
    /// # Errors
    /// If the folder cannot be listed. A damaged checkpoint is no error: it is skipped.
    pub fn newest(checkpoints: &Path) -> Result<Newest, CheckpointError> {
        let mut skipped = Vec::new();
        for step in list(checkpoints)?.into_iter().rev() {
            match Self::whole(checkpoints, step) {
                Ok(checkpoint) => {
                    return Ok(Newest {
                        checkpoint: Some(checkpoint),
                        skipped,
                    });
                }
                Err(error) => skipped.push(Skipped { error }),
            }
        }
        Ok(Newest {
            checkpoint: None,
            skipped,
        })
    }

    /// The checkpoint named `name` (`step-120`, or `120`) in `checkpoints`, every file checked.
    ///
    /// # Errors
    /// If it is not there (the error lists what is) or damaged.
    pub fn named(checkpoints: &Path, name: &str) -> Result<Self, CheckpointError> {
        let present = list(checkpoints)?;
        let step = name.strip_prefix("step-").unwrap_or(name).parse();
        let Some(step) = step.ok().filter(|step| present.contains(step)) else {
            let present: Vec<_> = present.into_iter().map(step_folder).collect();
            return Err(CheckpointError::NotFound {
                wanted: format!("checkpoint '{name}'"),
                checkpoints: checkpoints.to_owned(),
                present: if present.is_empty() {
                    "none".to_owned()
                } else {
                    present.join(", ")
                },
            });
        };
        Self::whole(checkpoints, step)
    }

    /// That of a step, every file checked, which a folder that was renamed is not.
    fn whole(checkpoints: &Path, step: u64) -> Result<Self, CheckpointError> {
        let checkpoint = Self::open(&checkpoints.join(step_folder(step)))?;
        checkpoint.verify()?;
        match checkpoint.step() {
            found if found == step => Ok(checkpoint),
            found => {
                let problem = format!("it is of step {found}; rename it {}", step_folder(found));
                Err(damaged(&checkpoint.folder, problem))
            }
        }
    }

    /// Checks every file against its checksum.
    ///
    /// # Errors
    /// The first file that is missing or not what was written.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        self.manifest
            .files
            .keys()
            .try_for_each(|name| self.read(name).map(drop))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Global step.
    pub fn step(&self) -> u64 {
        self.manifest.facts.step
    }

    /// What the trainer noted.
    pub fn facts(&self) -> &Facts {
        &self.manifest.facts
    }

    /// Everything it says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The contents of the file with all tensors, in the safetensors format: the same for the same
    /// weights.
    ///
    /// # Errors
    /// If it is not what was written.
    pub fn weights(&self) -> Result<Vec<u8>, CheckpointError> {
        self.read(MODEL)
    }

    /// Loads all tensors.
    ///
    /// # Errors
    /// If the file is damaged, or if `wanted` are not exactly the tensors it holds, in any order,
    /// with the same shapes; nothing is written to `wanted` then.
    ///
    /// # Panics
    /// If a wanted shape is not that of its values.
    pub fn load(&self, wanted: &mut [Wanted<'_>]) -> Result<(), CheckpointError> {
        let contents = self.weights()?;
        let stored = parse_tensors(&contents).map_err(|problem| self.damaged(MODEL, &problem))?;
        let mut problems = Vec::new();
        for Wanted { name, shape, .. } in &*wanted {
            match stored.tensor(name) {
                Err(_) => problems.push(format!("'{name}' is missing")),
                Ok(found) if found.shape() != *shape => problems.push(format!(
                    "'{name}' has shape {:?}, the model has {shape:?}",
                    found.shape()
                )),
                Ok(_) => {}
            }
        }
        let mut extra = stored.names();
        extra.retain(|name| wanted.iter().all(|wanted| wanted.name != *name));
        extra.sort_unstable();
        let unknown = |name| format!("'{name}' is not in the model");
        problems.extend(extra.into_iter().map(unknown));
        self.fits(problems)?;
        for Wanted { name, values, .. } in wanted {
            if let Ok(found) = stored.tensor(name) {
                decode(found.data(), values);
            }
        }
        Ok(())
    }

    /// Loads optimizer state into pieces cut in any way, one file at a time.
    ///
    /// # Errors
    /// If a file is damaged, or if the checkpoint lacks some of the elements: it was written with
    /// another optimizer or model.
    pub fn load_optimizer(&self, wanted: &mut [WantedPiece<'_>]) -> Result<(), CheckpointError> {
        // Stored pieces do not overlap, so a count tells whether all elements came.
        let mut loaded = vec![0; wanted.len()];
        let mut by_array = std::collections::BTreeMap::<String, Vec<usize>>::new();
        for (index, piece) in wanted.iter().enumerate() {
            let array = format!("{}/{}", piece.tensor, piece.state);
            by_array.entry(array).or_default().push(index);
        }
        for file in self.manifest.optimizer_files() {
            let contents = self.read(file)?;
            let stored =
                parse_tensors(&contents).map_err(|problem| self.damaged(file, &problem))?;
            for (name, found) in stored.iter() {
                let Some((array, have)) = parse_piece(name)
                    .filter(|(_, have)| have.len() * size_of::<f32>() == found.data().len())
                else {
                    return Err(self.damaged(file, &format!("'{name}' is no array with a range")));
                };
                for &index in by_array.get(array).map_or(&[][..], Vec::as_slice) {
                    let piece = &mut wanted[index];
                    let start = have.start.max(piece.start);
                    let end = have.end.min(piece.start + piece.values.len());
                    if start < end {
                        let bytes = (start - have.start) * size_of::<f32>()
                            ..(end - have.start) * size_of::<f32>();
                        let to = &mut piece.values[start - piece.start..end - piece.start];
                        decode(&found.data()[bytes], to);
                        loaded[index] += end - start;
                    }
                }
            }
        }
        let lacking = wanted
            .iter()
            .zip(loaded)
            .filter(|(p, loaded)| *loaded != p.values.len());
        let problems = lacking.map(|(piece, loaded)| {
            format!(
                "optimizer state '{}/{}' has {loaded} of the {} elements from {}",
                piece.tensor,
                piece.state,
                piece.values.len(),
                piece.start
            )
        });
        self.fits(problems.collect())
    }

    fn fits(&self, mut problems: Vec<String>) -> Result<(), CheckpointError> {
        if problems.is_empty() {
            return Ok(());
        }
        let more = problems.len().saturating_sub(LISTED_PROBLEMS);
        problems.truncate(LISTED_PROBLEMS);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        Err(CheckpointError::Mismatch {
            folder: self.folder.clone(),
            problems: problems.join("; "),
        })
    }

    /// The contents of a file that is what was written.
    fn read(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let contents = read(&self.folder, name)?;
        let Some(expected) = self.manifest.files.get(name) else {
            return Err(self.damaged(name, "the manifest does not list it"));
        };
        if contents.len() as u64 != expected.bytes {
            let problem = format!("{} bytes, expected {}", contents.len(), expected.bytes);
            return Err(self.damaged(name, &problem));
        }
        if FileRecord::of(&contents) != *expected {
            return Err(self.damaged(name, "checksum differs"));
        }
        Ok(contents)
    }

    fn damaged(&self, file: &str, problem: &str) -> CheckpointError {
        damaged(&self.folder, format!("{file}: {problem}"))
    }
}

/// The steps of which `checkpoints` has a folder, oldest first, whole or not.
///
/// # Errors
/// If the folder cannot be listed; one that is not there is empty.
pub fn list(checkpoints: &Path) -> Result<Vec<u64>, CheckpointError> {
    let mut steps: Vec<u64> = names(checkpoints)?
        .iter()
        .filter_map(|name| parse_step(name))
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, CheckpointError> {
    let path = folder.join(name);
    fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged(folder, format!("{name} is missing")),
        _ => FileError::of("read", &path)(error).into(),
    })
}

fn damaged(folder: &Path, problem: String) -> CheckpointError {
    CheckpointError::Damaged {
        folder: folder.to_owned(),
        problem,
    }
}

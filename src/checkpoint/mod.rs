//! How a run is saved and restored, and which saves are kept. Works on host data; knows no trainer.
//!
//! A checkpoint is a folder `step-N`:
//!
//! ```text
//! model.safetensors               parameters and moving statistics by name; nothing else, so that
//!                                 the same weights give the same bytes
//! optimizer-R-of-W.safetensors    what rank R held of the optimizer's state: 'dense/kernel/m[0..64]'
//!                                 is that run of elements of the array m of the tensor dense/kernel
//! manifest.json                   step, seed, configuration, scales, metrics, and size and SHA-256
//!                                 of each file above
//! manifest.sha256                 SHA-256 of the manifest, as `sha256sum -c` reads it
//! ```
//!
//! Saving is a protocol of all ranks. It keeps to one rule: a folder with the name `step-N` is whole.
//!
//! 1. Rank 0: [`Writer::begin`] makes `.step-N.partial`. Barrier.
//! 2. Every rank that holds optimizer state: [`write_part`]. Barrier.
//! 3. Rank 0: [`Writer::finish`] writes model and manifest, flushes all to the disk, renames the
//!    folder and applies the [`Retention`].
//!
//! Whatever is killed in between leaves a hidden folder that nobody reads and the next `begin`
//! removes. Reading goes by names and ranges alone, so that neither the number of ranks nor
//! sharding has to be what it was: [`Checkpoint`].

mod error;
mod file;
mod manifest;
mod reader;
mod retention;
mod tensors;
mod watch;
mod writer;

pub use error::{CheckpointError, FileError};
pub(crate) use file::names;
pub use file::{FileRecord, write_atomically};
pub(crate) use manifest::MANIFEST;
pub use manifest::{Facts, Manifest};
pub use reader::{Checkpoint, Newest, Skipped, Wanted, WantedPiece, list};
pub use retention::{Best, Retention, remove_checkpoints};
pub use tensors::{Named, Piece, StoredTensors, decode_all, encode};
pub use watch::{PlateauState, Steering, Watch};
pub use writer::{Writer, write_part};

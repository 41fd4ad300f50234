//! `ringstep train`.

use super::{Failure, TrainArguments};
use crate::train::Console;

/// Trains what the run file describes.
pub(super) fn run(_: &TrainArguments, _: &Console) -> Result<(), Failure> {
    Err("train is not part of this version".into())
}

//! What commands write, and what they must not write over.

use std::fs;
use std::path::Path;

use super::Failure;
use crate::train::RunFolder;

/// What a run consists of is not replaced by the `output` that `flag` names.
pub(super) fn refuse_own_files(
    folder: &RunFolder,
    flag: &str,
    output: &Path,
) -> Result<(), Failure> {
    let Ok(target) = fs::canonicalize(output) else {
        return Ok(());
    };
    for own in [
        folder.config_path(),
        folder.metrics_path(),
        folder.checkpoints(),
        folder.exports(),
        folder.events(),
    ] {
        if fs::canonicalize(&own).is_ok_and(|own| target.starts_with(own)) {
            return Err(format!(
                "{flag} {} belongs to the run; name another file, or it would be lost",
                output.display()
            )
            .into());
        }
    }
    Ok(())
}

//! What commands write, and what they must not write over.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Failure, show};
use crate::checkpoint::write_atomically;
use crate::columns::ColumnSpec;
use crate::config::ExportFormat;
use crate::data::{files, images};
use crate::train::{Run, RunFolder};

/// Writes to the file at `output`, or to the standard output where that is `-`.
pub(super) fn write(output: &Path, contents: &[u8]) -> Result<(), Failure> {
    match is_standard(output) {
        true => show(contents),
        false => Ok(write_atomically(output, contents)?),
    }
}

/// Whether a path stands for the standard output.
pub(super) fn is_standard(output: &Path) -> bool {
    output == Path::new("-")
}

/// Refuses the `output` that `flag` names where it has no folder to lie in, or would replace a part of a run,
/// this one's data, or what was exported to its folder in another format than the one `written`.
pub(super) fn check(
    run: &Run,
    (flag, output): (&str, &Path),
    written: Option<ExportFormat>,
) -> Result<(), Failure> {
    if is_standard(output) {
        return Ok(());
    }
    let Some(target) = place(output) else {
        let folder = output.parent().unwrap_or(output).display();
        let output = output.display();
        return Err(format!(
            "{flag} {output}: there is no folder {folder}; make it, or name a file in another"
        )
        .into());
    };
    let is_part = |part: PathBuf| place(&part).is_some_and(|part| target.starts_with(part));
    let is_part_of = |folder: &RunFolder| parts(folder).into_iter().any(is_part);
    let mut others = target
        .ancestors()
        .filter_map(|path| RunFolder::open(path).ok());
    let is_exported = |format: &ExportFormat| {
        Some(*format) != written && target.extension().is_some_and(|end| end == format.name())
    };
    let is_in_folder =
        fs::canonicalize(run.folder.path()).is_ok_and(|folder| target.parent() == Some(&folder));
    if is_part_of(&run.folder)
        || others.any(|other| other.metrics_path().exists() && is_part_of(&other))
    {
        refusal(flag, output, "belongs to a run")
    } else if is_in_folder && target.exists() && ExportFormat::ALL.iter().any(is_exported) {
        refusal(flag, output, "is an exported model")
    } else if is_among(&data_of(run), output) {
        refusal(flag, output, "is what the run learns from or is tested on")
    } else {
        Ok(())
    }
}

/// What a run consists of.
fn parts(folder: &RunFolder) -> [PathBuf; 5] {
    [
        folder.config_path(),
        folder.metrics_path(),
        folder.checkpoints(),
        folder.exports(),
        folder.events(),
    ]
}

/// The error of an `output` in whose place something else stands.
pub(super) fn refusal(flag: &str, output: &Path, problem: &str) -> Result<(), Failure> {
    let output = output.display();
    Err(format!("{flag} {output} {problem}; name another file, or it would be lost").into())
}

/// Whether a file that is there is one of those that paths and patterns name, or an image in such a folder.
pub(super) fn is_among(patterns: &[PathBuf], output: &Path) -> bool {
    let Ok(target) = fs::canonicalize(output) else {
        return false;
    };
    let is_image = images::ends_as_image(&target);
    let is_named = |path: &PathBuf| {
        fs::canonicalize(path)
            .is_ok_and(|path| target == path || is_image && target.starts_with(path))
    };
    files::present(patterns).iter().any(is_named)
}

/// Paths of what the run reads.
fn data_of(run: &Run) -> Vec<PathBuf> {
    let columns = run.config.columns.iter().flat_map(|columns| &columns.0);
    let vocabularies = columns.filter_map(|(_, spec)| match spec {
        ColumnSpec::Vocabulary(spec) => spec.file.clone(),
        _ => None,
    });
    let data = run.config.data.source.paths();
    vocabularies.chain(data.into_iter().cloned()).collect()
}

/// Whether both name one file, which need not be there.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    place(a).is_some() && place(a) == place(b)
}

/// Where a file is or would be; `None` where there is no folder for it.
fn place(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().or_else(|| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    })
}

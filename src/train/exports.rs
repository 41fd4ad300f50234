//! Models that a run exports while it trains: `exports/best-120.onnx` in its folder.

use std::fs;
use std::path::Path;

use super::export::{ExportError, onnx};
use crate::checkpoint::{FileError, Named, encode, names, write_atomically};
use crate::config::{Export, ExportFormat, ExportWhen, RunConfig};
use crate::data::Description;

/// A tensor by name, with shape and values.
type Tensor = (String, Vec<usize>, Vec<f32>);

/// What is exported.
#[derive(Clone, Copy)]
pub(super) struct Exported<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) data: &'a Description,
    pub(super) tensors: &'a [Tensor],
}

impl Exported<'_> {
    /// Writes the model of `step` to `folder` in all formats, under the names of these times, and removes
    /// what is not kept.
    pub(super) fn write(
        self,
        export: &Export,
        folder: &Path,
        due: &[ExportWhen],
        step: u64,
    ) -> Result<(), ExportError> {
        fs::create_dir_all(folder).map_err(FileError::of("create", folder))?;
        for &format in &export.formats {
            let contents = self.contents(format)?;
            for &when in due {
                write_atomically(&folder.join(file_name(when, step, format)), &contents)?;
                remove_old(folder, (when, format), step, export.keep.at_most())?;
            }
        }
        Ok(())
    }

    /// The bytes of a file.
    pub(super) fn contents(self, format: ExportFormat) -> Result<Vec<u8>, ExportError> {
        match format {
            ExportFormat::Onnx => onnx(self.config, self.data, self.tensors),
            ExportFormat::Safetensors => {
                let named: Vec<_> = (self.tensors.iter())
                    .map(|(name, shape, values)| Named {
                        name,
                        shape,
                        values,
                    })
                    .collect();
                Ok(encode(&named))
            }
        }
    }
}

fn file_name(when: ExportWhen, step: u64, format: ExportFormat) -> String {
    format!("{when}-{step}.{format}")
}

/// The time, step and format of a file that was exported; `None` for everything else.
fn parse(name: &str) -> Option<(ExportWhen, u64, ExportFormat)> {
    let (stem, format) = name.rsplit_once('.')?;
    let (when, step) = stem.split_once('-')?;
    let parsed = (when.parse().ok()?, step.parse().ok()?, format.parse().ok()?);
    (file_name(parsed.0, parsed.1, parsed.2) == name).then_some(parsed)
}

/// Leaves the newest `keep` of those up to `newest`: a later one is left from a run that went on from an
/// earlier step, and is replaced when that step comes again.
fn remove_old(
    folder: &Path,
    (when, format): (ExportWhen, ExportFormat),
    newest: u64,
    keep: usize,
) -> Result<(), FileError> {
    let found = names(folder)?;
    let found = found.iter().filter_map(|name| parse(name));
    let mut steps: Vec<u64> = found
        .filter(|&(w, step, f)| (w, f) == (when, format) && step <= newest)
        .map(|(_, step, _)| step)
        .collect();
    steps.sort_unstable();
    steps.truncate(steps.len().saturating_sub(keep));
    for step in steps {
        let path = folder.join(file_name(when, step, format));
        fs::remove_file(&path).map_err(FileError::of("remove", &path))?;
    }
    Ok(())
}

/// Whether a file of this name was exported.
pub(super) fn is_exported(name: &str) -> bool {
    parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_exported_is_known_and_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mine = ["best-1.txt", "best-01.onnx", "other-1.onnx", "best.onnx"];
        let left = [
            "best-4.onnx",
            "best-7.onnx",
            "latest-1.onnx",
            "best-1.safetensors",
        ];
        for name in ["best-1.onnx", "best-2.onnx"]
            .iter()
            .chain(&mine)
            .chain(&left)
        {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let here = || {
            let mut names = names(folder.path()).unwrap();
            names.sort_unstable();
            names
        };
        let sorted = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let best = (ExportWhen::Best, ExportFormat::Onnx);
        remove_old(folder.path(), best, 4, 1).unwrap();
        assert_eq!(here(), sorted([mine, left].concat()));
        assert!(left.iter().all(|name| is_exported(name)));
        assert!(!mine.iter().any(|name| is_exported(name)));
    }
}

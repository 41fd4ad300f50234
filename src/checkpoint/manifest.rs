//! What a checkpoint says about itself.

use std::collections::BTreeMap;

use super::{FileRecord, Steering};
use crate::backend::TimedMatmul;
use crate::data::Description;
use crate::optim::LossScale;

/// The format this program writes and reads.
pub(super) const FORMAT: u32 = 2;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(super) const MANIFEST_CHECKSUM: &str = "manifest.sha256";
pub(super) const MODEL: &str = "model.safetensors";

/// What the trainer knows of a checkpoint beyond its numbers.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Global steps taken.
    pub step: u64,
    /// Whole passes over the data taken.
    pub epoch: u64,
    /// Steps taken of the pass that has begun. With `epoch`, `step` and `seed` this is all there is
    /// to the place in the sample stream.
    pub step_of_epoch: u64,
    /// Key of all random numbers.
    pub seed: u64,
    /// Number of ranks that wrote it.
    pub world: usize,
    /// The resolved run configuration, as text.
    pub config: String,
    /// What it was trained on.
    pub data: Description,
    /// What ranks compare before they start, field by field.
    pub fingerprint: BTreeMap<String, String>,
    /// Power-of-two scales of exact sums, by tensor name.
    pub exponents: BTreeMap<String, i32>,
    /// What computes which products of matrices, once that was chosen by timing them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul: Option<Vec<TimedMatmul>>,
    /// What the loss is multiplied by under `f16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// Steps among `step` that were not applied, because that was too much; the optimizer has not
    /// counted them.
    #[serde(default)]
    pub skipped_steps: u64,
    /// What evaluations up to this step have found, as far as it decides what comes.
    #[serde(default)]
    pub steering: Steering,
    /// Metrics at this step, such as `test_accuracy`. Retention reads them.
    pub metrics: BTreeMap<String, f64>,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Version of the folder's format.
    pub format: u32,
    /// What the trainer knew.
    #[serde(flatten)]
    pub facts: Facts,
    /// Every other file, by name.
    pub files: BTreeMap<String, FileRecord>,
}

impl Manifest {
    /// Names of the files with optimizer state.
    pub(super) fn optimizer_files(&self) -> impl Iterator<Item = &str> {
        self.files
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with("optimizer-"))
    }
}

/// File of the optimizer state that `rank` of `parts` holds.
pub(super) fn optimizer_file(rank: usize, parts: usize) -> String {
    format!("optimizer-{rank}-of-{parts}.safetensors")
}

/// The content of `manifest.sha256`.
pub(super) fn checksum_line(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST}\n", FileRecord::of(manifest).sha256)
}

/// Folder of a step's checkpoint.
pub(super) fn step_folder(step: u64) -> String {
    format!("step-{step}")
}

/// The step of a checkpoint's folder; `None` for everything else.
pub(super) fn parse_step(folder: &str) -> Option<u64> {
    let step = folder.strip_prefix("step-")?.parse().ok()?;
    (folder == step_folder(step)).then_some(step)
}

/// Whether a folder of this name is a step's: its checkpoint, or what an interrupted save or removal of
/// one has left.
pub(super) fn is_of_step(folder: &str) -> bool {
    let hidden = folder.strip_prefix('.').and_then(|name| {
        let endings = [".partial", ".old", ".removed"].into_iter();
        endings
            .filter_map(|ending| name.strip_suffix(ending))
            .next()
    });
    parse_step(hidden.unwrap_or(folder)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Accumulate, Activation, MatmulCall, MatmulChoice, MatmulShape};
    use crate::checkpoint::Watch;
    use crate::config::Measure;

    #[test]
    fn only_folders_of_steps_are_checkpoints() {
        assert_eq!(parse_step("step-120"), Some(120));
        for other in [
            "step-",
            "step-+1",
            "step-01",
            ".step-1.partial",
            "step-1.old",
            "best",
        ] {
            assert_eq!(parse_step(other), None, "{other}");
        }
    }

    #[test]
    fn what_saves_leave_is_known() {
        for ours in [
            "step-0",
            ".step-12.partial",
            ".step-1.old",
            ".step-1.removed",
        ] {
            assert!(is_of_step(ours), "{ours}");
        }
        for other in [
            "step-1.old",
            ".step-1",
            "step-01",
            ".best.partial",
            "notes.txt",
        ] {
            assert!(!is_of_step(other), "{other}");
        }
    }

    #[test]
    fn a_manifest_survives_json() {
        let manifest = Manifest {
            format: FORMAT,
            facts: Facts {
                step: u64::MAX,
                seed: u64::MAX - 1,
                config: "a = \"b\"\n".to_owned(),
                exponents: [("dense/kernel".to_owned(), -126)].into(),
                matmul: Some(vec![TimedMatmul {
                    call: MatmulCall {
                        shape: MatmulShape::tn(3, 4, 5),
                        write: Accumulate::Add,
                        bias: true,
                        activation: Activation::LeakyRelu { slope: 0.1 },
                    },
                    kernels_us: 0.1 + 0.2,
                    cublaslt_us: None,
                    chosen: MatmulChoice::Kernels,
                }]),
                loss_scale: Some(LossScale::default()),
                skipped_steps: 2,
                steering: Steering {
                    best: Some(Watch::new(Measure::loss())),
                    ..Steering::default()
                },
                metrics: [("loss".to_owned(), 0.1 + 0.2), ("accuracy".to_owned(), 1.0)].into(),
                ..Facts::default()
            },
            files: [(MODEL.to_owned(), FileRecord::of(b"abc"))].into(),
        };
        let text = serde_json::to_string_pretty(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
    }
}

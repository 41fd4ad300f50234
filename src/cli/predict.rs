//! `ringstep predict`.

use std::fs;
use std::path::Path;

use super::outputs::refuse_own_files;
use super::predictions::{write_json, write_predictions};
use super::{Failure, PredictArguments, show};
use crate::checkpoint::write_atomically;
use crate::config::CustomModels;
use crate::data::{files, to_npy};
use crate::models::Model;
use crate::train::Run;

/// Applies the model to the rows of a file and writes what it says of each.
pub(super) fn run(arguments: &PredictArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    refuse_to_overwrite(&run, arguments)?;
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let trained = &checkpoint.facts().data;
    let rows = run.config.load_features(&arguments.input, trained)?;
    let mut inference = run.inference(&checkpoint)?;
    let (outputs, logits) = match arguments.json {
        true => inference.predict_with_logits(&rows.features)?,
        false => (inference.predict(&rows.features)?, Vec::new()),
    };
    let width = inference.model().output().elements();
    if let Some(at) = outputs.iter().position(|output| !output.is_finite()) {
        return Err(format!(
            "{}: row {} of the data: the model's output is not finite; evaluate the run, and train \
             it again if it gives no loss either",
            arguments.input.display(),
            at / width + 1
        )
        .into());
    }
    tracing::info!("predictions of {}", checkpoint.folder().display());
    if let Some(path) = &arguments.encoded {
        let rows = run.config.load_inputs(&arguments.input, trained)?;
        let dimensions = [&[rows.rows], &rows.shape.0[..]].concat();
        write_atomically(path, &to_npy(&dimensions, &rows.features))?;
    }
    let mut text = Vec::new();
    match arguments.json {
        true => write_json(&mut text, &trained.targets, width, (&outputs, &logits))?,
        false => write_predictions(&mut text, &trained.targets, width, &outputs)?,
    }
    match &arguments.output {
        Some(path) => write_atomically(path, &text)?,
        None => show(&text)?,
    }
    Ok(())
}

/// Neither the rows that are predicted nor the run are replaced by what is written, nor one output by the
/// other.
fn refuse_to_overwrite(run: &Run, arguments: &PredictArguments) -> Result<(), Failure> {
    let (output, encoded) = (&arguments.output, &arguments.encoded);
    let refusal = |flag: &str, path: &Path, problem: &str| {
        let path = path.display();
        Err(format!("{flag} {path} {problem}; name another file, or it would be lost").into())
    };
    // One that cannot be found is told of where it is read.
    let inputs = files::find(std::slice::from_ref(&arguments.input)).unwrap_or_default();
    for (flag, path) in [("--output", output), ("--encoded", encoded)] {
        let Some(path) = path else { continue };
        refuse_own_files(&run.folder, flag, path)?;
        let Ok(to) = fs::canonicalize(path) else {
            continue;
        };
        for input in &inputs {
            let input = fs::canonicalize(input);
            if input.is_ok_and(|from| from == to) {
                return refusal(flag, path, "is the input");
            }
        }
    }
    match (encoded, output) {
        (Some(encoded), Some(output)) if is_same(encoded, output) => {
            refusal("--encoded", encoded, "takes the predictions")
        }
        _ => Ok(()),
    }
}

/// Whether both name one file, which need not be there.
fn is_same(a: &Path, b: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        Some((folder.ok()?, path.file_name()?.to_owned()))
    };
    place(a).is_some() && place(a) == place(b)
}

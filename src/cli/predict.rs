//! `ringstep predict`.

use std::path::Path;

use super::outputs::{self, is_among, is_same, is_standard, refusal};
use super::predictions::{Predictions, write_csv, write_json};
use super::{Failure, PredictArguments, show};
use crate::config::CustomModels;
use crate::data::to_npy;
use crate::models::Model;
use crate::train::Run;

/// Applies the model to the rows of a file and writes what it says of each.
pub(super) fn run(arguments: &PredictArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    refuse_to_overwrite(&run, arguments)?;
    let input = match is_standard(&arguments.input) {
        true if arguments.encoded.is_some() => {
            return Err("--encoded reads the input twice, which is there once: name a file".into());
        }
        true => Path::new("/dev/stdin"),
        false => &arguments.input,
    };
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let trained = &checkpoint.facts().data;
    let rows = run.config.load_features(input, trained)?;
    let mut inference = run.inference(&checkpoint)?;
    let (outputs, logits) = inference.predict_with_logits(&rows.features)?;
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
        let rows = run.config.load_inputs(input, trained)?;
        let dimensions = [&[rows.rows], &rows.shape.0[..]].concat();
        outputs::write(path, &to_npy(&dimensions, &rows.features))?;
    }
    let mut text = Vec::new();
    let predictions = Predictions {
        width,
        outputs: &outputs,
        logits: &logits,
    };
    match arguments.json {
        true => write_json(&mut text, &trained.targets, predictions)?,
        false => write_csv(&mut text, &trained.targets, predictions)?,
    }
    match &arguments.output {
        Some(path) => outputs::write(path, &text)?,
        None => show(&text)?,
    }
    Ok(())
}

/// Neither the rows that are predicted nor the run are replaced by what is written, nor one output by the
/// other.
fn refuse_to_overwrite(run: &Run, arguments: &PredictArguments) -> Result<(), Failure> {
    let (output, encoded) = (&arguments.output, &arguments.encoded);
    for (flag, path) in [("--output", output), ("--encoded", encoded)] {
        let Some(path) = path else { continue };
        if is_among(std::slice::from_ref(&arguments.input), path) {
            return refusal(flag, path, "is the input");
        }
        outputs::check(run, (flag, path), None)?;
    }
    match (encoded, output) {
        (Some(encoded), None) if is_standard(encoded) => {
            refusal("--encoded", encoded, "takes the predictions")
        }
        (Some(encoded), Some(output)) if is_same(encoded, output) => {
            refusal("--encoded", encoded, "takes the predictions")
        }
        _ => Ok(()),
    }
}

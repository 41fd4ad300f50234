//! `ringstep predict`.

use std::fs;
use std::path::Path;

use super::predictions::{write_json, write_predictions};
use super::run::Run;
use super::{Failure, PredictArguments, show};
use crate::checkpoint::write_atomically;
use crate::config::CustomModels;
use crate::models::Model;

/// Applies the model to the rows of a file and writes what it says of each.
pub(super) fn run(arguments: &PredictArguments, models: &CustomModels) -> Result<(), Failure> {
    if let Some(output) = &arguments.output {
        refuse_to_overwrite(&arguments.input, output)?;
    }
    let run = Run::open(&arguments.run, models)?;
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

/// The rows that are predicted are not replaced by their predictions.
fn refuse_to_overwrite(input: &Path, output: &Path) -> Result<(), Failure> {
    match (fs::canonicalize(input), fs::canonicalize(output)) {
        (Ok(from), Ok(to)) if from == to && from.is_file() => Err(format!(
            "--output {} is the input; name another file, or it would be lost",
            output.display()
        )
        .into()),
        _ => Ok(()),
    }
}

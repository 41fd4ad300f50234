//! `ringstep predict`.

use super::predictions::write_predictions;
use super::run::Run;
use super::{Failure, PredictArguments, show};
use crate::checkpoint::write_atomically;
use crate::config::CustomModels;
use crate::data::load_features;
use crate::models::Model;

/// Applies the model to the rows of a file and writes what it says of each.
pub(super) fn run(arguments: &PredictArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let trained = &checkpoint.facts().data;
    let rows = load_features(&run.config.data, &arguments.input, trained)?;
    let mut inference = run.inference(&checkpoint)?;
    let outputs = inference.predict(&rows.features)?;
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
    write_predictions(&mut text, &trained.targets, width, &outputs)?;
    match &arguments.output {
        Some(path) => write_atomically(path, &text)?,
        None => show(&text)?,
    }
    Ok(())
}

//! `ringstep evaluate`.

use serde_json::Value;

use super::inspect::evaluation_table;
use super::{EvaluateArguments, Failure, show};
use crate::config::CustomModels;
use crate::data::Split;
use crate::train::{EvaluateRecord, MetricsWriter, Record, Run};

/// Computes loss and metrics on the test data, prints them and adds them to the run's metrics.
pub(super) fn run(arguments: &EvaluateArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let test = run
        .config
        .load_data(Split::Test, Some(&checkpoint.facts().data))?;
    let ranks = arguments.ranks.unwrap_or(1) as usize;
    let record = EvaluateRecord {
        step: checkpoint.step(),
        epoch: checkpoint.facts().epoch,
        data: "test".to_owned(),
        rows: test.rows as u64,
        metrics: run.evaluate(&checkpoint, &test, ranks)?,
    };
    match arguments.json {
        true => show(format!("{:#}\n", as_json(&record)?))?,
        false => show(evaluation_table(&[&record]).to_string())?,
    }
    let metrics = MetricsWriter::append(&run.folder.metrics_path());
    if let Err(error) = metrics.and_then(|mut file| file.write(&Record::Evaluate(record))) {
        // Whoever may only read the run has what was asked for.
        tracing::warn!("the result is not kept with the run: {error}");
    }
    Ok(())
}

/// The object that is printed, with its step under TensorFlow's name, too.
fn as_json(record: &EvaluateRecord) -> serde_json::Result<Value> {
    let mut object = serde_json::to_value(record)?;
    object["global_step"] = record.step.into();
    Ok(object)
}

//! `ringstep evaluate`.

use std::thread;

use serde_json::Value;

use super::inspect::evaluation_table;
use super::run::Run;
use super::{EvaluateArguments, Failure, show};
use crate::checkpoint::Checkpoint;
use crate::config::{Architecture, CustomModels};
use crate::data::{Split, Table};
use crate::params::partition;
use crate::train::{EvaluateRecord, Evaluated, MetricsWriter, Record, Totals};

/// Computes loss and metrics on the test data, prints them and adds them to the run's metrics.
pub(super) fn run(arguments: &EvaluateArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let test = run
        .config
        .load_data(Split::Test, Some(&checkpoint.facts().data))?;
    let ranks = arguments.ranks.unwrap_or(1) as usize;
    let evaluated = evaluate(&run, &checkpoint, &test, ranks)?;
    let record = EvaluateRecord {
        step: checkpoint.step(),
        epoch: checkpoint.facts().epoch,
        data: "test".to_owned(),
        rows: test.rows as u64,
        metrics: evaluated.metrics(&test, run.config.judging()),
    };
    match arguments.json {
        true => show(format!("{:#}\n", as_json(&run, &record)?))?,
        false => show(evaluation_table(&[&record]).to_string())?,
    }
    let metrics = MetricsWriter::append(&run.folder.metrics_path());
    if let Err(error) = metrics.and_then(|mut file| file.write(&Record::Evaluate(record))) {
        // Whoever may only read the run has what was asked for.
        tracing::warn!("the result is not kept with the run: {error}");
    }
    Ok(())
}

/// The object that is printed: an Estimator's has its step under TensorFlow's name, too.
fn as_json(run: &Run, record: &EvaluateRecord) -> serde_json::Result<Value> {
    let mut object = serde_json::to_value(record)?;
    if let Architecture::Estimator(_) = run.config.model.architecture {
        object["global_step"] = record.step.into();
    }
    Ok(object)
}

/// Sums over the micro-batches of `table`, in their order whatever the number of ranks.
fn evaluate(
    run: &Run,
    checkpoint: &Checkpoint,
    table: &Table,
    ranks: usize,
) -> Result<Evaluated, Failure> {
    let micro_batches = table.rows.div_ceil(run.config.train.micro_batch);
    let ranks = ranks.min(micro_batches.max(1));
    let judge = run.config.judging().map(|judging| judging.judge);
    let rank = |rank| -> Result<_, Failure> {
        let mut inference = run.inference(checkpoint)?;
        Ok(inference.evaluate(table, partition(micro_batches, ranks, rank), judge)?)
    };
    let rank = &rank;
    let parts = thread::scope(|scope| {
        let start = |index| scope.spawn(move || rank(index));
        let threads: Vec<_> = (0..ranks).map(start).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(reports) => reports,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads
            .into_iter()
            .map(join)
            .collect::<Result<Vec<_>, Failure>>()
    })?;
    let (mut totals, mut rows) = (Totals::default(), Vec::new());
    for part in parts {
        part.reports
            .into_iter()
            .for_each(|report| totals.add(report));
        rows.extend(part.judged);
    }
    Ok(Evaluated { totals, rows })
}

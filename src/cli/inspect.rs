//! `ringstep inspect`: what a run consists of, and how far it got.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::run::Run;
use super::table::{Align, Table, thousands};
use super::{Failure, InspectArguments};
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, list};
use crate::layers::{Build, LayerSpec, LayerSummary, Shape, Stack};
use crate::train::{EvaluateRecord, Record, TrainRecord, read_metrics};

/// Most evaluations that are listed.
const LISTED: usize = 10;

/// Prints tables of layers, checkpoints and metrics.
#[expect(clippy::print_stdout, reason = "the output of the command")]
pub(super) fn run(arguments: &InspectArguments) -> Result<(), Failure> {
    let run = Run::open(&arguments.run)?;
    let shape = match &run.config.data.shape {
        Some(shape) => shape.clone(),
        None => run.training_data()?.shape,
    };
    let records = read_metrics(&run.folder.metrics_path())?;
    print!("{}", layers(&shape, &run.config.model.layers)?);
    print!("\n{}", checkpoints(&run)?);
    print!("\n{}", metrics(&records));
    Ok(())
}

/// One line per layer, those inside another indented, and the totals.
fn layers(input: &Shape, layers: &[LayerSpec]) -> Result<String, Failure> {
    let mut backend = Cpu::new();
    let mut build = Build::new(&mut backend, 1);
    Stack::new(&mut build, layers, input)?;
    let mut table = Table::new([
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("output", Align::Left),
        ("parameters", Align::Right),
    ]);
    table.row(["input".to_owned(), String::new(), input.to_string()]);
    let (mut parameters, mut state) = (0, 0);
    for layer in build.summary() {
        if layer.depth == 0 {
            parameters += layer.parameters;
            state += layer.state;
        }
        table.row(layer_row(layer));
    }
    let mut text = table.to_string();
    let (parameters, state) = (thousands(parameters as u64), thousands(state as u64));
    let _ = writeln!(
        text,
        "{parameters} parameters, {state} numbers of other state"
    );
    Ok(text)
}

fn layer_row(layer: &LayerSummary) -> [String; 4] {
    let indent = "  ".repeat(layer.depth);
    [
        format!("{indent}{}", layer.name),
        layer.kind.to_owned(),
        layer.output.to_string(),
        thousands(layer.parameters as u64),
    ]
}

/// One line per checkpoint, oldest first; damaged ones say what is wrong.
fn checkpoints(run: &Run) -> Result<String, Failure> {
    let folder = run.folder.checkpoints();
    let steps = list(&folder)?;
    if steps.is_empty() {
        return Ok("no checkpoints\n".to_owned());
    }
    let mut whole = Vec::new();
    let mut damaged = String::new();
    for step in steps {
        match Checkpoint::named(&folder, &step.to_string()) {
            Ok(checkpoint) => whole.push(checkpoint),
            Err(error) => {
                let _ = writeln!(damaged, "{error}");
            }
        }
    }
    let names: BTreeSet<&str> = whole
        .iter()
        .flat_map(|checkpoint| checkpoint.facts().metrics.keys())
        .map(String::as_str)
        .collect();
    let fixed = ["checkpoint", "epoch", "ranks", "bytes"];
    let mut table = Table::with_columns(
        fixed
            .iter()
            .copied()
            .chain(names.iter().copied())
            .enumerate()
            .map(|(index, name)| {
                let align = if index == 0 {
                    Align::Left
                } else {
                    Align::Right
                };
                (name, align)
            }),
    );
    for checkpoint in &whole {
        let facts = checkpoint.facts();
        let bytes = checkpoint
            .manifest()
            .files
            .values()
            .map(|file| file.bytes)
            .sum();
        let mut row = vec![
            format!("step-{}", facts.step),
            facts.epoch.to_string(),
            facts.world.to_string(),
            thousands(bytes),
        ];
        row.extend(names.iter().map(|name| number(facts.metrics.get(*name))));
        table.row(row);
    }
    Ok(format!("{table}{damaged}"))
}

/// The last logged step and the last evaluations.
fn metrics(records: &[Record]) -> String {
    let mut trained: Option<&TrainRecord> = None;
    let mut evaluations: Vec<&EvaluateRecord> = Vec::new();
    for record in records {
        match record {
            Record::Train(record) => trained = Some(record),
            Record::Evaluate(record) => evaluations.push(record),
            Record::Start(_) | Record::Unknown => {}
        }
    }
    let mut text = match trained {
        Some(TrainRecord {
            step,
            epoch,
            loss,
            rate,
            samples_per_second,
            ..
        }) => format!(
            "step {step}: epoch {epoch}, loss {loss:.4}, learning rate {rate}, \
             {samples_per_second:.0} samples/s\n"
        ),
        None => "no step logged\n".to_owned(),
    };
    if evaluations.is_empty() {
        return text;
    }
    let listed = &evaluations[evaluations.len().saturating_sub(LISTED)..];
    let _ = write!(text, "\n{}", evaluation_table(listed));
    if listed.len() < evaluations.len() {
        let _ = writeln!(
            text,
            "the last {LISTED} of {} evaluations",
            evaluations.len()
        );
    }
    text
}

/// One line per evaluation, a column for each of their metrics.
pub(super) fn evaluation_table(evaluations: &[&EvaluateRecord]) -> Table {
    let names: BTreeSet<&str> = evaluations
        .iter()
        .flat_map(|record| record.metrics.keys())
        .map(String::as_str)
        .collect();
    let fixed = [
        ("step", Align::Right),
        ("epoch", Align::Right),
        ("data", Align::Left),
        ("rows", Align::Right),
    ];
    let metrics = names.iter().map(|name| (*name, Align::Right));
    let mut table = Table::with_columns(fixed.into_iter().chain(metrics));
    for record in evaluations {
        let mut row = vec![
            record.step.to_string(),
            record.epoch.to_string(),
            record.data.clone(),
            thousands(record.rows),
        ];
        row.extend(names.iter().map(|name| number(record.metrics.get(*name))));
        table.row(row);
    }
    table
}

fn number(value: Option<&f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_with_shapes_and_parameters() {
        let specs: Vec<LayerSpec> = serde_json::from_str(
            r#"[
                {"kind": "flatten"},
                {"kind": "dense", "units": 40},
                {"kind": "residual", "layers": [{"kind": "batch_normalization"}]},
                {"kind": "dense", "units": 10}
            ]"#,
        )
        .unwrap();
        let expected = "\
layer                  kind                 output     parameters
input                                       [8, 8, 1]
flatten                flatten              [64]                0
dense                  dense                [40]            2,600
residual               residual             [40]               80
  batch_normalization  batch_normalization  [40]               80
dense_1                dense                [10]              410
3,090 parameters, 80 numbers of other state
";
        assert_eq!(layers(&Shape::from([8, 8, 1]), &specs).unwrap(), expected);
    }

    #[test]
    fn the_last_step_and_evaluations_are_shown() {
        let evaluation = |step, name: &str| {
            Record::Evaluate(EvaluateRecord {
                step,
                epoch: step / 10,
                data: "test".to_owned(),
                rows: 1360,
                metrics: [(name.to_owned(), 0.5)].into(),
            })
        };
        let train = Record::Train(TrainRecord {
            step: 20,
            epoch: 1,
            loss: 0.25,
            rate: 0.001,
            samples_per_second: 1234.4,
            exposed_comm_ms: 0.0,
            input_wait_ms: 0.0,
            gradient_norm: None,
        });
        let expected = "\
step 20: epoch 1, loss 0.2500, learning rate 0.001, 1234 samples/s

step  epoch  data   rows  accuracy    loss
  10      1  test  1,360         -  0.5000
  20      2  test  1,360    0.5000       -
";
        let records = [evaluation(10, "loss"), train, evaluation(20, "accuracy")];
        assert_eq!(metrics(&records), expected);
        assert_eq!(metrics(&[]), "no step logged\n");
        let many: Vec<_> = (0..14).map(|step| evaluation(step, "loss")).collect();
        let text = metrics(&many);
        assert!(text.ends_with("the last 10 of 14 evaluations\n"), "{text}");
        assert_eq!(text.lines().count(), 1 + 1 + 1 + 10 + 1);
    }
}

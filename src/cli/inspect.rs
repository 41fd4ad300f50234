//! `ringstep inspect`: what a run consists of, and how far it got.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use super::table::{Align, Table, thousands};
use super::{Failure, InspectArguments, show};
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, list};
use crate::columns::Values;
use crate::config::{CustomModels, ModelConfig};
use crate::data::{DataError, Description, Split};
use crate::layers::{Build, LayerSummary};
use crate::models::Structure;
use crate::train::{EvaluateRecord, Record, Run, TrainRecord, read_metrics};

/// Most evaluations that are listed.
const LISTED: usize = 10;

/// Prints tables of columns, layers, checkpoints and metrics.
pub(super) fn run(arguments: &InspectArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    let checkpoints = Checkpoints::find(&run)?;
    let records = read_metrics(&run.folder.metrics_path())?;
    let layers = match checkpoints.trained(&run) {
        Ok(data) => columns(&data) + &layers(&run.config.model, &data)?,
        Err(error) => format!("no layers to show: there is no whole checkpoint yet, and {error}\n"),
    };
    show(format!("{layers}\n{checkpoints}\n{}", metrics(&records)))
}

/// One line per feature column, where the run has any, in the order of a row, and an empty one.
fn columns(data: &Description) -> String {
    let encoding = data.encoding.as_ref();
    let Some(encoding) = encoding.filter(|encoding| !encoding.columns.is_empty()) else {
        return String::new();
    };
    let mut table = Table::new([
        ("column", Align::Left),
        ("kind", Align::Left),
        ("numbers", Align::Right),
        ("ids", Align::Right),
    ]);
    for column in &encoding.columns {
        let spec = encoding.fitted.get(&column.name);
        table.row([
            column.name.clone(),
            spec.map_or("", |spec| spec.name()).to_owned(),
            thousands(column.slots.len() as u64),
            match column.values {
                Values::Numbers => String::new(),
                Values::Ids { count } | Values::Weighted { count } => thousands(count as u64),
            },
        ]);
    }
    format!("{table}\n")
}

/// One line per layer, those inside another indented, the loss, and the totals.
fn layers(model: &ModelConfig, data: &Description) -> Result<String, Failure> {
    let mut backend = Cpu::new();
    let built = model.build(Build::new(&mut backend, 1).of_any_size(), data)?;
    let Structure {
        layout,
        states,
        layers,
        input,
        ..
    } = built.structure();
    let mut table = Table::new([
        ("layer", Align::Left),
        ("kind", Align::Left),
        ("output", Align::Left),
        ("parameters", Align::Right),
    ]);
    table.row(["input".to_owned(), String::new(), input.to_string()]);
    for layer in layers {
        table.row(layer_row(layer));
    }
    table.row(["loss".to_owned(), model.loss.name().to_owned()]);
    let mut text = table.to_string();
    let state: usize = states.iter().map(|state| state.range.len()).sum();
    let parameters = thousands(layout.parameters() as u64);
    let state = thousands(state as u64);
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

/// The run's checkpoints, oldest first.
struct Checkpoints {
    whole: Vec<Checkpoint>,
    /// A line for each of the others, with what is wrong.
    damaged: String,
}

impl Checkpoints {
    fn find(run: &Run) -> Result<Self, Failure> {
        let folder = run.folder.checkpoints();
        let (mut whole, mut damaged) = (Vec::new(), String::new());
        for step in list(&folder)? {
            match Checkpoint::named(&folder, &step.to_string()) {
                Ok(checkpoint) => whole.push(checkpoint),
                Err(error) => {
                    let _ = writeln!(damaged, "{error}");
                }
            }
        }
        Ok(Self { whole, damaged })
    }

    /// What the model was trained on, as noted in the newest checkpoint; before there is one, as it
    /// stands in the files.
    fn trained(&self, run: &Run) -> Result<Description, DataError> {
        match self.whole.last() {
            Some(checkpoint) => Ok(checkpoint.facts().data.clone()),
            None => Ok(run.config.load_data(Split::Train, None)?.description()),
        }
    }
}

/// One line per checkpoint; damaged ones say what is wrong.
impl fmt::Display for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.whole.is_empty() && self.damaged.is_empty() {
            return writeln!(f, "no checkpoints");
        }
        let names: BTreeSet<&str> = self
            .whole
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
        for checkpoint in &self.whole {
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
        write!(f, "{table}{}", self.damaged)
    }
}

/// The last logged step and the last evaluations.
fn metrics(records: &[Record]) -> String {
    let mut trained: Option<&TrainRecord> = None;
    let mut evaluations: Vec<&EvaluateRecord> = Vec::new();
    for record in records {
        match record {
            Record::Train(record) => trained = Some(record),
            Record::Evaluate(record) => evaluations.push(record),
            Record::Start(_) | Record::Matmul(_) | Record::Unknown => {}
        }
    }
    let mut text = match trained {
        Some(TrainRecord {
            step,
            epoch,
            loss,
            rate,
            samples_per_second,
            exposed_comm_ms,
            input_wait_ms,
            ..
        }) => format!(
            "step {step}: epoch {epoch}, loss {loss:.4}, learning rate {rate}, \
             {samples_per_second:.0} samples/s\n\
             waited each step {exposed_comm_ms:.2} ms for other ranks, {input_wait_ms:.2} ms for data\n"
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
    use crate::config::Architecture;
    use crate::data::Targets;
    use crate::layers::LayerSpec;
    use crate::models::SoftmaxCrossEntropy;

    #[test]
    fn layers_are_listed_with_shapes_and_parameters() {
        let layers: Vec<LayerSpec> = serde_json::from_str(
            r#"[
                {"kind": "flatten"},
                {"kind": "dense", "units": 40},
                {"kind": "residual", "layers": [{"kind": "batch_normalization"}]},
                {"kind": "dense", "units": 10, "activation": "softmax"}
            ]"#,
        )
        .unwrap();
        let model = ModelConfig {
            loss: SoftmaxCrossEntropy::default().into(),
            architecture: Architecture::Layers(layers.into()),
        };
        let data = Description {
            shape: [8, 8, 1].into(),
            targets: Targets::Classes(vec![String::new(); 10]),
            ..Description::default()
        };
        let expected = "\
layer                  kind                   output     parameters
input                                         [8, 8, 1]
flatten                flatten                [64]                0
dense                  dense                  [40]            2,600
residual               residual               [40]               80
  batch_normalization  batch_normalization    [40]               80
dense_1                dense                  [10]              410
loss                   softmax_cross_entropy
3,090 parameters, 80 numbers of other state
";
        assert_eq!(super::layers(&model, &data).unwrap(), expected);
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
            steps_per_second: 12.5,
            exposed_comm_ms: 0.126,
            input_wait_ms: 0.0,
            gradient_norm: None,
            loss_scale: None,
            skipped: None,
        });
        let expected = "\
step 20: epoch 1, loss 0.2500, learning rate 0.001, 1234 samples/s
waited each step 0.13 ms for other ranks, 0.00 ms for data

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

//! A trained model as a file that other programs run.

use super::inference::{state_len, wanted};
use crate::backend::cpu::Cpu;
use crate::checkpoint::{Checkpoint, CheckpointError, FileError};
use crate::columns::Encoding;
use crate::config::RunConfig;
use crate::data::{Description, Targets};
use crate::layers::{Build, LayerError};
use crate::models::Model;
use crate::onnx::{Graph, OnnxError, Tensor, Value};

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The model cannot be built.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The checkpoint is damaged or of another model.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be written in that format.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
}

/// The model of a run with the weights of `checkpoint` as the bytes of an ONNX file, which computes
/// in `f32` what [`Inference::predict`](super::Inference::predict) does with the features as they
/// stand in the data, before `data.scale`, `mean` and `std`. Where the run has `[columns]` they are its
/// encoded rows, with numbers as they stand in the data, before they are normalised or their interval is
/// found: the features of [`RunConfig::load_inputs`].
///
/// Its input is `features`, `[batch, shape]`; its output `probabilities` where the loss tells classes
/// apart, else `predictions`, `[batch, output shape]`.
///
/// # Errors
/// If the checkpoint does not fit the model, or a part of the model that was written in Rust does not
/// say what it computes.
pub fn export_onnx(config: &RunConfig, checkpoint: &Checkpoint) -> Result<Vec<u8>, ExportError> {
    let data = &checkpoint.facts().data;
    let model = build(config, data)?;
    let (layout, states) = (model.layout(), model.states());
    let mut parameters = vec![0.0; layout.end()];
    let mut state = vec![0.0; state_len(states)];
    checkpoint.load(&mut wanted(layout, states, &mut parameters, &mut state))?;
    let weights = layout.tensors().iter().map(|tensor| Tensor {
        name: &tensor.name,
        shape: &tensor.shape,
        values: &parameters[tensor.range()],
    });
    let weights = weights.chain(states.iter().map(|tensor| Tensor {
        name: &tensor.name,
        shape: &tensor.shape,
        values: &state[tensor.range.clone()],
    }));
    graph(config, data, &*model, weights)
}

/// The same of weights by name, with their shapes, which are those of the model.
pub(super) fn onnx(
    config: &RunConfig,
    data: &Description,
    weights: &[(String, Vec<usize>, Vec<f32>)],
) -> Result<Vec<u8>, ExportError> {
    let weights = weights.iter().map(|(name, shape, values)| Tensor {
        name,
        shape,
        values,
    });
    graph(config, data, &*build(config, data)?, weights)
}

fn build(config: &RunConfig, data: &Description) -> Result<Box<dyn Model<Cpu>>, LayerError> {
    config.model.build(Build::new(&mut Cpu::new(), 1), data)
}

fn graph<'a>(
    config: &RunConfig,
    data: &Description,
    model: &dyn Model<Cpu>,
    weights: impl Iterator<Item = Tensor<'a>>,
) -> Result<Vec<u8>, ExportError> {
    let mut graph = Graph::new(&config.name, weights);
    describe(&mut graph, data);
    let mut features = graph.input("features", &model.input().0);
    if config.data.scale != 1.0 {
        features = graph.multiply(&features, config.data.scale as f32);
    }
    if let Some((offsets, divisors, shape)) = normalization(config, data) {
        for (operator, values) in [("Sub", offsets), ("Div", divisors)] {
            let name = format!("features/{}", operator.to_lowercase());
            let values = graph.constant(&name, &shape, &values);
            features = graph.apply(operator, &features, &[&values]);
        }
    }
    if let Some(encoding) = &data.encoding {
        features = bucketized(&mut graph, features, encoding);
    }
    let outputs = model.export(&mut graph, features)?;
    let name = match config.model.loss.is_classification() {
        true => "probabilities",
        false => "predictions",
    };
    graph.output(name, outputs);
    Ok(graph.finish()?)
}

/// What is subtracted from features and what the difference is divided by, with the shape of both: of the features
/// or of their channels.
fn normalization(
    config: &RunConfig,
    data: &Description,
) -> Option<(Vec<f32>, Vec<f32>, Vec<usize>)> {
    if let Some(encoding) = &data.encoding {
        let (offsets, divisors) = encoding.normalization()?;
        return Some((offsets, divisors, data.shape.0.clone()));
    }
    let normalize = config.data.normalize.as_ref()?;
    let channels = data.shape.channels();
    let single = |numbers: Vec<f64>| numbers.into_iter().map(|number| number as f32).collect();
    let [mean, std] = [normalize.mean(channels), normalize.std(channels)].map(single);
    Some((mean, std, vec![channels]))
}

/// The rows with the intervals that the numbers of bucketized columns are in.
fn bucketized(graph: &mut Graph<'_>, rows: Value, encoding: &Encoding) -> Value {
    let mut parts = Vec::new();
    let mut others = 0..0;
    for column in &encoding.columns {
        let Some(boundaries) = encoding.boundaries(column) else {
            others.end = column.slots.end;
            continue;
        };
        if !others.is_empty() {
            parts.push(graph.slots(&rows, others));
        }
        others = column.slots.end..column.slots.end;
        parts.push(graph.layer(&column.name, |graph| {
            let numbers = graph.slots(&rows, column.slots.clone());
            graph.buckets(&numbers, &boundaries)
        }));
    }
    if parts.is_empty() {
        return rows;
    }
    if !others.is_empty() {
        parts.push(graph.slots(&rows, others));
    }
    graph.joined(&parts).unwrap_or(rows)
}

/// Notes which columns the features are, how encoded rows came about, and which classes the outputs.
fn describe(graph: &mut Graph<'_>, data: &Description) {
    if !data.columns.is_empty() {
        graph.note("columns", serde_json::json!(data.columns).to_string());
    }
    if let Some(encoding) = &data.encoding {
        // The slots are those of the rows that the graph takes, the rest is how they were found.
        let encoding = Encoding {
            columns: encoding.raw_columns(),
            fitted: encoding.fitted.clone(),
        };
        graph.note("encoding", serde_json::json!(encoding).to_string());
    }
    if let Targets::Classes(classes) = &data.targets {
        graph.note("classes", serde_json::json!(classes).to_string());
    }
}

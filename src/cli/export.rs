//! `ringstep export`.

use std::path::PathBuf;

use super::{ExportArguments, Failure, outputs};
use crate::backend::Precision;
use crate::config::{CustomModels, ExportFormat};
use crate::train::{Run, export_onnx};

/// Writes the model, or its weights, to a file.
pub(super) fn run(arguments: &ExportArguments, models: &CustomModels) -> Result<(), Failure> {
    let run = Run::open(&arguments.run, models)?;
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => default_output(&run, arguments.format),
    };
    outputs::check(&run, ("--output", &output), Some(arguments.format))?;
    let checkpoint = run.checkpoint(arguments.checkpoint.as_deref())?;
    let contents = match arguments.format {
        ExportFormat::Onnx => export_onnx(&run.config, &checkpoint)?,
        ExportFormat::Safetensors => checkpoint.weights()?,
    };
    outputs::write(&output, &contents)?;
    let from = checkpoint.folder().display();
    tracing::info!("{} as {} in {}", from, arguments.format, output.display());
    let precision = run.config.train.precision;
    if arguments.format == ExportFormat::Onnx && precision != Precision::F32 {
        tracing::warn!(
            "the exported model computes in f32: its outputs are not those of `ringstep predict`, \
             which rounds operands to {precision} as training did"
        );
    }
    Ok(())
}

fn default_output(run: &Run, format: ExportFormat) -> PathBuf {
    run.folder.path().join(format!("model.{format}"))
}

//! An Estimator without a run file: wide and deep, on the columns of iris, trained on four ranks, evaluated
//! and applied.
//!
//!     cargo run --release --example estimator
//!
//! It gets 29 of the 30 test rows right, on any number of ranks.

use std::error::Error;
use std::path::Path;

use ringstep::columns::{Bucketized, ColumnSpec, Normalize, Numeric};
use ringstep::config::{Cadence, CustomModels, Length, RunConfig, TrainConfig};
use ringstep::data::{ColumnFormat, ColumnSource, DataConfig, Split, Targets};
use ringstep::estimators::{DnnColumn, DnnLinearCombinedClassifier};
use ringstep::optim::Adam;
use ringstep::train::{Begin, Existing, Ranks, Run, Session};

#[expect(clippy::print_stdout, reason = "what it is run for")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("runs/estimator");
    let (accuracy, species) = train(folder, 4)?;
    println!("accuracy {accuracy:.3}; the test rows are {species:?}");
    Ok(())
}

/// Which species an iris is, by the lengths of its petals and in which interval that of its sepals is.
fn config() -> RunConfig {
    let iris = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/iris");
    let source = ColumnSource::new(ColumnFormat::Csv, iris.join("train.csv"), "species")
        .with_test(iris.join("test.csv"));
    let petal = || Numeric {
        normalize: Normalize::Standardize,
        ..Numeric::default()
    };
    let sepal = Bucketized {
        source: Some("sepal_length".to_owned()),
        boundaries: vec![5.0, 6.0, 7.0],
    };
    let columns = [
        ("petal_length", ColumnSpec::from(petal())),
        ("petal_width", petal().into()),
        ("sepal", sepal.into()),
    ];
    let model = DnnLinearCombinedClassifier {
        n_classes: 3,
        linear_feature_columns: Some(vec!["sepal".to_owned()]),
        dnn_feature_columns: Some(vec![
            DnnColumn::Plain("petal_length".to_owned()),
            DnnColumn::Plain("petal_width".to_owned()),
        ]),
        dnn_hidden_units: vec![10],
        dnn_optimizer: Adam {
            learning_rate: 0.01,
            ..Adam::default()
        }
        .into(),
        ..DnnLinearCombinedClassifier::default()
    };
    let train = TrainConfig {
        micro_batch: 8,
        evaluate_every: Cadence::End,
        checkpoint_every: Cadence::End,
        ..TrainConfig::new(32, Length::Epochs(40))
    };
    RunConfig {
        columns: Some(columns.into_iter().collect()),
        ..RunConfig::new("estimator", DataConfig::new(source), model, train)
    }
}

/// Trains in `folder` on so many ranks; returns the accuracy on the test rows, and the species of each.
pub fn train(folder: &Path, ranks: usize) -> Result<(f64, Vec<String>), Box<dyn Error>> {
    let begin = Begin::New(Existing::Replace);
    Session::new(config(), folder, begin, Ranks::Threads(ranks)).train()?;

    // From here on the folder is all it takes, also for another program, or `ringstep predict`.
    let run = Run::open(folder, &CustomModels::new())?;
    let checkpoint = run.checkpoint(None)?;
    let trained = &checkpoint.facts().data;
    let test = run.config.load_data(Split::Test, Some(trained))?;
    let metrics = run.evaluate(&checkpoint, &test, 1)?;
    let probabilities = run.inference(&checkpoint)?.predict(&test.features)?;
    let Targets::Classes(names) = &trained.targets else {
        return Err("labels that are no classes".into());
    };
    let likeliest = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let classes = probabilities.chunks(names.len()).filter_map(likeliest);
    let species = classes.map(|class| names[class].clone()).collect();
    Ok((metrics["accuracy"], species))
}

//! Estimators of a program that has no run file.

use std::fs;
use std::path::Path;

use ringstep::config::{Length, RunConfig, TrainConfig};
use ringstep::data::{ColumnFormat, ColumnSource, DataConfig, Source};
use ringstep::estimators::{DnnRegressor, LinearRegressor};
use ringstep::models::LossReduction;
use ringstep::train::{Begin, Existing, Ranks, Session};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "elsewhere it is a program of its own"
)]
#[path = "../../../examples/estimator.rs"]
mod example;

#[test]
fn the_example_learns_its_species_and_its_folder_is_a_run_like_any_other() {
    let iris = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/iris/test.csv");
    let mut reader = csv::Reader::from_path(iris).unwrap();
    let at = |name: &csv::StringRecord| name.iter().position(|name| name == "species").unwrap();
    let at = at(reader.headers().unwrap());
    let rows = reader.records().map(|row| row.unwrap()[at].to_owned());
    let rows: Vec<_> = rows.collect();

    let folder = tempfile::tempdir().unwrap();
    let [one, three] = ["one", "three"].map(|name| folder.path().join(name));
    let (accuracy, species) = example::train(&three, 3).unwrap();
    let right = species.iter().zip(&rows).filter(|(a, b)| a == b).count();
    assert_eq!((species.len(), accuracy), (30, right as f64 / 30.0));
    assert!(accuracy > 0.9, "{accuracy}");
    // Where ranks differ, so does the configuration that a folder keeps.
    assert_eq!(example::train(&one, 1).unwrap(), (accuracy, species));
    let config = fs::read_to_string(one.join("config.toml")).unwrap();
    assert!(config.contains("loss_reduction = \"sum\""), "{config}");
}

/// Miles per gallon from all that there is.
fn regression(folder: &Path, train: TrainConfig) -> RunConfig {
    let source = ColumnSource::new(ColumnFormat::Csv, folder.join("train.csv"), "mpg")
        .with_test(folder.join("test.csv"));
    let data = DataConfig::new(source);
    RunConfig::new("mpg", data, LinearRegressor::default(), train)
}

#[test]
fn a_program_has_the_defaults_of_a_run_file() {
    let text = "data = { format = 'csv', train = 'train.csv', test = 'test.csv', label = 'mpg' }\n\
                estimator = 'linear_regressor'\ntrain = { global_batch = 20, steps = 5 }\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mpg.toml");
    fs::write(&file, text).unwrap();
    let read = RunConfig::load(&file, &[]).unwrap();
    let made = regression(folder.path(), TrainConfig::new(20, Length::Steps(5)));
    assert_eq!(made.to_toml(), read.to_toml());
    assert_eq!(made.train.micro_batch, 20);
}

#[test]
fn a_program_is_refused_what_a_run_file_could_not_say() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |train: TrainConfig| {
        let begin = Begin::New(Existing::Keep);
        let config = regression(folder.path(), train);
        let session = Session::new(config, folder.path(), begin, Ranks::Threads(1));
        session.train().unwrap_err().to_string()
    };
    let train = TrainConfig::new(20, Length::Steps(5));
    let large = refused(TrainConfig {
        micro_batch: 32,
        ..train.clone()
    });
    assert_eq!(
        large,
        "run 'mpg': train.micro_batch: 32 is more than global_batch = 20; a global batch is cut into \
         micro-batches"
    );
    let seed = u64::MAX;
    let seed = refused(TrainConfig {
        seed,
        ..train.clone()
    });
    assert!(seed.contains("is out of range"), "{seed}");
    let numbers = Some(LossReduction::SumOfNumbers(2));
    let numbers = refused(TrainConfig {
        loss_reduction: numbers,
        ..train.clone()
    });
    assert!(numbers.contains("cannot stand in a run file"), "{numbers}");
    let begin = Begin::New(Existing::Keep);
    let mut config = regression(folder.path(), train.clone());
    if let Source::Columns(source) = &mut config.data.source {
        source.train = vec!["train.csv".into()];
    }
    let session = Session::new(config, folder.path(), begin, Ranks::Threads(1));
    let relative = session.train().unwrap_err().to_string();
    assert!(
        relative.contains("data.train: 'train.csv' is relative"),
        "{relative}"
    );
    let mut config = regression(folder.path(), train.clone());
    config.model = DnnRegressor {
        hidden_units: vec![8, usize::MAX >> 1],
        ..DnnRegressor::default()
    }
    .into();
    let session = Session::new(config, folder.path(), begin, Ranks::Threads(1));
    assert_eq!(
        session.train().unwrap_err().to_string(),
        "run 'mpg': estimator.hidden_units entry 2: expected at most 16777216, found 9223372036854775807"
    );
    let never = refused(TrainConfig::new(20, Length::Epochs(0)));
    assert_eq!(never, "run 'mpg': train.epochs: must be at least 1");
    let other = refused(TrainConfig {
        optimizer: Some(ringstep::optim::Adam::default().into()),
        ..train
    });
    assert!(other.contains("set them in [estimator]"), "{other}");
}

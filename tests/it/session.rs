//! What a program has of a session that the command line has not: its own rows.

use std::fs;
use std::path::Path;

use ringstep::config::{
    Cadence, CustomModels, EarlyStopping, Length, RunConfig, Threshold, TrainConfig,
};
use ringstep::data::stream::{Dataset, Row};
use ringstep::data::{DataConfig, Description, Source, Split, Table, Targets};
use ringstep::estimators::DnnClassifier;
use ringstep::train::{Begin, Bits, Existing, Ranks, Run, Session};

use crate::training::finish;

const NEW: Begin = Begin::New(Existing::Keep);

/// Points of the square, by whether they lie above its diagonal.
fn table(range: std::ops::Range<u64>) -> Table {
    let rows = Dataset::range(range).map(|number| {
        let point = [number * 7 % 10, number * 3 % 11].map(|place| place as f32 / 10.0);
        Row {
            features: point.to_vec(),
            targets: vec![f32::from(point[0] < point[1])],
            weight: None,
        }
    });
    let like = Description {
        shape: [2].into(),
        targets: Targets::Classes(vec!["below".to_owned(), "above".to_owned()]),
        ..Description::default()
    };
    rows.filter(|row| row.features[0] != row.features[1])
        .into_table(&like)
        .unwrap()
}

fn config(steps: u64) -> RunConfig {
    let model = DnnClassifier {
        hidden_units: vec![8],
        ..DnnClassifier::default()
    };
    let train = TrainConfig {
        micro_batch: 4,
        evaluate_every: Cadence::Steps(8),
        checkpoint_every: Cadence::Steps(6),
        log_every: 5,
        ..TrainConfig::new(16, Length::Steps(steps))
    };
    RunConfig::new("points", DataConfig::new(Source::Program), model, train)
}

fn session(folder: &Path, steps: u64, begin: Begin, world: usize) -> Session {
    Session::new(config(steps), folder, begin, Ranks::Threads(world))
        .with_data(table(0..90), Some(table(90..110)))
}

#[test]
fn rows_of_a_stream_are_trained_on_and_gone_on_with_on_other_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let reference = finish(&session(&whole, 20, NEW, 2)).unwrap();
    session(&parts, 9, NEW, 1).train().unwrap();
    let again = Begin::Resume(Bits::Same);
    let other = session(&parts, 20, again, 3).with_data(table(1..91), Some(table(90..110)));
    let error = other.train().unwrap_err().to_string();
    assert!(error.contains("training data"), "{error}");
    let resumed = finish(&session(&parts, 20, again, 3)).unwrap();
    assert_eq!(resumed.digest, reference.digest);
    assert_eq!(resumed.outcome.metrics, reference.outcome.metrics);

    // The folder is a run like any other, but for the rows, which are the program's.
    let run = Run::open(&parts, &CustomModels::new()).unwrap();
    let checkpoint = run.checkpoint(None).unwrap();
    let metrics = run.evaluate(&checkpoint, &table(90..110), 2).unwrap();
    assert_eq!(
        metrics["accuracy"],
        reference.outcome.metrics["test_accuracy"]
    );
    let error = run.config.load_data(Split::Train, None).unwrap_err();
    assert!(error.to_string().contains("Session::with_data"), "{error}");
    let rows = folder.path().join("rows.csv");
    fs::write(&rows, "x,y\n0.1,0.9\n").unwrap();
    let trained = &checkpoint.facts().data;
    let rows = run.config.load_features(&rows, trained).unwrap();
    assert_eq!(rows.features, [0.1, 0.9]);
}

#[test]
fn rows_that_no_file_could_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |config: RunConfig, train: Table, test: Option<Table>| {
        let session = Session::new(config, folder.path(), NEW, Ranks::Threads(2));
        let error = session.with_data(train, test).train().unwrap_err();
        error.to_string()
    };
    let (good, config) = (table(0..50), config(2));
    let changed = |change: fn(&mut Table)| {
        let mut table = good.clone();
        change(&mut table);
        refused(config.clone(), table, None)
    };
    let unlabelled = changed(|table| table.targets.clear());
    assert!(
        unlabelled.starts_with("training data: ") && unlabelled.contains("but 0 of them"),
        "{unlabelled}"
    );
    let class = changed(|table| table.targets[3] = 2.0);
    assert_eq!(
        class,
        "training data: row 4 has the target 2, which cannot be"
    );
    let feature = changed(|table| table.features[9] = f32::NAN);
    assert_eq!(
        feature,
        "training data: row 5 has the feature NaN, which cannot be"
    );

    let mut other = good.clone();
    other.target_kind = Targets::Classes(vec!["above".to_owned(), "below".to_owned()]);
    let other = refused(config.clone(), good.clone(), Some(other));
    assert!(other.starts_with("test data: shape, columns"), "{other}");
    let mut judged = config.clone();
    judged.train.early_stopping = Some(EarlyStopping::Lower(Threshold {
        metric: "loss".to_owned(),
        threshold: 0.1,
        start_after: 0,
    }));
    let judged = refused(judged, good.clone(), None);
    assert!(judged.contains("it goes by the test rows"), "{judged}");
    let mut scaled = config;
    scaled.data.scale = 0.5;
    let scaled = refused(scaled, good, None);
    assert!(
        scaled.starts_with("run 'points': data.scale: a program's rows"),
        "{scaled}"
    );
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

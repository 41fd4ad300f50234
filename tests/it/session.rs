//! What a program has of a session that the command line has not: its own rows, and calls on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ringstep::checkpoint::Checkpoint;
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
    let mut other = table(90..110);
    other.target_kind = Targets::Classes(vec!["above".to_owned(), "below".to_owned()]);
    let error = run.evaluate(&checkpoint, &other, 2).unwrap_err();
    assert!(
        error.to_string().starts_with("test data: shape, columns"),
        "{error}"
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

    let light = changed(|table| table.weights = Some(vec![0.0; table.rows]));
    assert_eq!(light, "training data: has no row of a weight above 0");

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

#[test]
fn a_program_is_told_once_of_what_is_written_when_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<(Vec<String>, Vec<PathBuf>)>> = Arc::default();
    let (records, checkpoints) = (Arc::clone(&told), Arc::clone(&told));
    let metrics = folder.path().join("metrics.jsonl");
    let session = session(folder.path(), 20, NEW, 3)
        .on_record(move |record| {
            let record = serde_json::to_string(record).unwrap();
            let written = fs::read_to_string(&metrics).unwrap();
            assert_eq!(written.lines().next_back(), Some(record.as_str()));
            records.lock().unwrap().0.push(record);
        })
        .on_checkpoint(move |folder| {
            Checkpoint::open(folder).unwrap();
            checkpoints.lock().unwrap().1.push(folder.to_owned());
        });
    session.train().unwrap();
    let (records, checkpoints) = &*told.lock().unwrap();
    let written = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(records.join("\n") + "\n", written);
    // The beginning, steps 5, 10, 15 and 20, evaluations after 8, 16 and 20.
    assert_eq!(records.len(), 8, "{written}");
    let steps = [6, 12, 18, 20];
    let folders = steps.map(|step| folder.path().join(format!("checkpoints/step-{step}")));
    assert_eq!(checkpoints, &folders);

    let folder = tempfile::tempdir().unwrap();
    let failing = self::session(folder.path(), 20, NEW, 3).on_checkpoint(|_| panic!("enough"));
    let error = failing.train().unwrap_err().to_string();
    assert_eq!(error, "rank 0 panicked: enough");
}

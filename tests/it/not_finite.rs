//! Values that are not finite: all ranks stop at once, say whose they are, and save none.

use std::fs;

use ringstep::checkpoint::Checkpoint;
use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::config::{Override, RunConfig};
use ringstep::train::{Begin, Bits, TrainError, connect_threads, run_threads};

use crate::bad_sample::{SAMPLES, stops};
use crate::robustness::{houses, session};

#[test]
fn one_sample_that_is_not_finite_stops_every_rank_with_the_name_of_its_rank() {
    use CollectiveChoice::{Auto, Ring};
    for sample in SAMPLES {
        for reduce in [ReduceMode::Exact, ReduceMode::F32, ReduceMode::Bf16] {
            for (world, collective) in [(2, Auto), (3, Auto), (4, Auto), (2, Ring), (4, Ring)] {
                let options = Options::default().with_collective(collective);
                let connects = connect_threads(world, &options).unwrap();
                run_threads(connects, |reducer| stops(reducer, reduce, sample)).unwrap();
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_all_ranks_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    houses(folder.path());
    let optimizer = r#"train.optimizer={kind="sgd",learning_rate=1e24}"#;
    let session = session(folder.path(), 3, &[optimizer]);
    let error = session.train().unwrap_err();
    let TrainError::NotFinite { step, tensor, .. } = &error else {
        panic!("{error}")
    };
    assert!(*step > 1 && !tensor.is_empty());
    let text = error.to_string();
    assert!(
        text.contains("rank") && text.contains("not applied"),
        "{text}"
    );
    let kept = session
        .folder
        .join(format!("checkpoints/step-{}", step - 1));
    assert!(
        kept.is_dir(),
        "the checkpoint before the failed step is kept"
    );
}

#[test]
fn a_statistic_that_is_not_finite_stops_all_ranks_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    houses(folder.path());
    // The variance overflows; what is divided by its root is zero, and so the loss is finite.
    let layers = r#"model.layers=[{kind="batch_normalization"},{kind="dense",units=1}]"#;
    let session = session(folder.path(), 3, &["data.scale=1e19", layers]);
    let error = session.train().unwrap_err();
    let TrainError::NotFinite { what, tensor, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*what, "statistic");
    assert_eq!(tensor, "what 'batch_normalization/moving_variance' follows");
}

#[test]
fn what_is_not_finite_is_not_saved() {
    for (zero, reduce) in [(0, "exact"), (1, "exact"), (1, "f32")] {
        let folder = tempfile::tempdir().unwrap();
        houses(folder.path());
        let zero = format!("train.zero={zero}");
        let reduce = format!("train.reduce=\"{reduce}\"");
        let overrides = ["train.keep=1", "train.epochs=1", &zero, &reduce];
        let mut session = session(folder.path(), 3, &overrides);
        session.train().unwrap();
        let kept = session.folder.join("checkpoints/step-6");
        assert!(kept.is_dir());

        // Gradients whose squares are infinite: finite loss, but no second moment any more.
        let data = fs::read_to_string(folder.path().join("houses.csv")).unwrap();
        let data = data.replace("1000,900,", "1e15,900,");
        fs::write(folder.path().join("houses.csv"), data).unwrap();
        let text = ["train.epochs=2"];
        let overrides = [&overrides[..], &text].concat();
        let overrides: Vec<_> = overrides.iter().map(|text| Override::set(text)).collect();
        session.config = RunConfig::load(&folder.path().join("run.toml"), &overrides).unwrap();
        session.begin = Begin::Resume(Bits::MayDiffer);
        let error = session.train().unwrap_err();
        let text = error.to_string();
        let TrainError::Diverged { tensor, .. } = error else {
            panic!("{text}")
        };
        assert_eq!(tensor, "the optimizer's v of 'dense/kernel'");
        assert!(
            text.contains("not saved") && text.contains("--resume"),
            "{text}"
        );
        let left: Vec<_> = fs::read_dir(session.folder.join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.len() == 1, "{left:?}");
        Checkpoint::newest(&session.folder.join("checkpoints"))
            .unwrap()
            .checkpoint
            .unwrap();
    }
}

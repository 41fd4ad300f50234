//! Runs that are killed without notice, again and again, and go on each time.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringstep::checkpoint::Checkpoint;
use ringstep::random::Stream;
use ringstep::train::{Record, read_metrics};

use crate::commands::{ringstep, trained};

/// How often a run is killed.
const KILLS: u32 = 5;

/// The step of the newest checkpoint.
fn saved(folder: &Path) -> Option<u64> {
    let entries = fs::read_dir(folder.join("checkpoints")).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let steps = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok());
    steps.max()
}

/// The hash of the final weights, and the step and loss of every line of the log.
fn outcome(folder: &Path) -> (String, Vec<(u64, f64)>) {
    let newest = Checkpoint::newest(&folder.join("checkpoints")).unwrap();
    assert!(newest.skipped.is_empty());
    let checkpoint = newest.checkpoint.unwrap();
    let records = read_metrics(&folder.join("metrics.jsonl")).unwrap();
    let line = |record: &Record| match record {
        Record::Train(train) => Some((train.step, train.loss)),
        _ => None,
    };
    let weights = &checkpoint.manifest().files["model.safetensors"];
    let lines = records.iter().filter_map(line).collect();
    (weights.sha256.clone(), lines)
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_as_if_nothing_had_happened() {
    let folder = trained();
    let folder = folder.path();
    let arguments = |run: &'static str, option| {
        let set = [
            "train.steps=400",
            "train.checkpoint_every=10",
            "train.evaluate_every=50",
        ];
        let set = set.into_iter().flat_map(|value| ["--set", value]);
        let start = [
            "train",
            "two.toml",
            "--quiet",
            "--ranks",
            "2",
            option,
            "--run-dir",
            run,
        ];
        start.into_iter().chain(set).collect::<Vec<_>>()
    };
    let whole = ringstep(folder, &arguments("whole", "--overwrite"));
    assert!(whole.status.success(), "{whole:?}");

    let mut moments = Stream::new(7, "moments");
    let mut kills = 0;
    let killed = folder.join("killed");
    for kill in 0..KILLS {
        // Before there is a configuration there is no run to go on with.
        let option = match killed.join("config.toml").exists() {
            true => "--resume",
            false => "--overwrite",
        };
        let before = saved(&killed);
        let mut run = Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args(arguments("killed", option))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // All but the first two go on for a checkpoint or more, however slow the machine is; those may end
        // while they start.
        let start = Instant::now();
        while kill >= 2 && saved(&killed) == before && run.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_secs_f64(moments.uniform() * 0.005));
        kills += u32::from(run.try_wait().unwrap().is_none());
        run.kill().unwrap();
        run.wait().unwrap();
    }
    assert!(kills >= 2, "it was over after {kills} kills");
    let ended = ringstep(folder, &arguments("killed", "--resume"));
    assert!(ended.status.success(), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.contains(" to 400\n"), "it began anew: {said}");
    assert_eq!(outcome(&killed), outcome(&folder.join("whole")));
}

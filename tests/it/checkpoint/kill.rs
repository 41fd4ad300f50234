//! A process killed at random moments while it saves.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringstep::checkpoint::{Best, Checkpoint, Retention, list};
use ringstep::config::Goal;

use super::{assert_is_whole, newest, save};

/// Set for the process that `a_kill_at_any_moment_loses_no_earlier_checkpoint` starts and kills.
const CHILD: &str = "RINGSTEP_TEST_CHECKPOINTS";

/// Saves step after step, saying so after each, until it is killed. Nothing unless started for it.
#[test]
fn saving_until_killed() {
    let Some(checkpoints) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let found = Checkpoint::newest(&checkpoints).unwrap();
    let first = found.checkpoint.map_or(0, |checkpoint| checkpoint.step()) + 1;
    let retention = Retention {
        last: 2,
        best: Some(Best {
            metric: "loss".to_owned(),
            goal: Goal::Minimize,
        }),
        needed: None,
    };
    let mut reports = std::io::stderr();
    for step in first.. {
        let parts = (step % 3) as usize + 1;
        let loss = (step * 7 % 10) as f64;
        save(&checkpoints, step, parts, &retention, &[("loss", loss)]).unwrap();
        // One write, so that a kill leaves a whole line or none.
        reports
            .write_all(format!("saved {step}\n").as_bytes())
            .unwrap();
    }
}

#[test]
fn a_checkpoint_that_is_replaced_is_there_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        last: 1,
        best: None,
        needed: None,
    };
    let replace = || save(folder.path(), 7, 1, &retention, &[]).unwrap();
    replace();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(folder.path().join("step-7").is_dir());
                looks += 1;
            }
            looks
        });
        for _ in 0..100 {
            replace();
        }
        over.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 100);
    });
    assert_is_whole(&newest(folder.path()).0, 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn start_child(checkpoints: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "checkpoint::kill::saving_until_killed",
            "--nocapture",
        ])
        .env(CHILD, checkpoints)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_kill_at_any_moment_loses_no_earlier_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = 12345u64;
    let mut reported = 0;
    let mut left_unfinished = 0;
    for _ in 0..40 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut child = start_child(folder.path());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let saved = |line: String| line.strip_prefix("saved ").unwrap().parse::<u64>().unwrap();
        // Only once it saves does the time at which it dies matter.
        reported = saved(lines.next().unwrap().unwrap());
        std::thread::sleep(Duration::from_micros((random >> 33) % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            reported = saved(line);
        }
        let hidden = |name: &str| name.starts_with(".step-");
        let mut entries = fs::read_dir(folder.path()).unwrap();
        let unfinished = entries.any(|e| hidden(e.unwrap().file_name().to_str().unwrap()));
        left_unfinished += usize::from(unfinished);
        let (checkpoint, skipped) = newest(folder.path());
        assert!(skipped.is_empty(), "{skipped:?}");
        let step = checkpoint.step();
        assert!(
            step == reported || step == reported + 1,
            "{step} after {reported}"
        );
        assert_is_whole(&checkpoint, 2);
        for step in list(folder.path()).unwrap() {
            assert_is_whole(
                &Checkpoint::named(folder.path(), &step.to_string()).unwrap(),
                1,
            );
        }
    }
    assert!(
        reported >= 40 && left_unfinished > 0,
        "{left_unfinished} of {reported}"
    );
}

//! Damaged, unfinished and unreadable checkpoints, and disks that take no more.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

#[test]
fn any_damage_is_found_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path();
    save(checkpoints, 1, 2, &KEEP_ALL, &[]).unwrap();
    let saved = save(checkpoints, 2, 2, &KEEP_ALL, &[]).unwrap();
    let mut files: Vec<_> = fs::read_dir(&saved)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected = [
        "manifest.json",
        "manifest.sha256",
        "model.safetensors",
        "optimizer-0-of-2.safetensors",
        "optimizer-1-of-2.safetensors",
    ];
    assert_eq!(files, expected);
    let assert_skipped = |file: &str, what: &str| {
        let (checkpoint, skipped) = newest(checkpoints);
        assert_eq!(checkpoint.step(), 1, "{file} {what}");
        assert_is_whole(&checkpoint, 1);
        let [warning] = &skipped[..] else {
            panic!("{skipped:?}");
        };
        let names = [file, "step-2", what];
        assert!(names.iter().all(|name| warning.contains(name)), "{warning}");
    };
    for file in &files {
        let path = saved.join(file);
        let contents = fs::read(&path).unwrap();
        let is_manifest = file.starts_with("manifest");
        for byte in (0..contents.len()).step_by(contents.len() / 23 + 1) {
            let mut flipped = contents.clone();
            flipped[byte] ^= 4;
            fs::write(&path, flipped).unwrap();
            assert_skipped(
                file,
                if is_manifest {
                    "match"
                } else {
                    "checksum differs"
                },
            );
        }
        for len in [0, 1, contents.len() / 2, contents.len() - 1] {
            fs::write(&path, &contents[..len]).unwrap();
            assert_skipped(
                file,
                if is_manifest {
                    "match"
                } else {
                    "bytes, expected"
                },
            );
        }
        fs::remove_file(&path).unwrap();
        assert_skipped(file, "is missing");
        fs::write(&path, contents).unwrap();
        assert_eq!(newest(checkpoints).0.step(), 2);
    }
    let error = Checkpoint::named(checkpoints, "step-7")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("step-7") && error.contains("step-1, step-2"),
        "{error}"
    );
    assert_eq!(Checkpoint::named(checkpoints, "1").unwrap().step(), 1);
}

#[test]
fn a_checkpoint_under_the_name_of_another_step_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    for step in [10, 20] {
        save(folder.path(), step, 2, &KEEP_ALL, &[]).unwrap();
    }
    fs::rename(folder.path().join("step-10"), folder.path().join("step-30")).unwrap();
    let (checkpoint, skipped) = newest(folder.path());
    assert_eq!(checkpoint.step(), 20);
    assert!(
        skipped[0].ends_with("step-30 is damaged: it is of step 10; rename it step-10"),
        "{skipped:?}"
    );
}

#[test]
fn a_damaged_checkpoint_is_replaced_when_its_step_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        save(folder.path(), step, 1, &KEEP_ALL, &[]).unwrap();
    }
    fs::remove_file(folder.path().join("step-2/model.safetensors")).unwrap();
    assert_eq!(newest(folder.path()).0.step(), 1);
    save(folder.path(), 2, 3, &KEEP_ALL, &[]).unwrap();
    let (checkpoint, skipped) = newest(folder.path());
    assert_eq!((checkpoint.step(), skipped.len()), (2, 0));
    assert_is_whole(&checkpoint, 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn what_an_unfinished_save_left_is_ignored_and_removed_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1, 1, &KEEP_ALL, &[]).unwrap();
    drop(Writer::begin(folder.path(), 2).unwrap());
    write_parts(folder.path(), 2, 2).unwrap();
    assert_eq!(newest(folder.path()).0.step(), 1);
    // The same step again, by fewer ranks: nothing of the first try may slip in.
    save(folder.path(), 2, 1, &KEEP_ALL, &[]).unwrap();
    assert_is_whole(&newest(folder.path()).0, 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_full_disk_is_reported_and_leaves_earlier_checkpoints_whole() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1, 1, &KEEP_ALL, &[]).unwrap();
    for file in ["model.safetensors", "manifest.json"] {
        let writer = Writer::begin(folder.path(), 2).unwrap();
        write_parts(folder.path(), 2, 1).unwrap();
        symlink(
            "/dev/full",
            folder.path().join(".step-2.partial").join(file),
        )
        .unwrap();
        let error = finish(writer, 2, 1, &KEEP_ALL, &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(file) && error.contains("free space"),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{file}");
    }
    drop(Writer::begin(folder.path(), 2).unwrap());
    let part = "optimizer-0-of-1.safetensors";
    symlink(
        "/dev/full",
        folder.path().join(".step-2.partial").join(part),
    )
    .unwrap();
    let error = write_parts(folder.path(), 2, 1).unwrap_err().to_string();
    assert!(
        error.contains(part) && error.contains("free space"),
        "{error}"
    );
    assert_is_whole(&newest(folder.path()).0, 1);
}

#[test]
fn an_unwritable_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = save(&file.join("checkpoints"), 1, 1, &KEEP_ALL, &[]).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("file/checkpoints") && error.contains("choose another"),
        "{error}"
    );
}

#[test]
fn a_rank_that_wrote_nothing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::begin(folder.path(), 3).unwrap();
    write_part(folder.path(), 3, (0, 2), &[]).unwrap();
    let error = finish(writer, 3, 2, &KEEP_ALL, &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("step 3: rank 1 of 2"), "{error}");
    assert_eq!(list(folder.path()).unwrap(), [0u64; 0]);
}

#[test]
fn another_format_is_refused_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let saved = save(folder.path(), 1, 1, &KEEP_ALL, &[]).unwrap();
    let text = fs::read_to_string(saved.join("manifest.json")).unwrap();
    let text = text.replacen("\"format\": 2", "\"format\": 99", 1);
    fs::write(saved.join("manifest.json"), &text).unwrap();
    let sum = Command::new("sha256sum")
        .arg("manifest.json")
        .current_dir(&saved)
        .output()
        .unwrap();
    fs::write(saved.join("manifest.sha256"), sum.stdout).unwrap();
    let error = Checkpoint::open(&saved).unwrap_err();
    assert!(
        matches!(
            error,
            CheckpointError::Format {
                found: 99,
                known: 2,
                ..
            }
        ),
        "{error}"
    );
}

//! Checkpoints through their public face: any number of ranks to any other, damage, retention and
//! full disks.

mod damage;
mod kill;

use std::fs;
use std::path::{Path, PathBuf};

use ringstep::checkpoint::{
    Best, Checkpoint, CheckpointError, Facts, Named, Piece, Retention, Steering, Wanted,
    WantedPiece, Watch, Writer, list, write_part,
};
use ringstep::config::{Goal, Measure};
use ringstep::data::Description;
use ringstep::optim::LossScale;
use ringstep::params::partition;

/// Names and shapes of a small model.
const TENSORS: [(&str, &[usize]); 3] = [
    ("conv2d/kernel", &[3, 3, 1, 8]),
    ("dense/kernel", &[8, 33]),
    ("batch_normalization/moving_mean", &[8]),
];

const STATES: [&str; 2] = ["m", "v"];

const KEEP_ALL: Retention = Retention {
    last: usize::MAX,
    best: None,
    needed: None,
};

/// Numbers that tell where they belong: a function of the step, the array and the element.
fn values(step: u64, array: &str, len: usize) -> Vec<f32> {
    let key = array.bytes().fold(step as u32, |key, byte| {
        key.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let value = |i: u32| f32::from_bits((key ^ i.wrapping_mul(2_654_435_761)) % 0x7f00_0000);
    (0..len as u32).map(value).collect()
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The arrays of optimizer state: tensor, state, values.
fn arrays(step: u64) -> Vec<(&'static str, &'static str, Vec<f32>)> {
    let mut arrays = Vec::new();
    for (tensor, shape) in &TENSORS[..2] {
        for state in STATES {
            let values = values(step, &format!("{tensor}/{state}"), elements(shape));
            arrays.push((*tensor, state, values));
        }
    }
    arrays
}

/// Saves the model's `step` as `parts` ranks do; each array is cut over them.
fn save(
    checkpoints: &Path,
    step: u64,
    parts: usize,
    retention: &Retention,
    metrics: &[(&str, f64)],
) -> Result<PathBuf, CheckpointError> {
    let writer = Writer::begin(checkpoints, step)?;
    write_parts(checkpoints, step, parts)?;
    finish(writer, step, parts, retention, metrics)
}

fn write_parts(checkpoints: &Path, step: u64, parts: usize) -> Result<(), CheckpointError> {
    let arrays = arrays(step);
    for rank in 0..parts {
        let piece = |(tensor, state, values): &'_ (&'static str, &'static str, Vec<f32>)| {
            let range = partition(values.len(), parts, rank);
            (*tensor, *state, range.start, values[range].to_vec())
        };
        let cut: Vec<_> = arrays.iter().map(piece).collect();
        let pieces: Vec<_> = cut
            .iter()
            .map(|(tensor, state, start, values)| Piece {
                tensor,
                state,
                start: *start,
                values,
            })
            .collect();
        write_part(checkpoints, step, (rank, parts), &pieces)?;
    }
    Ok(())
}

fn finish(
    writer: Writer,
    step: u64,
    parts: usize,
    retention: &Retention,
    metrics: &[(&str, f64)],
) -> Result<PathBuf, CheckpointError> {
    let data: Vec<_> = TENSORS
        .iter()
        .map(|(name, shape)| values(step, name, elements(shape)))
        .collect();
    let tensors: Vec<_> = TENSORS
        .iter()
        .zip(&data)
        .map(|((name, shape), values)| Named {
            name,
            shape,
            values,
        })
        .collect();
    let facts = Facts {
        step,
        epoch: step / 7,
        step_of_epoch: step % 7,
        seed: u64::MAX,
        world: parts,
        config: "[train]\nsteps = 9\n".to_owned(),
        data: Description {
            rows: 70,
            columns: vec!["a".to_owned()],
            ..Description::default()
        },
        fingerprint: [("layout".to_owned(), "abc".to_owned())].into(),
        exponents: [("dense/kernel".to_owned(), -17)].into(),
        matmul: None,
        loss_scale: Some(LossScale::default()),
        skipped_steps: 3,
        steering: Steering {
            best: Some(Watch::new(Measure::loss())),
            ..Steering::default()
        },
        metrics: metrics
            .iter()
            .map(|&(name, value)| (name.to_owned(), value))
            .collect(),
    };
    writer.finish(&facts, &tensors, parts, retention)
}

/// Loads everything as `parts` ranks and compares it with what `save` wrote for its step.
fn assert_is_whole(checkpoint: &Checkpoint, parts: usize) {
    let step = checkpoint.step();
    for rank in 0..parts {
        let mut buffers: Vec<_> = TENSORS
            .iter()
            .map(|(_, s)| vec![9.0; elements(s)])
            .collect();
        let mut wanted: Vec<_> = TENSORS
            .iter()
            .zip(&mut buffers)
            .map(|((name, shape), values)| Wanted {
                name,
                shape,
                values,
            })
            .collect();
        checkpoint.load(&mut wanted).unwrap();
        for ((name, shape), read) in TENSORS.iter().zip(&buffers) {
            assert_eq!(*read, values(step, name, elements(shape)), "{name}");
        }
        let arrays = arrays(step);
        let mut cut: Vec<_> = arrays
            .iter()
            .map(|(tensor, state, values)| {
                let range = partition(values.len(), parts, rank);
                (*tensor, *state, range.clone(), vec![9.0; range.len()])
            })
            .collect();
        let mut wanted: Vec<_> = cut
            .iter_mut()
            .map(|(tensor, state, range, values)| WantedPiece {
                tensor,
                state,
                start: range.start,
                values,
            })
            .collect();
        checkpoint.load_optimizer(&mut wanted).unwrap();
        for ((_, _, values), (tensor, state, range, read)) in arrays.iter().zip(&cut) {
            assert_eq!(*read, values[range.clone()], "{tensor}/{state}");
        }
    }
}

fn newest(checkpoints: &Path) -> (Checkpoint, Vec<String>) {
    let newest = Checkpoint::newest(checkpoints).unwrap();
    let skipped = newest.skipped.iter().map(ToString::to_string).collect();
    (newest.checkpoint.unwrap(), skipped)
}

#[test]
fn four_shards_load_as_three_as_one_and_as_five() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    for (step, parts) in [(1, 4), (2, 3), (3, 1)] {
        let saved = save(&checkpoints, step, parts, &KEEP_ALL, &[("loss", 0.5)]).unwrap();
        assert_eq!(saved, checkpoints.join(format!("step-{step}")));
        let (checkpoint, skipped) = newest(&checkpoints);
        assert_eq!((checkpoint.step(), skipped.len()), (step, 0));
        for world in [1, 3, 4, 5] {
            assert_is_whole(&checkpoint, world);
        }
    }
    let facts = newest(&checkpoints).0.facts().clone();
    assert_eq!(
        (facts.seed, facts.world, facts.step_of_epoch),
        (u64::MAX, 1, 3)
    );
    assert_eq!(facts.config, "[train]\nsteps = 9\n");
    assert_eq!(facts.exponents["dense/kernel"], -17);
    assert_eq!(facts.loss_scale, Some(LossScale::default()));
    assert_eq!(facts.skipped_steps, 3);
    assert_eq!(facts.metrics["loss"], 0.5);
    assert_eq!((facts.data.rows, &facts.data.columns[0][..]), (70, "a"));
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let mut files = Vec::new();
    for parts in [1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let saved = save(
            folder.path(),
            5,
            parts,
            &KEEP_ALL,
            &[("loss", parts as f64)],
        )
        .unwrap();
        files.push(fs::read(saved.join("model.safetensors")).unwrap());
    }
    assert_eq!(files[0], files[1]);
    let header = u64::from_le_bytes(files[0][..8].try_into().unwrap()) as usize;
    let numbers: usize = TENSORS.iter().map(|(_, shape)| elements(shape)).sum();
    assert_eq!(
        files[0].len(),
        8 + header + 4 * numbers,
        "padding is stored"
    );
}

#[test]
fn the_last_and_the_best_are_kept() {
    let losses = [5.0, 2.0, 3.0, f64::NAN, 4.0, 2.0, 6.0];
    for (goal, last, kept) in [
        (Some(Goal::Minimize), 2, vec![2, 6, 7]),
        (Some(Goal::Maximize), 3, vec![5, 6, 7]),
        (Some(Goal::Minimize), 0, vec![2, 7]),
        (None, 2, vec![6, 7]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let best = goal.map(|goal| Best {
            metric: "loss".to_owned(),
            goal,
        });
        let retention = Retention {
            last,
            best,
            needed: None,
        };
        for (step, loss) in (1..).zip(losses) {
            save(folder.path(), step, 1, &retention, &[("loss", loss)]).unwrap();
            assert_eq!(newest(folder.path()).0.step(), step);
        }
        assert_eq!(list(folder.path()).unwrap(), kept, "{retention:?}");
    }
}

#[test]
fn retention_removes_nothing_on_account_of_checkpoints_of_an_abandoned_future() {
    let folder = tempfile::tempdir().unwrap();
    for step in [10, 20, 30, 40] {
        save(folder.path(), step, 1, &KEEP_ALL, &[]).unwrap();
    }
    fs::write(folder.path().join("step-20/manifest.json"), "{").unwrap();
    let retention = Retention {
        last: 2,
        best: None,
        needed: None,
    };
    save(folder.path(), 25, 1, &retention, &[]).unwrap();
    assert_eq!(list(folder.path()).unwrap(), [10, 20, 25, 30, 40]);
    save(folder.path(), 26, 1, &retention, &[]).unwrap();
    assert_eq!(list(folder.path()).unwrap(), [20, 25, 26, 30, 40]);
}

#[test]
fn another_model_or_optimizer_is_refused_with_names_and_shapes() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1, 2, &KEEP_ALL, &[]).unwrap();
    let checkpoint = newest(folder.path()).0;
    let (mut a, mut b) = ([9.0; 72], [9.0; 4]);
    let error = checkpoint.load(&mut [
        Wanted {
            name: "conv2d/kernel",
            shape: &[9, 8],
            values: &mut a,
        },
        Wanted {
            name: "dense_1/kernel",
            shape: &[4],
            values: &mut b,
        },
    ]);
    let error = error.unwrap_err().to_string();
    for part in [
        "'conv2d/kernel' has shape [3, 3, 1, 8], the model has [9, 8]",
        "'dense_1/kernel' is missing",
        "'dense/kernel' is not in the model",
        "run file",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(a, [9.0; 72]);
    let mut values = [0.0; 8];
    let error = checkpoint.load_optimizer(&mut [WantedPiece {
        tensor: "dense/kernel",
        state: "momentum",
        start: 64,
        values: &mut values,
    }]);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("'dense/kernel/momentum' has 0 of the 8 elements from 64"),
        "{error}"
    );
}

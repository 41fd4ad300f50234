//! What multiplies in a run: as it is asked for, or chosen by timing, noted, and pinned by its checkpoints.

use std::path::Path;
use std::process::Command;

use ringstep::backend::{MatmulChoice, TimedMatmul};
use ringstep::checkpoint::Checkpoint;
use ringstep::train::{Begin, Bits, Record, StartRecord, read_metrics};

use crate::training::{
    CUDA, MLP, NCCL, STAGED, assert_near, can_sum, finish, folder, model, session, train,
};
use crate::twins::{is_emulated, program};

const CUBLASLT: &str = "train.matmul=cublaslt";
const KERNELS: &str = "train.matmul=kernels";
const EXACT: &str = "train.reduce=exact";

fn records(folder: &Path) -> Vec<Record> {
    read_metrics(&folder.join("run/metrics.jsonl")).unwrap()
}

/// What `metrics.jsonl` says was chosen, each time, with the step.
fn choices(folder: &Path) -> Vec<(u64, Vec<TimedMatmul>)> {
    let records = records(folder).into_iter();
    let choice = |record| match record {
        Record::Matmul(record) => Some((record.step, record.products)),
        _ => None,
    };
    records.filter_map(choice).collect()
}

fn pinned(folder: &Path) -> Option<Vec<TimedMatmul>> {
    let newest = Checkpoint::newest(&folder.join("run/checkpoints")).unwrap();
    newest.checkpoint.unwrap().facts().matmul.clone()
}

fn start(folder: &Path) -> StartRecord {
    let records = records(folder).into_iter().rev();
    let start = |record| match record {
        Record::Start(start) => Some(start),
        _ => None,
    };
    records.filter_map(start).next().unwrap()
}

#[test]
fn ranks_choose_once_and_alike_and_say_what() {
    let folder = folder();
    let folder = folder.path();
    let cpu = train(folder, 1, &["train.device=cpu", "train.reduce=f32"]);
    for (ranks, collective) in [(1, STAGED), (2, STAGED), (3, NCCL)] {
        if !can_sum(ranks, collective) {
            continue;
        }
        let gpus = train(folder, ranks, &[CUDA, collective]);
        assert_near(&cpu, &gpus, &format!("{ranks} ranks, {collective}"));
        assert_eq!(start(folder).matmul, MatmulChoice::Auto);
        let chosen = choices(folder);
        let [(1, products)] = &chosen[..] else {
            panic!("chosen otherwise than once, after the first step: {chosen:?}");
        };
        // Three dense layers and one within a block; the first hands out no gradient of its input. A rank
        // alone computes several micro-batches, the last of which is short, and adds their gradients.
        let of_rows = |rows| {
            let rows = move |timed: &&TimedMatmul| {
                let shape = timed.call.shape;
                [shape.m, shape.k].contains(&rows)
            };
            products.iter().filter(rows).count()
        };
        assert!(of_rows(3) >= 7, "{products:?}");
        for timed in products {
            let library = timed.cublaslt_us.unwrap();
            let is_library = timed.chosen == MatmulChoice::Cublaslt;
            assert_eq!(is_library, library < timed.kernels_us, "{timed:?}");
        }
        assert_eq!(pinned(folder).as_ref(), Some(products));
    }
}

#[test]
fn every_product_is_printed_with_both_times() {
    let folder = folder();
    let folder = folder.path();
    let output = Command::new(program())
        .arg("train")
        .arg(folder.join("run.toml"))
        .args(["--device", "cuda", "--ranks", "1", "--run-dir"])
        .arg(folder.join("run"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let [(1, products)] = &choices(folder)[..] else {
        panic!("chosen otherwise than once: {said}");
    };
    let timed = said.matches(" us by kernels, ").count();
    assert_eq!(timed, products.len(), "{said}");
    for timed in products {
        assert!(said.contains(&format!("matmul: {timed}\n")), "{said}");
    }
    // The first layer's output and its weights' gradient, the next one's input's.
    for product in [
        "nn 3 x 16 x 36, with a bias, Tanh: ",
        "tn 36 x 16 x 3: ",
        "tn 36 x 16 x 3, added: ",
        "nt 3 x 16 x 16: ",
    ] {
        assert!(said.contains(&format!("matmul: {product}")), "{said}");
    }
}

#[test]
fn a_resumed_run_multiplies_as_it_did() {
    let first = folder();
    session(first.path(), 2, &[CUDA, STAGED, "train.steps=10"])
        .train()
        .unwrap();
    let chosen = pinned(first.path()).unwrap();
    assert!(!chosen.is_empty());
    let go_on = |ranks, begin, choice| {
        let folder = folder();
        copy(&first.path().join("run"), &folder.path().join("run"));
        let mut half = session(folder.path(), ranks, &[CUDA, STAGED, choice]);
        half.begin = Begin::Resume(begin);
        let result = finish(&half);
        (result, choices(folder.path()), pinned(folder.path()))
    };
    let resumed = go_on(2, Bits::Same, "train.matmul=auto");
    // Timed again the microseconds would be others.
    assert_eq!(resumed.1, [(1, chosen.clone())]);
    assert_eq!(resumed.2, Some(chosen.clone()));
    assert_eq!(resumed, go_on(2, Bits::Same, "train.matmul=auto"));
    let other = match chosen
        .iter()
        .any(|timed| timed.chosen == MatmulChoice::Cublaslt)
    {
        true => KERNELS,
        false => CUBLASLT,
    };
    let other = go_on(2, Bits::MayDiffer, other);
    assert!(
        resumed.0.weights != other.0.weights || !is_emulated(),
        "what was chosen does not multiply"
    );
    assert_eq!(other.2, None);
}

/// Copies a folder and all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn another_choice_has_other_bits_and_is_refused() {
    let folder = folder();
    let folder = folder.path();
    let mut run = session(folder, 1, &[CUDA, EXACT, KERNELS, "train.steps=10"]);
    run.train().unwrap();
    // Exact sums are never timed: auto is what it was.
    run = session(folder, 1, &[CUDA, EXACT, "train.steps=11"]);
    run.begin = Begin::Resume(Bits::Same);
    assert_eq!(run.train().unwrap().step, 11);
    run = session(folder, 1, &[CUDA, EXACT, CUBLASLT]);
    run.begin = Begin::Resume(Bits::Same);
    let error = run.train().unwrap_err().to_string();
    assert!(
        error.contains("train.matmul: was \"kernels\", is \"cublaslt\""),
        "{error}"
    );
    run.begin = Begin::Resume(Bits::MayDiffer);
    assert_eq!(run.train().unwrap().step, 20);
}

#[test]
fn exact_sums_are_own_kernels_or_cublaslt_where_it_is_named() {
    let folder = folder();
    let folder = folder.path();
    let model = &*model(MLP);
    let own = train(folder, 1, &[model, CUDA, EXACT]);
    assert_eq!(start(folder).matmul, MatmulChoice::Kernels);
    assert_eq!((choices(folder), pinned(folder)), (vec![], None));
    assert_eq!(own, train(folder, 1, &[model, CUDA, EXACT, KERNELS]));
    let asked = [model, CUDA, EXACT, CUBLASLT];
    let one = train(folder, 1, &asked);
    assert!(
        one.weights != own.weights || !is_emulated(),
        "cuBLASLt has not multiplied"
    );
    assert!(start(folder).device.contains(" cuBLASLt "));
    for (ranks, collective) in [(2, STAGED), (3, STAGED), (2, NCCL), (3, NCCL)] {
        if can_sum(ranks, collective) {
            let several = train(folder, ranks, &[&asked[..], &[collective]].concat());
            assert_eq!(one, several, "{ranks} ranks, {collective}");
        }
    }
}

#[test]
fn rounded_products_are_cublaslts_too() {
    let folder = folder();
    let folder = folder.path();
    for precision in ["tf32", "bf16", "f16"] {
        let precision = format!("train.precision={precision}");
        let rounded = [&*precision, EXACT];
        let cpu = train(folder, 1, &[&rounded[..], &["train.device=cpu"]].concat());
        let gpu = train(folder, 2, &[&rounded[..], &[CUDA, CUBLASLT]].concat());
        for (step, (expected, actual)) in cpu.losses.iter().zip(&gpu.losses).enumerate() {
            // As of own kernels: a rounding the other way, which Adam's first steps turn to whole steps.
            assert!(
                (expected - actual).abs() <= 1e-2,
                "{precision}: {actual} is not {expected} at {step}"
            );
        }
    }
}

#[test]
fn cublaslt_multiplies_on_gpus_only() {
    let folder = folder();
    let folder = folder.path();
    let session = session(folder, 1, &["train.device=cpu", CUBLASLT]);
    let error = session.train().unwrap_err().to_string();
    assert_eq!(
        error,
        "cuBLASLt multiplies on GPUs, and ranks compute on CPUs; use `--device cuda`, or `--matmul auto`"
    );
}

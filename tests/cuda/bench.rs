//! What `ringstep bench` measures on GPUs.

use std::process::Command;

use ringstep::backend::Precision;
use ringstep::backend::cuda::{Cuda, cublaslt};

use crate::precision::gpu;
use crate::twins::program;

fn output(arguments: &[&str]) -> String {
    let output = Command::new(program())
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sums_through_the_host_work_on_any_number_of_gpus() {
    let arguments = [
        "all-reduce",
        "--ranks",
        "2",
        "--collective",
        "staged",
        "--sizes",
        "4KiB,64KiB",
    ];
    let table = output(&[&arguments[..], &["--repeats", "2"]].concat());
    assert_eq!(
        table
            .lines()
            .filter(|line| line.starts_with("staged"))
            .count(),
        2,
        "{table}"
    );
}

/// The table of products in a precision, all extents divided.
fn products(precision: &str, divide: &str) -> String {
    let arguments = ["matmul", "--device", "cuda", "--seconds", "0.0001"];
    let more = ["--precision", precision, "--divide", divide];
    output(&[&arguments[..], &more].concat())
}

#[test]
fn the_peak_and_products_are_measured() {
    let table = products("f32", "256");
    assert!(table.starts_with("GPU 0: "), "{table}");
    assert!(table.contains("peak of f32 multiply-adds"), "{table}");
    assert!(table.contains("gpt down inputs"), "{table}");
    assert_eq!(
        table.contains("own/cuBLASLt"),
        cublaslt().is_ok(),
        "{table}"
    );
}

#[test]
fn tensor_cores_have_a_peak_of_their_own() {
    let table = products("bf16", "512");
    let units = gpu(Precision::Bf16).units();
    assert!(table.contains(&format!("peak of {units}")), "{table}");
    let row = |name: &str| table.lines().find(|line| line.starts_with(name));
    for name in ["square", "gpt up + bias, gelu", "mlp 1 + bias, relu"] {
        let row = row(name).unwrap();
        // Parts of the peak by own kernels and by cuBLASLt of both kinds of operands, and how they compare.
        let shares = row.matches(" %").count();
        assert_eq!(shares, if cublaslt().is_ok() { 5 } else { 1 }, "{row}");
    }
    if cublaslt().is_ok() {
        let note = "cuBLASLt of bf16 is given operands that were rounded before";
        assert!(
            table.contains("own/cuBLASLt of bf16") && table.contains(note),
            "{table}"
        );
    }
}

#[test]
fn nccl_sums_by_the_algorithm_that_is_asked_for_on_2_gpus() {
    if Cuda::count().unwrap() < 2 {
        return;
    }
    let asked = ["--ranks", "2", "--nccl-algo", "tree", "--sizes", "4KiB"];
    let all = output(&[&["all-reduce", "--repeats", "2"], &asked[..]].concat());
    let names = all.lines().skip(1).map(|line| line.split(' ').next());
    let names: Vec<_> = names.flatten().collect();
    let expected = ["direct", "ring", "hierarchical", "staged", "nccl"];
    assert_eq!(names, expected, "{all}");
}

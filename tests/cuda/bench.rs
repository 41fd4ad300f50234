//! What `ringstep bench` measures on GPUs.

use std::process::Command;

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

#[test]
fn the_peak_and_products_are_measured() {
    let table = output(&[
        "matmul",
        "--device",
        "cuda",
        "--divide",
        "256",
        "--seconds",
        "0.0001",
    ]);
    assert!(table.starts_with("GPU 0: "), "{table}");
    assert!(table.contains("gpt down inputs"), "{table}");
}

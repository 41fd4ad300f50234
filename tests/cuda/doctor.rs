//! What the program says about the GPUs it finds.

use std::process::{Command, Output};

use ringstep::backend::cuda::{Cuda, cublaslt};

use crate::twins::{cuda, program};

fn doctor(variables: &[(&str, &str)]) -> Output {
    Command::new(program())
        .arg("doctor")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_gpu_is_listed_once_it_has_run_a_kernel() {
    let output = doctor(&[]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let lines = said
        .lines()
        .filter(|line| line.starts_with("ok       GPU  "));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), Cuda::count().unwrap(), "{said}");
    let precisions = cuda().capability().precisions();
    let precisions: Vec<_> = precisions.map(|precision| precision.to_string()).collect();
    let first = format!(
        "0: {}, compute capability {}, products in {}, ",
        cuda().name(),
        cuda().capability(),
        precisions.join(", ")
    );
    assert!(lines[0].contains(&first), "{said}");
    assert!(
        lines.iter().all(|line| line.contains(", runs kernels")),
        "{said}"
    );
    let mut libraries = vec![
        "CUDA driver    CUDA 1",
        "NVRTC          CUDA 1",
        "kernel cache",
    ];
    if cublaslt().is_ok() {
        libraries.push("cuBLASLt       1");
    }
    for library in libraries {
        assert!(said.contains(library), "{library} in\n{said}");
    }
    assert!(said.ends_with("the default device is cuda\n"), "{said}");
}

#[test]
fn what_an_old_gpu_can_take_products_in_is_said_by_faults() {
    let said = said(&doctor(&[("FAKE_CUDA_CC", "7.5")]));
    assert!(
        said.contains(", compute capability 7.5, products in f32, f16, "),
        "{said}"
    );
}

#[test]
fn a_gpu_whose_kernels_fail_is_a_problem_by_faults() {
    let output = doctor(&[("FAKE_CUDA_FAIL", "launch:1"), ("FAKE_CUDA_DEVICES", "1")]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("problem  GPU            0: "), "{said}");
}

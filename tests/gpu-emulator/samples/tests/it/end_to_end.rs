//! Every sample program, in both stream modes.

use crate::emulator::{run, sample, text, without_nvrtc};

const MODES: [&str; 3] = ["eager", "deferred", "ahead"];
const WRONG: i32 = samples::WRONG_RESULT;

#[test]
fn kernels() {
    if without_nvrtc() {
        return;
    }
    for mode in MODES {
        let mut command = sample(env!("CARGO_BIN_EXE_kernels"));
        run(command.env("FAKE_CUDA_STREAMS", mode), 0);
    }
}

#[test]
fn kernels_of_training() {
    if without_nvrtc() {
        return;
    }
    for (order, timing) in [("forward", "late"), ("reverse", "early"), ("5", "late")] {
        let mut command = sample(env!("CARGO_BIN_EXE_training"));
        command.env("PTX_EMU_ORDER", order);
        run(command.env("PTX_EMU_ASYNC", timing), 0);
    }
}

#[test]
fn kernels_in_other_orders() {
    if without_nvrtc() {
        return;
    }
    for (order, timing) in [("reverse", "early"), ("3", "late"), ("4", "early")] {
        let mut command = sample(env!("CARGO_BIN_EXE_kernels"));
        run(
            command
                .env("PTX_EMU_ORDER", order)
                .env("PTX_EMU_ASYNC", timing),
            0,
        );
    }
}

#[test]
fn hopper_kernels() {
    if without_nvrtc() {
        return;
    }
    for timing in ["late", "early"] {
        let mut command = sample(env!("CARGO_BIN_EXE_hopper"));
        run(command.env("PTX_EMU_ASYNC", timing), 0);
    }
    let mut command = sample(env!("CARGO_BIN_EXE_hopper"));
    let text = run(command.env("FAKE_CUDA_CC", "8.0"), 1);
    assert!(
        text.contains("sm_90a cannot run on compute capability 8.0"),
        "{text}"
    );
}

#[test]
fn driver_features() {
    if without_nvrtc() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_driver_features");
    let cases = [
        ("basics", "FAKE_CUDA_DEVICES", "2"),
        ("out-of-memory", "FAKE_CUDA_MEMORY", "1000000"),
        ("injected-fault", "FAKE_CUDA_FAIL", "cuLaunchKernel:2"),
        ("sticky-error", "FAKE_CUDA_DEVICES", "1"),
        ("two-streams", "FAKE_CUDA_DEVICES", "1"),
    ];
    for mode in MODES {
        for (case, name, value) in cases {
            let mut command = sample(program);
            command.arg(case).env(name, value);
            run(command.env("FAKE_CUDA_STREAMS", mode), 0);
        }
    }
}

#[test]
fn deferred_streams_show_a_missing_wait() {
    if without_nvrtc() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_driver_features");
    let mut command = sample(program);
    command.arg("two-streams-missing-wait");
    run(command.env("FAKE_CUDA_STREAMS", "deferred"), WRONG);
}

#[test]
fn out_of_bounds_report_names_the_place() {
    if without_nvrtc() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_driver_features");
    let text = run(sample(program).arg("sticky-error"), 0);
    assert!(
        text.contains("0 bytes past an allocation of 400 bytes"),
        "{text}"
    );
    assert!(text.contains("train.cu:17"), "{text}");
    assert!(text.contains("thread (100,0,0)"), "{text}");
}

#[test]
fn two_ranks() {
    if without_nvrtc() {
        return;
    }
    let program = env!("CARGO_BIN_EXE_two_ranks");
    for mode in MODES {
        for kind in ["threads", "processes"] {
            let mut command = sample(program);
            command.arg(kind).env("FAKE_CUDA_DEVICES", "2");
            run(command.env("FAKE_CUDA_STREAMS", mode), 0);
        }
    }
    let mut command = sample(program);
    command
        .args(["threads", "missing-event"])
        .env("FAKE_CUDA_DEVICES", "2");
    run(command.env("FAKE_CUDA_STREAMS", "ahead"), WRONG);
}

#[test]
fn a_rank_that_dies_is_named() {
    if without_nvrtc() {
        return;
    }
    let mut command = sample(env!("CARGO_BIN_EXE_two_ranks"));
    command
        .arg("processes")
        .env("FAKE_CUDA_DEVICES", "2")
        .env("FAKE_NCCL_FAIL", "1:3:die");
    // Rank 0 ends with a wrong result or with an error of NCCL, depending on when it notices.
    let output = command.output().expect("the sample starts");
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(
        text.contains("rank 1") && text.contains("its process has ended"),
        "{text}"
    );
}

fn nccl_case(case: &str, mode: &str, extra: &[(&str, &str)]) -> String {
    let mut command = sample(env!("CARGO_BIN_EXE_nccl_cases"));
    command.arg(case).env("FAKE_CUDA_DEVICES", "2");
    command
        .env("FAKE_CUDA_STREAMS", mode)
        .envs(extra.iter().copied());
    run(&mut command, 0)
}

#[test]
fn nccl_operations() {
    for mode in MODES {
        nccl_case("collectives", mode, &[]);
        nccl_case("one-thread", mode, &[]);
        nccl_case("split", mode, &[]);
    }
}

#[test]
fn collectives_inside_graphs() {
    if without_nvrtc() {
        return;
    }
    for mode in MODES {
        nccl_case("graph", mode, &[]);
    }
}

#[test]
fn nccl_mistakes() {
    for mode in MODES {
        let text = nccl_case("mismatch", mode, &[]);
        assert!(text.contains("rank 0 called AllReduce(count 64, F32, Sum), but rank 1 called AllReduce(count 128, F32, Sum)"), "{text}");
        let text = nccl_case("same-device", mode, &[]);
        assert!(
            text.contains("rank 0 and rank 1 are both on device 0"),
            "{text}"
        );
        nccl_case("abort", mode, &[("FAKE_NCCL_FAIL", "1:1:stall")]);
        let extra = [
            ("FAKE_NCCL_FAIL", "1:1:stall"),
            ("FAKE_NCCL_TIMEOUT_S", "1"),
        ];
        let text = nccl_case("missing-rank", mode, &extra);
        assert!(
            text.contains("for rank 1 (which has entered 0 collectives)"),
            "{text}"
        );
    }
}

#[test]
fn the_guard_refuses_the_emulator() {
    let mut command = sample(env!("CARGO_BIN_EXE_driver_features"));
    command.arg("out-of-memory").env("REQUIRE_REAL_GPU", "1");
    let text = run(&mut command, 1);
    assert!(text.contains("REQUIRE_REAL_GPU is set"), "{text}");
}

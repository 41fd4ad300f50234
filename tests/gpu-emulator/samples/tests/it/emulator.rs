//! Runs sample programs on the emulator as `scripts/gpu-emulator.sh` installs it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// What a tester sets when NVRTC cannot be had: tests that need it then pass without running.
const WITHOUT_NVRTC: &str = "GPU_EMULATOR_WITHOUT_NVRTC";

/// The value of `LD_LIBRARY_PATH` that finds the emulator and NVRTC.
fn library_path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../scripts/gpu-emulator.sh"
        );
        let output = Command::new("bash").arg(script).output();
        let output = output.expect("bash runs scripts/gpu-emulator.sh");
        assert!(
            output.status.success(),
            "{}\nwithout NVRTC, {WITHOUT_NVRTC}=1 skips the tests that need it",
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

/// Whether the tester has said that NVRTC is missing.
pub(crate) fn without_nvrtc() -> bool {
    let without = std::env::var(WITHOUT_NVRTC).is_ok_and(|value| value == "1");
    if without {
        eprintln!("SKIPPED: {WITHOUT_NVRTC} is set");
    }
    without
}

/// A sample program on the emulator, with a clean environment.
pub(crate) fn sample(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    let ours = ["FAKE_", "PTX_EMU_", "NCCL_", "CUDA_VISIBLE", "REQUIRE_REAL"];
    for (name, _) in std::env::vars() {
        if ours.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("LD_LIBRARY_PATH", library_path());
    command
}

/// All that a program printed.
pub(crate) fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    format!("{out}{err}")
}

/// Runs to the end and checks the exit code; returns what it printed.
pub(crate) fn run(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("the sample starts");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    text
}

//! What the program says about the machine it is on, which may have GPUs or not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `ringstep doctor` without what a launcher leaves, but with these variables.
fn doctor(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringstep"));
    for (name, _) in std::env::vars() {
        if ["OMPI", "PMI", "SLURM", "MV2", "RANK", "WORLD"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            command.env_remove(name);
        }
    }
    command
        .arg("doctor")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_machine_that_can_train_is_described_and_the_command_succeeds() {
    // Hides GPUs where there are any.
    let output = doctor(&[], &[("CUDA_VISIBLE_DEVICES", "")]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let line = |what: &str| {
        let found = said.lines().find(|line| line[9..].starts_with(what));
        found
            .unwrap_or_else(|| panic!("no {what} in\n{said}"))
            .to_owned()
    };
    let processors = std::thread::available_parallelism().unwrap();
    assert!(
        line("CPU").contains(&format!(" {processors} processors, ")),
        "{said}"
    );
    assert!(line("memory").contains(" GiB available"), "{said}");
    for what in [
        "shared memory",
        "MPI",
        "launcher",
        "CUDA driver",
        "NVRTC",
        "NCCL",
        "kernel cache",
    ] {
        line(what);
    }
    assert!(!said.contains("problem"), "{said}");
    assert!(
        said.ends_with("training is possible; the default device is cpu\n"),
        "{said}"
    );
    let quiet = doctor(&["--quiet"], &[("CUDA_VISIBLE_DEVICES", "")]);
    assert!(quiet.status.success());
    assert_eq!(text(&quiet.stdout), "");
}

/// Files that are no libraries, to stand before those of a machine that has them.
fn no_libraries() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for library in ["cuda", "nvrtc"] {
        for end in ["", ".1", ".10", ".11", ".12", ".13"] {
            fs::write(folder.path().join(format!("lib{library}.so{end}")), "").unwrap();
        }
    }
    folder
}

#[test]
fn training_on_a_gpu_says_what_is_missing_and_else_takes_the_cpu() {
    let (libraries, folder) = (no_libraries(), tempfile::tempdir().unwrap());
    let run_file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits/run.toml");
    let train = |device: &str| {
        Command::new(env!("CARGO_BIN_EXE_ringstep"))
            .args(["train", "--ranks", "1", "--set", "train.epochs=1"])
            .args(["--device", device, "--run-dir"])
            .arg(folder.path().join(device))
            .arg(&run_file)
            .env("LD_LIBRARY_PATH", libraries.path())
            .output()
            .unwrap()
    };
    let output = train("cuda");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no CUDA driver: "), "{said}");
    assert!(said.contains("`--device cpu`"), "{said}");
    assert!(!folder.path().join("cuda").exists());
    let output = train("auto");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn what_is_missing_for_gpus_is_noted_where_the_cpu_trains() {
    let folder = no_libraries();
    let output = doctor(
        &[],
        &[
            ("LD_LIBRARY_PATH", folder.path().to_str().unwrap()),
            ("VIRTUAL_ENV", "/nowhere"),
            ("CONDA_PREFIX", "/nowhere"),
        ],
    );
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    for note in [
        "note     CUDA driver    no CUDA driver: ",
        "note     NVRTC          NVRTC was not found; ",
    ] {
        assert!(said.lines().any(|line| line.starts_with(note)), "{said}");
    }
    assert!(said.ends_with("the default device is cpu\n"), "{said}");
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_launcher_that_training_would_refuse_is_a_problem() {
    let variables = [("CUDA_VISIBLE_DEVICES", ""), ("OMPI_COMM_WORLD_SIZE", "4")];
    let output = doctor(&["--quiet"], &variables);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("problem  launcher       started as one of 4 ranks"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(text(&output.stderr).contains("training on the default device (cpu)"));
}

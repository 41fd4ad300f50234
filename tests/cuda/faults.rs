//! How a run ends when something fails on a GPU: which rank, GPU and step it names, how soon every rank
//! stops, and that the run goes on from its last checkpoint. The failures are the emulator's.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::time::{Duration, Instant};

use ringstep::checkpoint::Checkpoint;

use crate::training::{NCCL, folder, session};
use crate::twins::{alone, program};

/// Longest that ranks may take to stop, on a machine that is busy.
const SOON: Duration = Duration::from_secs(20);

/// How many ranks sum by what.
const WORLDS: [(usize, &str); 3] = [(1, "staged"), (2, "staged"), (2, "nccl")];

/// Twenty steps with a checkpoint every five, of ranks that are threads.
struct Run {
    folder: tempfile::TempDir,
    ranks: usize,
    collective: &'static str,
}

impl Run {
    fn new((ranks, collective): (usize, &'static str)) -> Self {
        let run = Self {
            folder: folder(),
            ranks,
            collective,
        };
        // Compiles the kernels, once: nothing that is timed shall wait for that.
        static COMPILED: Once = Once::new();
        COMPILED.call_once(|| {
            let output = run.train(&[], &[]);
            assert!(output.status.success(), "{output:?}");
            std::fs::remove_dir_all(run.path()).unwrap();
        });
        run
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn command(&self, options: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program());
        command
            .arg("train")
            .arg(self.folder.path().join("run.toml"))
            .args([
                "--quiet",
                "--device",
                "cuda",
                "--set",
                "train.checkpoint_every=5",
            ])
            .args(["--ranks", &self.ranks.to_string()])
            .args(["--collective", self.collective])
            .arg("--run-dir")
            .arg(self.path())
            .args(options)
            .envs(variables.iter().copied());
        command
    }

    fn train(&self, options: &[&str], variables: &[(&str, &str)]) -> Output {
        self.command(options, variables).output().unwrap()
    }

    /// What is said by a run that fails, and soon.
    #[track_caller]
    fn error(&self, options: &[&str], variables: &[(&str, &str)]) -> String {
        let start = Instant::now();
        let said = failed(&self.train(options, variables));
        assert!(start.elapsed() < SOON, "{:?}: {said}", start.elapsed());
        said
    }

    /// The number of the rank that an error names, which is that of its GPU.
    #[track_caller]
    fn rank_of(&self, said: &str) -> usize {
        let named = |rank: &usize| said.contains(&format!("error: rank {rank}"));
        let rank = (0..self.ranks).find(named);
        let rank = rank.unwrap_or_else(|| panic!("no rank is named: {said}"));
        assert!(said.contains(&format!(" GPU {rank}: ")), "{said}");
        rank
    }

    fn weights(&self) -> String {
        let newest = Checkpoint::newest(&self.path().join("checkpoints")).unwrap();
        let checkpoint = newest.checkpoint.unwrap();
        let weights = &checkpoint.manifest().files["model.safetensors"];
        weights.sha256.clone()
    }

    /// The functions of the driver that a run calls which nothing disturbs, as often as it does.
    fn calls(&self, options: &[&str]) -> Vec<String> {
        let options = [options, &["--overwrite"]].concat();
        let output = self.train(&options, &[("FAKE_CUDA_TRACE", "1")]);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let name = |line: &str| {
            let (name, _) = line.strip_prefix("fake-cuda: ")?.split_once(" -> ")?;
            Some(name.trim_end_matches("_v2").to_owned())
        };
        said.lines().filter_map(name).collect()
    }
}

/// What a run said that has failed in order: an error and its exit code, not a signal.
#[track_caller]
fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let errors = said.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{said}");
    said
}

/// What stands between two texts.
#[track_caller]
fn between<'a>(said: &'a str, before: &str, after: &str) -> &'a str {
    let rest = said.split_once(before).map(|(_, rest)| rest);
    let found = rest.and_then(|rest| rest.split_once(after));
    found
        .unwrap_or_else(|| panic!("'{before}' and '{after}' in {said}"))
        .0
}

#[test]
fn memory_that_ends_is_named_with_what_it_was_for_by_faults() {
    for world in WORLDS {
        let run = Run::new(world);
        // Behind what kernels use between launches, less and less of what training needs fits. All of it
        // is allocated before there is a run folder.
        let mut named = BTreeSet::new();
        for bytes in (0..).step_by(2 << 10) {
            let memory = ((32 << 20) + bytes).to_string();
            let output = run.train(&[], &[("FAKE_CUDA_MEMORY", &memory)]);
            if run.path().exists() {
                assert!(output.status.success(), "{output:?}");
                break;
            }
            let said = failed(&output);
            run.rank_of(&said);
            named.insert(between(&said, "no memory for ", " on GPU").to_owned());
            let number = |before, after| between(&said, before, after).parse::<usize>().unwrap();
            let (asked, free) = (number("GPU 0: ", " bytes asked"), number("asked, ", " of "));
            assert!(asked > free, "{said}");
            assert!(said.contains(&format!(" of {memory} free; ")), "{said}");
        }
        for arena in ["activations", "parameters", "gradients", "optimizer state"] {
            assert!(named.contains(arena), "{world:?}: {arena} in {named:?}");
        }
        assert!(!named.contains("a region"), "{world:?}: {named:?}");
    }
}

#[test]
fn kernels_and_devices_that_fail_stop_all_ranks_and_the_run_goes_on_by_faults() {
    for world in WORLDS {
        let run = Run::new(world);
        // What is launched by itself has a name, what is launched together has not.
        for (call, error, graphs) in [
            ("cuLaunchKernel", "LAUNCH_FAILED", "train.graphs=false"),
            ("cuGraphLaunch", "LAUNCH_FAILED", "train.graphs=true"),
            (
                "cuStreamSynchronize",
                "ILLEGAL_ADDRESS",
                "train.graphs=true",
            ),
            (
                "cuMemcpyHtoDAsync",
                "ECC_UNCORRECTABLE",
                "train.graphs=true",
            ),
        ] {
            let options = ["--set", graphs];
            let calls = run.calls(&options);
            let calls = calls.iter().filter(|name| *name == call).count();
            let undisturbed = run.weights();
            std::fs::remove_dir_all(run.path()).unwrap();
            // Behind the first checkpoint: the first step calls more than the others.
            let fault = format!("{call}:{}:{error}", calls * 9 / 10);
            let said = run.error(&options, &[("FAKE_CUDA_FAIL", &fault)]);
            let rank = run.rank_of(&said);
            let place = format!("error: rank {rank}, after step ");
            let (step, operation) = said.split_once(&place).unwrap().1.split_once(": ").unwrap();
            assert!((5..=20).contains(&step.parse::<u64>().unwrap()), "{said}");
            let expected = format!(" failed on GPU {rank}: CUDA_ERROR_{error}: ");
            let operation = between(operation, "", &expected);
            let is_kernel = !operation.starts_with("cu");
            assert_eq!(is_kernel, call == "cuLaunchKernel", "{said}");

            let resumed = run.train(&["--resume", "--set", graphs], &[]);
            assert!(resumed.status.success(), "{resumed:?}");
            let said = String::from_utf8_lossy(&resumed.stdout);
            assert!(said.contains(", from "), "{said}");
            assert_eq!(run.weights(), undisturbed, "{world:?}, {fault}");
        }
    }
}

#[test]
fn kernels_that_cannot_be_loaded_are_named_by_faults() {
    for world in WORLDS {
        let run = Run::new(world);
        let said = run.error(&[], &[("FAKE_CUDA_FAIL", "load:4:UNKNOWN")]);
        let rank = run.rank_of(&said);
        let expected = format!(".cu for GPU {rank}: the driver does not take what NVRTC ");
        assert!(
            said.contains("cannot build ") && said.contains(&expected),
            "{said}"
        );
        let resumed = run.train(&["--resume"], &[]);
        assert!(resumed.status.success(), "{resumed:?}");
    }
}

#[test]
fn a_compiler_that_does_not_fit_the_gpu_or_the_driver_is_named_by_faults() {
    let run = Run::new((2, "staged"));
    let said = run.error(&[], &[("FAKE_CUDA_CC", "6.1")]);
    for part in [
        "libnvrtc.so",
        " and above, and the GPU has 6.1; install an older one in its place (`pip install ",
        "; or use `--device cpu`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!run.path().exists());

    // A precision that such a GPU does not take is the first thing that is wrong.
    let said = run.error(&["--precision", "f16"], &[("FAKE_CUDA_CC", "6.1")]);
    let expected = "GPU 0 has compute capability 6.1; products of f16 need 7.5; use a newer GPU, or \
                    `--precision f32`";
    assert!(said.contains(expected) && !said.contains("NVRTC"), "{said}");

    let said = run.error(&[], &[("FAKE_CUDA_VERSION", "12.1")]);
    let rank = run.rank_of(&said);
    let expected = format!(".cu for GPU {rank}: NVRTC ");
    for part in [
        &*expected,
        "libnvrtc.so",
        " makes code that the driver, which is of CUDA 12.1, does not take: \
         CUDA_ERROR_UNSUPPORTED_PTX_VERSION: ",
        "; install a newer driver, or an NVRTC that is not newer in its place (`pip install \
         'nvidia-cuda-nvrtc-cu12==12.1.*'`)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }

    let said = run.error(&[], &[("FAKE_CUDA_VERSION", "11.8")]);
    let expected = "the CUDA driver is of CUDA 11.8; ringstep needs one of 12.0 or later; install \
                    NVIDIA's driver 525 or later, or use `--device cpu`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_gpu_that_is_newer_than_the_compiler_is_given_portable_code_by_faults() {
    let output = Command::new(program())
        .arg("doctor")
        .env("FAKE_CUDA_CC", "9.9")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("compute capability 9.9, "), "{said}");
    assert!(said.contains(", runs kernels"), "{said}");
}

#[test]
fn nccl_that_is_missing_is_named_or_replaced_by_faults() {
    let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap();
    let file = |name: &str| {
        let mut files = std::env::split_paths(&paths).map(|folder| folder.join(name));
        files.find(|file| file.exists()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let driver = folder.path().join("libcuda.so.1");
    symlink(file("libcuda.so.1"), driver).unwrap();
    let compiler = file("libnvrtc.so.13");
    let compiler = compiler.parent().map(Path::to_owned).unwrap();
    let without = std::env::join_paths([folder.path(), &compiler]).unwrap();
    let train = |collective| {
        let run = Run::new((2, collective));
        let mut command = run.command(&[], &[]);
        command.env("LD_LIBRARY_PATH", &without);
        for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
            command.env_remove(environment);
        }
        (command.output().unwrap(), run.path().exists())
    };
    let (output, began) = train("nccl");
    let said = failed(&output);
    assert!(!began);
    for part in [
        "NCCL was not found: libnccl.so.2: ",
        "pip install nvidia-nccl-cu13",
        "`--collective staged`",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (output, began) = train("auto");
    assert!(output.status.success() && began, "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("sums go through the host: NCCL was not found: "),
        "{said}"
    );
}

#[test]
fn collectives_that_fail_or_never_end_stop_all_ranks_by_faults() {
    let run = Run::new((3, "nccl"));
    let said = run.error(&[], &[("FAKE_NCCL_FAIL", "1:12:error")]);
    assert!(
        said.contains("error: all-reduce failed on rank 1: NCCL "),
        "{said}"
    );
    let resumed = run.train(&["--resume"], &[]);
    assert!(resumed.status.success(), "{resumed:?}");

    let output = alone("faults::stalled", &[("FAKE_NCCL_FAIL", "1:12:stall")]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "a process that another test starts"]
fn stalled() {
    let folder = folder();
    let mut session = session(folder.path(), 3, &["train.device=cuda", NCCL]);
    session.comm.patience = Duration::from_secs(1);
    let start = Instant::now();
    let error = session.train().unwrap_err().to_string();
    assert!(error.starts_with("all-reduce failed on rank "), "{error}");
    let expected = "every rank has begun it, but it is not over after 1s";
    assert!(error.contains(expected), "{error}");
    assert!(start.elapsed() < SOON);
}

#[test]
fn steps_of_a_known_shape_make_nothing_anew_by_faults() {
    // One rank: where sums of several are late, a step's kernels go in other lists, each a graph.
    let run = Run::new((1, "staged"));
    let made = |steps: u32| {
        let steps = format!("train.steps={steps}");
        let calls = run.calls(&["--set", &steps, "--set", "train.checkpoint_every=0"]);
        let is_made = |name: &&String| {
            ["Alloc", "Free", "ModuleLoad", "Instantiate", "Create"]
                .iter()
                .any(|what| name.contains(what))
        };
        calls.iter().filter(is_made).count()
    };
    let few = made(12);
    assert!(few > 0);
    assert_eq!(made(24), few);
}

#[test]
fn a_step_waits_once_for_the_device_by_faults() {
    // With moving statistics, whose magnitudes are looked at too; and rules whose norms are of tensors.
    let layers = r#"model.layers=["flatten",{kind="dense",units=8},"batch_normalization",{kind="dense",units=3}]"#;
    let waits = |run: &Run, steps: u32, more: &[&str]| {
        let steps = format!("train.steps={steps}");
        let options = [
            "--set",
            &steps,
            "--set",
            layers,
            "--set",
            "train.checkpoint_every=0",
        ];
        let calls = run.calls(&[&options[..], more].concat());
        let waits = |name: &&String| {
            let is_copy = name.starts_with("cuMemcpy") && !name.ends_with("Async");
            is_copy || ["cuStreamSynchronize", "cuCtxSynchronize"].contains(&name.as_str())
        };
        calls.iter().filter(waits).count()
    };
    let of_4_more = |run: &Run, more: &[&str]| waits(run, 8, more) - waits(run, 4, more);
    let run = Run::new((1, "staged"));
    let values = ["--set", "train.clip={value=1.0}"];
    let with = |more: &'static str| [&values[..], &["--set", more]].concat();
    for (more, expected) in [
        (values.to_vec(), 1),
        (with("train.optimizer={kind=\"lamb\"}"), 1),
        (with("train.precision=f16"), 1),
        // The norm decides how gradients are scaled.
        (vec!["--set", "train.clip={global_norm=1.0}"], 2),
    ] {
        assert_eq!(of_4_more(&run, &more), 4 * expected, "{more:?}");
    }
    // Both norms of LAMB, of which each rank has its shard's, take one wait more.
    let run = Run::new((2, "nccl"));
    let with = |optimizer: &'static str| {
        let set = [&values[..], &["--zero", "1", "--set", optimizer]].concat();
        of_4_more(&run, &set)
    };
    let (adam, lamb) = (
        with("train.optimizer={kind=\"adam\"}"),
        with("train.optimizer={kind=\"lamb\"}"),
    );
    assert_eq!(lamb, adam + 4 * 2, "{adam}");
}

#[test]
fn damaged_kernels_are_compiled_again_by_faults() {
    let run = Run::new((1, "staged"));
    let cache = tempfile::tempdir().unwrap();
    let variables = [("XDG_CACHE_HOME", cache.path().to_str().unwrap())];
    let first = run.train(&[], &variables);
    assert!(first.status.success(), "{first:?}");
    let weights = run.weights();
    let kernels = cache.path().join("ringstep/kernels");
    let files = || -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(&kernels).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let whole: Vec<_> = files()
        .into_iter()
        .map(|path| (std::fs::read(&path).unwrap(), path))
        .collect();
    assert!(!whole.is_empty());
    for (bytes, path) in &whole {
        let mut bytes = bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let second = run.train(&["--overwrite"], &variables);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success(), "{said}");
    assert!(said.contains("is damaged; it is built again"), "{said}");
    assert_eq!(run.weights(), weights);
    for (bytes, path) in &whole {
        assert_eq!(std::fs::read(path).unwrap(), *bytes, "{}", path.display());
    }
}

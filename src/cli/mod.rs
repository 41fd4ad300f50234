//! The command line: one file per command, each from what was typed to what is printed.

pub mod bench;
mod doctor;
mod evaluate;
mod export;
mod inspect;
mod outputs;
mod predict;
mod predictions;
mod table;
mod train;

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::fmt::time::uptime;

use self::bench::BenchCommand;
use crate::backend::{DeviceChoice, MatmulChoice, Precision};
use crate::comm::nccl::NcclAlgorithm;
use crate::comm::{CollectiveChoice, launcher};
use crate::config::{CustomModels, ExportFormat, Override};
use crate::train::{Bits, Console, Existing};

/// Whatever ended a command.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Data-parallel training in which the number of ranks does not change the result.
#[derive(Debug, Parser)]
#[command(
    name = "ringstep",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Debug, Args)]
struct Verbosity {
    /// Says more; twice says when each step begins, when its backward is over, and when each collective begins and ends
    /// (NCCL's, when one is queued, and is over).
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Says nothing but results, warnings and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trains what a run file describes.
    Train(TrainArguments),
    /// Computes loss and metrics of a trained model on the test data of its run.
    Evaluate(EvaluateArguments),
    /// Applies a trained model to the rows of a file.
    Predict(PredictArguments),
    /// Writes a trained model to a file for other programs.
    Export(ExportArguments),
    /// Shows layers, shapes, parameters, checkpoints and metrics of a run.
    Inspect(InspectArguments),
    /// Says what this machine has for training and where it was found, and what to do about what is
    /// missing; fails where ranks cannot train on the default device. With -q only problems.
    Doctor,
    /// Measures sums over ranks, matrix products, or steps on large tables.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// `ringstep train`
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// The run file: what to learn from, what learns, and how. Or a run's folder, for its own.
    pub run_file: PathBuf,
    /// Number of ranks, as threads of this process; sets train.ranks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: Option<u32>,
    /// Where the run's folder is made [default: runs/NAME].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Goes on from the newest whole checkpoint in the run's folder, on any number of ranks.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// With --resume: trains so many steps more than the run has taken, whatever train.steps or
    /// train.epochs say in the run file.
    #[arg(long, value_name = "N", requires = "resume", value_parser = clap::value_parser!(u64).range(1..))]
    pub more_steps: Option<u64>,
    /// With --resume: goes on although this machine's arithmetic, values in the data (as many rows
    /// still), train.reduce, train.precision or train.matmul are not what they were, so that the result
    /// has other bits than without the break.
    #[arg(long, requires = "resume")]
    pub allow_different_bits: bool,
    /// Starts anew where the folder holds a run already; its checkpoints are lost.
    #[arg(long)]
    pub overwrite: bool,
    /// Sets a key of the run file: train.steps=500. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<String>,
    /// What operands of products are rounded to: f32, tf32, bf16 or f16; sets train.precision.
    #[arg(long, value_name = "NAME")]
    pub precision: Option<Precision>,
    /// What multiplies matrices on GPUs: auto, kernels or cublaslt; sets train.matmul.
    #[arg(long, value_name = "NAME")]
    pub matmul: Option<MatmulChoice>,
    /// Size of a bucket of gradients in MiB; sets train.bucket_mib.
    #[arg(long, value_name = "MIB")]
    pub bucket_mib: Option<f64>,
    /// Where each rank computes: auto, cpu, cuda or cuda:N for the GPU with that number; sets
    /// train.device.
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceChoice>,
    /// What sums over ranks: auto, ring, direct or hierarchical, between GPUs also staged or nccl; sets
    /// train.collective.
    #[arg(long, value_name = "NAME")]
    pub collective: Option<CollectiveChoice>,
    /// Which algorithm NCCL is asked for: auto, ring, tree or nvls; sets train.nccl_algo.
    #[arg(long, value_name = "NAME")]
    pub nccl_algo: Option<NcclAlgorithm>,
    /// 1 shards the optimizer's state over the ranks (ZeRO-1); sets train.zero.
    #[arg(long, value_name = "0|1", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub zero: Option<u8>,
}

impl TrainArguments {
    /// What the flags set in the run file: `--set` first, so that a flag of its own wins.
    pub fn overrides(&self) -> Vec<Override> {
        let set = self.set.iter().map(|assignment| Override::set(assignment));
        let flag = |(key, value): (&str, String)| {
            let shown = format!("--{} {value}", key.replace('_', "-"));
            Override::flag(&shown, &format!("train.{key}={value}"))
        };
        set.chain(self.flags().map(flag)).collect()
    }

    /// The same, each as `--set` would be given it.
    fn assignments(&self) -> Vec<String> {
        let flags = self.flags();
        let flags = flags.map(|(key, value)| format!("train.{key}={value}"));
        self.set.iter().cloned().chain(flags).collect()
    }

    /// Flags that stand for a key of `[train]`, with their values.
    fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("ranks", self.ranks.map(|ranks| ranks.to_string())),
            ("device", self.device.map(|device| device.to_string())),
            ("precision", self.precision.map(|name| name.to_string())),
            ("matmul", self.matmul.map(|choice| choice.to_string())),
            (
                "bucket_mib",
                self.bucket_mib.map(|size| format!("{size:?}")),
            ),
            (
                "collective",
                self.collective.map(|choice| choice.to_string()),
            ),
            ("nccl_algo", self.nccl_algo.map(|choice| choice.to_string())),
            ("zero", self.zero.map(|level| level.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }

    /// Whether a resumed run may end with other bits.
    pub fn bits(&self) -> Bits {
        match self.allow_different_bits {
            true => Bits::MayDiffer,
            false => Bits::Same,
        }
    }

    /// What becomes of a run that is in the way.
    pub fn existing(&self) -> Existing {
        if self.overwrite {
            Existing::Replace
        } else {
            Existing::Keep
        }
    }
}

/// `ringstep evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArguments {
    /// The run's folder.
    pub run: PathBuf,
    /// Which checkpoint, such as step-120 [default: the newest whole one].
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<String>,
    /// Number of ranks that share the work [default: 1]; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: Option<u32>,
    /// The metrics as a JSON object, instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `ringstep predict`
#[derive(Debug, Args)]
pub struct PredictArguments {
    /// The run's folder.
    pub run: PathBuf,
    /// Rows as the training data has them, in any format; labels are not needed. - is the standard input, in
    /// the run's own format.
    #[arg(long, value_name = "PATH")]
    pub input: PathBuf,
    /// Where the predictions go; - is the standard output, the default.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also writes the rows as an exported model takes them: a numpy array of f32, [rows, inputs]; - is
    /// the standard output.
    #[arg(long, value_name = "FILE")]
    pub encoded: Option<PathBuf>,
    /// A JSON object for each row, under TensorFlow's names, instead of CSV.
    #[arg(long)]
    pub json: bool,
    /// Which checkpoint, such as step-120 [default: the newest whole one].
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<String>,
}

/// `ringstep export`
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// The run's folder.
    pub run: PathBuf,
    /// What is written: onnx, the model with its weights, or safetensors, the weights by name.
    #[arg(long, value_name = "NAME")]
    pub format: ExportFormat,
    /// Where it goes, - being the standard output [default: model.onnx or model.safetensors in the run's
    /// folder].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Which checkpoint, such as step-120 [default: the newest whole one].
    #[arg(long, value_name = "STEP")]
    pub checkpoint: Option<String>,
}

/// `ringstep inspect`
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// The run's folder.
    pub run: PathBuf,
}

/// The whole program: parses what was typed, runs it, and turns an error into an exit code.
///
/// With `models` of its own, a program is a `main` of a line and trains, evaluates, predicts,
/// exports and inspects what they build, under every option that `ringstep` has:
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use ringstep::config::CustomModels;
///
/// fn main() -> ExitCode {
///     // `.with::<MyModel>()` for each type that implements `models::CustomModel`
///     ringstep::cli::main(&CustomModels::new())
/// }
/// ```
pub fn main(models: &CustomModels) -> ExitCode {
    match run(&Arguments::parse(), models) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report(&*failure);
            ExitCode::FAILURE
        }
    }
}

/// Runs the command that was typed; run files may name `models`.
///
/// # Errors
/// Whatever ended it.
pub fn run(arguments: &Arguments, models: &CustomModels) -> Result<(), Failure> {
    let console = start_log(&arguments.verbosity);
    if !matches!(
        arguments.command,
        Command::Train(_) | Command::Doctor | Command::Bench(BenchCommand::AllReduce(_))
    ) && let Some(launcher) = launcher::here()
    {
        launcher.refuse_copies()?;
    }
    match &arguments.command {
        Command::Train(arguments) => train::run(arguments, models, &console),
        Command::Evaluate(arguments) => evaluate::run(arguments, models),
        Command::Predict(arguments) => predict::run(arguments, models),
        Command::Export(arguments) => export::run(arguments, models),
        Command::Inspect(arguments) => inspect::run(arguments, models),
        Command::Doctor => doctor::run(console.is_quiet()),
        Command::Bench(command) => bench::run(command),
    }
}

/// Writes the result of a command to its output. Whoever closed that early, as `head` does, has read
/// enough.
fn show(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to the standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Prints an error with its causes to the standard error stream. Where that is full or closed the exit
/// code is all that can be told.
fn report(failure: &(dyn Error + 'static)) {
    let _ = io::stderr().write_all(describe(failure).as_bytes());
}

/// `error: ...` and a line for each cause that says something new.
fn describe(failure: &(dyn Error + 'static)) -> String {
    let mut said = failure.to_string();
    let mut text = format!("error: {said}\n");
    let mut cause = failure.source();
    while let Some(error) = cause {
        let says = error.to_string();
        if !said.contains(&says) {
            text.push_str(&format!("  caused by: {says}\n"));
            said = says;
        }
        cause = error.source();
    }
    text
}

/// Sends messages to the standard error stream, past a progress bar that may be drawn there.
fn start_log(verbosity: &Verbosity) -> Console {
    let console = if verbosity.quiet {
        Console::quiet()
    } else {
        Console::detect()
    };
    let level = match verbosity {
        Verbosity { quiet: true, .. } => Level::WARN,
        Verbosity { verbose: 0, .. } => Level::INFO,
        Verbosity { verbose: 1, .. } => Level::DEBUG,
        Verbosity { .. } => Level::TRACE,
    };
    let writer = console.clone();
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        // A log that cannot be written is no reason to stop.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(move || writer.clone());
    // Only tests start twice in one process; the first log serves them.
    let _ = match level {
        Level::TRACE => log.with_timer(uptime()).with_thread_names(true).try_init(),
        _ => log.without_time().try_init(),
    };
    console
}

/// Checks that `--set` was given an assignment.
fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE, such as train.steps=500".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    fn parse_train(line: &str) -> TrainArguments {
        match parse(line).unwrap().command {
            Command::Train(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definitions_fit_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_become_overrides_behind_those_of_set() {
        let arguments = parse_train(
            "ringstep train run.toml --ranks 4 --set train.ranks=2 --set model.layers.1.units=64 \
             --device cuda:1 --precision bf16 --matmul cublaslt --bucket-mib 1 --collective ring --zero 1 --overwrite -q",
        );
        let expected = [
            Override::set("train.ranks=2"),
            Override::set("model.layers.1.units=64"),
            Override::flag("--ranks 4", "train.ranks=4"),
            Override::flag("--device cuda:1", "train.device=cuda:1"),
            Override::flag("--precision bf16", "train.precision=bf16"),
            Override::flag("--matmul cublaslt", "train.matmul=cublaslt"),
            Override::flag("--bucket-mib 1.0", "train.bucket_mib=1.0"),
            Override::flag("--collective ring", "train.collective=ring"),
            Override::flag("--zero 1", "train.zero=1"),
        ];
        assert_eq!(arguments.overrides(), expected);
        assert_eq!(arguments.existing(), Existing::Replace);
        assert_eq!(parse_train("ringstep train run.toml").overrides(), []);
    }

    #[test]
    fn senseless_arguments_are_usage_errors_that_say_what_would_do() {
        for (line, says) in [
            ("ringstep train run.toml --ranks 0", "0 is not in 1.."),
            ("ringstep train run.toml --zero 2", "2 is not in 0..=1"),
            (
                "ringstep train run.toml --resume --overwrite",
                "cannot be used with",
            ),
            (
                "ringstep train run.toml --allow-different-bits",
                "required arguments were not provided:\n  --resume",
            ),
            ("ringstep train run.toml --set steps", "expected KEY=VALUE"),
            (
                "ringstep train run.toml --device gpu",
                "unknown device 'gpu': choose auto, cpu, cuda or cuda:N",
            ),
            (
                "ringstep train run.toml --precision fp16",
                "unknown precision 'fp16': choose one of f32, tf32, bf16, f16",
            ),
            (
                "ringstep train run.toml --matmul cublas",
                "unknown matmul 'cublas': choose one of auto, kernels, cublaslt",
            ),
            (
                "ringstep train run.toml --collective rings",
                "choose one of auto, ring",
            ),
            ("ringstep predict runs/a", "--input"),
            ("ringstep train run.toml -v -q", "cannot be used with"),
            (
                "ringstep trian run.toml",
                "similar subcommand exists: 'train'",
            ),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(says), "{line}: {error}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Layered {
        says: &'static str,
        source: Option<Box<Layered>>,
    }

    #[test]
    fn causes_are_printed_once() {
        let chain = |says: &[&'static str]| {
            let mut error = None;
            for says in says.iter().rev() {
                error = Some(Box::new(Layered {
                    says,
                    source: error,
                }));
            }
            describe(&error.unwrap())
        };
        assert_eq!(chain(&["it failed"]), "error: it failed\n");
        assert_eq!(
            chain(&["cannot write a: disk full", "disk full", "device 7"]),
            "error: cannot write a: disk full\n  caused by: device 7\n"
        );
    }
}

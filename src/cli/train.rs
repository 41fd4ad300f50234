//! `ringstep train`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Failure, TrainArguments};
use crate::comm::{Options, launcher};
use crate::config::{CustomModels, RunConfig};
use crate::train::{Begin, Console, Outcome, Ranks, Session};

/// Trains what the run file describes.
pub(super) fn run(
    arguments: &TrainArguments,
    models: &CustomModels,
    console: &Console,
) -> Result<(), Failure> {
    let overrides = arguments.overrides();
    let config = RunConfig::load_with(&arguments.run_file, &overrides, models)?;
    let folder = match &arguments.run_dir {
        Some(folder) => folder.clone(),
        None => PathBuf::from("runs").join(&config.name),
    };
    let session = Session {
        ranks: ranks(&config)?,
        comm: Options::default().with_collective(config.train.collective),
        begin: match arguments.resume {
            true => Begin::Resume(arguments.bits()),
            false => Begin::New(arguments.existing()),
        },
        console: console.clone(),
        folder,
        config,
    };
    let start = Instant::now();
    let outcome = session.train()?;
    if outcome.rank == 0 {
        report(&session, &outcome, start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Threads of this process, unless a launcher has started one process per rank: then MPI, and
/// without it a refusal, for unrelated copies must never run.
fn ranks(config: &RunConfig) -> Result<Ranks, Failure> {
    let launcher = launcher::detect(|name| std::env::var(name).ok());
    if cfg!(feature = "mpi") && launcher.is_some() {
        return Ok(Ranks::Mpi(launcher));
    }
    if let Some(launcher) = launcher {
        launcher.refuse_without_mpi()?;
    }
    Ok(Ranks::Threads(config.train.ranks))
}

/// What came out, and what to type next.
#[expect(
    clippy::print_stdout,
    reason = "the result of a command goes to its output"
)]
fn report(session: &Session, outcome: &Outcome, seconds: f64) {
    println!("trained {} steps in {seconds:.1} s", outcome.step);
    for (name, value) in &outcome.metrics {
        println!("{name:<28} {value:.4}");
    }
    let folder = session.folder.display();
    println!("run folder                   {folder}");
    println!();
    let program = program();
    println!("next:");
    println!("  {program} evaluate {folder}");
    println!("  {program} predict {folder} --input rows.csv");
    println!("  {program} train RUN_FILE --resume --set train.epochs=100   # go on for longer");
}

/// What this program is called: `ringstep`, or that of a user who brings models.
fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || "ringstep".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

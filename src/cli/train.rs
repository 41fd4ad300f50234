//! `ringstep train`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Failure, TrainArguments, show};
use crate::comm::{Options, launcher};
use crate::config::{CustomModels, Length, RunConfig};
use crate::data::Source;
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
        ranks: ranks(arguments, &config)?,
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
        let seconds = start.elapsed().as_secs_f64();
        let mut text = results(&session, &outcome, seconds);
        if !console.is_quiet() {
            text += &next(arguments, &session);
        }
        show(text)?;
    }
    Ok(())
}

/// Threads of this process, unless a launcher has started one process per rank: then MPI, and
/// without it a refusal, for unrelated copies must never run.
fn ranks(arguments: &TrainArguments, config: &RunConfig) -> Result<Ranks, Failure> {
    let launcher = launcher::detect(|name| std::env::var(name).ok());
    if cfg!(feature = "mpi")
        && let Some(launcher) = &launcher
    {
        if let (Some(asked), Some(started)) = (arguments.ranks, launcher.world)
            && asked as usize != started
        {
            return Err(format!(
                "--ranks {asked}, but {} started {started} ranks ({}); leave --ranks out, or start \
                 that many",
                launcher.name, launcher.variable
            )
            .into());
        }
        return Ok(Ranks::Mpi(Some(launcher.clone())));
    }
    if let Some(launcher) = launcher {
        launcher.refuse_without_mpi()?;
    }
    Ok(Ranks::Threads(config.train.ranks))
}

/// What came out.
fn results(session: &Session, outcome: &Outcome, seconds: f64) -> String {
    let mut text = format!("trained {} steps in {seconds:.1} s\n", outcome.step);
    for (name, value) in &outcome.metrics {
        text += &format!("{name:<28} {value:.4}\n");
    }
    let folder = quoted(&session.folder.to_string_lossy());
    text + &format!("run folder                   {folder}\n")
}

/// What to type next.
fn next(arguments: &TrainArguments, session: &Session) -> String {
    let quoted = |path: &Path| quoted(&path.to_string_lossy());
    let (program, folder) = (quoted(&program()), quoted(&session.folder));
    let run_file = quoted(&arguments.run_file);
    let longer = match session.config.train.length {
        Length::Steps(steps) => format!("train.steps={}", 2 * steps),
        Length::Epochs(epochs) => format!("train.epochs={}", 2 * epochs),
    };
    let rows = match &session.config.data.source {
        Source::Csv(csv) => csv.test.as_deref().map(quoted),
        Source::Idx(_) => None,
    };
    let rows = rows.unwrap_or_else(|| "rows.csv".to_owned());
    let lengths = ["train.steps=", "train.epochs="];
    let assignments = arguments.assignments();
    let kept = assignments.iter();
    let kept = kept.filter(|set| {
        !lengths
            .iter()
            .any(|key| set.replace(' ', "").starts_with(key))
    });
    let set: String = kept
        .chain([&longer])
        .map(|set| format!(" --set {}", self::quoted(set)))
        .collect();
    format!(
        "\n\
         next:\n  \
           {program} evaluate {folder}\n  \
           {program} predict {folder} --input {rows}\n  \
           {program} train {run_file} --run-dir {folder} --resume{set}\n"
    )
}

/// One word of a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// This program as it was called, so that a line can be typed as it is printed.
fn program() -> PathBuf {
    let name = std::env::args_os().next();
    name.map_or_else(|| "ringstep".into(), PathBuf::from)
}

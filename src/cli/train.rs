//! `ringstep train`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Failure, TrainArguments, show};
use crate::checkpoint::{Checkpoint, list};
use crate::comm::launcher;
use crate::config::{CustomModels, Length, RunConfig};
use crate::data::Source;
use crate::train::{Begin, CHECKPOINTS, Console, Outcome, Ranks, RunFolder, Session};

/// Exit code of a program that was interrupted, as shells have it for ctrl-C.
const INTERRUPTED: i32 = 130;

/// Trains what the run file describes.
pub(super) fn run(
    arguments: &TrainArguments,
    models: &CustomModels,
    console: &Console,
) -> Result<(), Failure> {
    let (run_file, run) = match arguments.run_file.is_dir() {
        true => {
            let run = RunFolder::open(&arguments.run_file)?;
            (run.config_path(), Some(run))
        }
        false => (arguments.run_file.clone(), None),
    };
    let mut config = RunConfig::load_with(&run_file, &arguments.overrides(), models)?;
    let folder = match (&arguments.run_dir, run) {
        (Some(folder), _) => folder.clone(),
        (None, Some(run)) => run.path().to_owned(),
        (None, None) => PathBuf::from("runs").join(&config.name),
    };
    if let Some(more) = arguments.more_steps {
        if let Some(length) = arguments.set.iter().find(|set| is_length(set)) {
            return Err(format!(
                "--more-steps {more} says how long to train, and so does --set {length}; keep one of them"
            )
            .into());
        }
        let newest = Checkpoint::newest(&folder.join(CHECKPOINTS))?.checkpoint;
        let taken = newest.map_or(0, |checkpoint| checkpoint.step());
        // No more than a run file can say.
        let length = taken
            .checked_add(more)
            .filter(|steps| i64::try_from(*steps).is_ok());
        let length = length
            .ok_or_else(|| format!("--more-steps {more} is more than a run counts; say fewer"))?;
        config.train.length = Length::Steps(length);
    }
    let begin = match arguments.resume {
        true => Begin::Resume(arguments.bits()),
        false => Begin::New(arguments.existing()),
    };
    let ranks = ranks(arguments, &config)?;
    let session = Session {
        console: console.clone(),
        ..Session::new(config, folder, begin, ranks)
    };
    if matches!(session.ranks, Ranks::Threads(_)) {
        explain_interrupts(arguments, &session);
    }
    let start = Instant::now();
    let outcome = session.train()?;
    if outcome.rank == 0 {
        let seconds = start.elapsed().as_secs_f64();
        let mut text = results(&session, &outcome, seconds);
        if !console.is_quiet() {
            text += &next(arguments, &session, outcome.stopped.is_some());
        }
        show(text)?;
    }
    Ok(())
}

/// Threads of this process, unless a launcher has started one process per rank: then MPI, and
/// without it a refusal, for unrelated copies must never run.
fn ranks(arguments: &TrainArguments, config: &RunConfig) -> Result<Ranks, Failure> {
    let launcher = launcher::here();
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
    let (begun, step) = (outcome.begun, outcome.step);
    let mut text = format!("trained {} steps in {seconds:.1} s", step - begun);
    if begun > 0 {
        text += &format!(", from {begun} to {step}");
    }
    text.push('\n');
    if let Some(reason) = &outcome.stopped {
        text += &format!("stopped early: {reason}\n");
    }
    for (name, value) in &outcome.metrics {
        text += &format!("{name:<28} {value:.4}\n");
    }
    let folder = quoted(&session.folder.to_string_lossy());
    text + &format!("run folder                   {folder}\n")
}

/// What to type next.
fn next(arguments: &TrainArguments, session: &Session, was_stopped: bool) -> String {
    let folder = quoted(&session.folder.to_string_lossy());
    let longer = match session.config.train.length {
        Length::Steps(steps) => format!("train.steps={}", 2 * steps),
        Length::Epochs(epochs) => format!("train.epochs={}", 2 * epochs),
    };
    let rows = match &session.config.data.source {
        Source::Columns(columns) => columns.test.first(),
        Source::Arrays(arrays) => arrays.test.as_ref().map(|test| &test.features),
        Source::Images(images) => images.test.as_ref(),
        Source::Program => None,
    };
    let rows = quoted(&rows.map_or("rows.csv".into(), |path| path.to_string_lossy()));
    let assignments = assignments(arguments, longer);
    let program = program();
    let resume = match was_stopped {
        // A longer run would be stopped where it is.
        true => String::new(),
        false => format!("  {}\n", resume(arguments, session, &assignments)),
    };
    format!(
        "\n\
         next:\n  \
           {program} evaluate {folder}\n  \
           {program} predict {folder} --input {rows}\n\
         {resume}"
    )
}

/// What was set on the command line, with another length.
fn assignments(arguments: &TrainArguments, length: String) -> Vec<String> {
    let mut assignments = arguments.assignments();
    assignments.retain(|set| !is_length(set));
    assignments.push(length);
    assignments
}

/// Whether an assignment says how long to train.
fn is_length(set: &str) -> bool {
    let lengths = ["train.steps=", "train.max_steps=", "train.epochs="];
    let set = set.replace(' ', "");
    lengths.iter().any(|key| set.starts_with(key))
}

/// The command that goes on with the run.
fn resume(arguments: &TrainArguments, session: &Session, assignments: &[String]) -> String {
    let quoted = |path: &Path| quoted(&path.to_string_lossy());
    let set = assignments.iter();
    let set: String = set
        .map(|set| format!(" --set {}", self::quoted(set)))
        .collect();
    let bits = match arguments.allow_different_bits {
        true => " --allow-different-bits",
        false => "",
    };
    format!(
        "{} train {} --run-dir {} --resume{bits}{set}",
        program(),
        quoted(&arguments.run_file),
        quoted(&session.folder)
    )
}

/// Says how to go on when ctrl-C, or a scheduler that takes its time back, ends the run. Under MPI that
/// is the launcher's to do.
fn explain_interrupts(arguments: &TrainArguments, session: &Session) {
    let checkpoints = session.folder.join(CHECKPOINTS);
    let assignments = match (arguments.more_steps, session.config.train.length) {
        // More than the run had when it began, not than it has now.
        (Some(_), Length::Steps(steps)) => assignments(arguments, format!("train.steps={steps}")),
        _ => arguments.assignments(),
    };
    let resume = resume(arguments, session, &assignments);
    // A program that has a handler of its own keeps it.
    let _ = ctrlc::try_set_handler(move || {
        match list(&checkpoints).unwrap_or_default().last() {
            Some(step) => tracing::warn!("interrupted; to go on from step {step}: {resume}"),
            None => tracing::warn!("interrupted before the first checkpoint"),
        }
        std::process::exit(INTERRUPTED);
    });
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
fn program() -> String {
    let name = std::env::args_os().next();
    quoted(&name.map_or("ringstep".into(), |name| {
        name.to_string_lossy().into_owned()
    }))
}

//! What a person sees of training: a bar on a terminal, lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::EvaluateRecord;

/// Where a person reads: the standard error stream. Cloning gives another handle to it.
///
/// Everything that writes there while a bar is drawn goes through it, so that neither garbles the
/// other.
#[derive(Debug, Clone)]
pub struct Console {
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Terminal(MultiProgress),
    Lines,
    Quiet,
}

impl Console {
    /// A bar on a terminal, lines where the stream is a file or a pipe.
    pub fn detect() -> Self {
        let kind = if io::stderr().is_terminal() {
            Kind::Terminal(MultiProgress::new())
        } else {
            Kind::Lines
        };
        Self { kind }
    }

    /// No progress at all. Messages still come through.
    pub fn quiet() -> Self {
        Self { kind: Kind::Quiet }
    }

    /// Whether there is no progress.
    pub fn is_quiet(&self) -> bool {
        matches!(self.kind, Kind::Quiet)
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Terminal(bars) => bars.suspend(|| io::stderr().write(bytes)),
            Kind::Lines | Kind::Quiet => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What is shown of the steps up to now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tick {
    /// Global steps taken.
    pub step: u64,
    /// Whole passes over the data taken.
    pub epoch: u64,
    /// Loss of the last step.
    pub loss: f64,
    /// Rows per second over all ranks.
    pub samples_per_second: f64,
    /// Milliseconds of a step that compute waited for other ranks, on the average.
    pub exposed_comm_ms: f64,
    /// The same, for data.
    pub input_wait_ms: f64,
}

/// The progress of one training run.
#[derive(Debug)]
pub struct Progress {
    console: Console,
    bar: Option<ProgressBar>,
    steps: Range<u64>,
    begun: Instant,
    logged: Option<String>,
    evaluated: Option<String>,
}

impl Progress {
    /// Of a run that goes from `steps.start` to `steps.end`.
    pub fn new(console: &Console, steps: Range<u64>) -> Self {
        let bar = match &console.kind {
            Kind::Terminal(bars) => {
                let bar = bars.add(ProgressBar::new(steps.end));
                bar.set_style(style());
                bar.set_position(steps.start);
                Some(bar)
            }
            Kind::Lines | Kind::Quiet => None,
        };
        Self {
            console: console.clone(),
            bar,
            steps,
            begun: Instant::now(),
            logged: None,
            evaluated: None,
        }
    }

    /// Moves the bar: `step` steps are done.
    pub fn step(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    /// Shows the numbers of a logged step: on the bar, or as a line.
    pub fn log(&mut self, tick: &Tick) {
        let done = tick.step.saturating_sub(self.steps.start);
        let remaining = self.steps.end.saturating_sub(tick.step);
        let left = time_left(self.begun.elapsed(), done, remaining);
        let numbers = numbers(tick, left);
        if let Some(bar) = &self.bar {
            bar.set_position(tick.step);
        } else if let Kind::Lines = self.console.kind {
            let line = format!("step {}/{}  {numbers}\n", tick.step, self.steps.end);
            // A reader that went away must not stop training.
            let _ = self.console.write_all(line.as_bytes());
        }
        self.logged = Some(numbers);
        self.show();
    }

    /// Shows the outcome of an evaluation: behind the numbers on the bar, or as a line.
    pub fn evaluation(&mut self, record: &EvaluateRecord) {
        let outcome = outcome(record);
        if let Kind::Lines = self.console.kind {
            let line = format!("step {}/{}  {outcome}\n", record.step, self.steps.end);
            // A reader that went away must not stop training.
            let _ = self.console.write_all(line.as_bytes());
        }
        self.evaluated = Some(outcome);
        self.show();
    }

    /// Draws the last numbers on the bar.
    fn show(&self) {
        if let Some(bar) = &self.bar {
            let parts = [&self.logged, &self.evaluated];
            let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
            bar.set_message(parts.join("  "));
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} step {pos}/{len}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `epoch 3  loss 0.1234  8310 samples/s  waited 0.25 ms/step for ranks, 0.01 for data  1:02 left`
fn numbers(tick: &Tick, left: Option<Duration>) -> String {
    let left = left.map_or_else(String::new, |left| format!("  {} left", clock(left)));
    format!(
        "epoch {}  loss {:.4}  {:.0} samples/s  waited {:.2} ms/step for ranks, {:.2} for data{left}",
        tick.epoch, tick.loss, tick.samples_per_second, tick.exposed_comm_ms, tick.input_wait_ms
    )
}

/// `test accuracy 0.9750  test loss 0.0812`
fn outcome(record: &EvaluateRecord) -> String {
    let metric = |(name, value): (&String, &f64)| {
        format!("{} {} {value:.4}", record.data, name.replace('_', " "))
    };
    record
        .metrics
        .iter()
        .map(metric)
        .collect::<Vec<_>>()
        .join("  ")
}

/// How long the remaining steps take at the pace up to now.
fn time_left(elapsed: Duration, done: u64, remaining: u64) -> Option<Duration> {
    if done == 0 {
        return None;
    }
    let seconds = elapsed.as_secs_f64() / done as f64 * remaining as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `0:07`, `12:34`, `1:02:03`, rounded up so that it reaches zero only at the end.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Tick = Tick {
        step: 30,
        epoch: 2,
        loss: 0.123_456,
        samples_per_second: 8309.7,
        exposed_comm_ms: 0.254,
        input_wait_ms: 0.01,
    };

    #[test]
    fn numbers_are_short_and_have_units() {
        let text = numbers(&TICK, Some(Duration::from_millis(61_200)));
        let expected =
            "epoch 2  loss 0.1235  8310 samples/s  waited 0.25 ms/step for ranks, 0.01 for data";
        assert_eq!(text, format!("{expected}  1:02 left"));
        assert_eq!(numbers(&TICK, None), expected);
    }

    #[test]
    fn time_left_counts_only_the_steps_of_this_process() {
        let left = |done, remaining| time_left(Duration::from_secs(10), done, remaining);
        assert_eq!(left(20, 70), Some(Duration::from_secs(35)));
        assert_eq!(left(20, 0), Some(Duration::ZERO));
        assert_eq!(left(0, 70), None);
    }

    #[test]
    fn clocks_are_read_like_clocks() {
        let shown = |milliseconds| clock(Duration::from_millis(milliseconds));
        assert_eq!(
            [shown(0), shown(1), shown(59_001)],
            ["0:00", "0:01", "1:00"]
        );
        assert_eq!(shown(3_723_000), "1:02:03");
    }

    #[test]
    fn a_bar_follows_the_steps_and_shows_the_numbers() {
        let bars = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let console = Console {
            kind: Kind::Terminal(bars),
        };
        let mut progress = Progress::new(&console, 20..90);
        let bar = progress.bar.clone().unwrap();
        assert_eq!((bar.position(), bar.length()), (20, Some(90)));
        progress.log(&TICK);
        assert_eq!(bar.position(), 30);
        assert!(
            bar.message().starts_with("epoch 2  loss 0.1235"),
            "{}",
            bar.message()
        );
        progress.evaluation(&EvaluateRecord {
            step: 30,
            epoch: 2,
            data: "test".to_owned(),
            rows: 360,
            metrics: [("loss".to_owned(), 0.5), ("accuracy".to_owned(), 0.975)].into(),
        });
        let message = bar.message();
        assert!(
            message.ends_with("left  test accuracy 0.9750  test loss 0.5000"),
            "{message}"
        );
        progress.step(31);
        assert_eq!(bar.position(), 31);
        progress.finish();
        assert!(bar.is_finished());
    }
}

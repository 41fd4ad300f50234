//! Times our all-reduce: `bench_all_reduce RANKS [COLLECTIVE [CHUNK]]` on threads, 0 for the ranks
//! that `mpirun` started. Prints a line `ranks megabytes median-ms` for each size.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Instant;

use ringstep::comm::{CollectiveChoice, CommError, Communicator, Options, Span, launcher, testing};

/// Megabytes, and how often they are summed.
const SIZES: [(usize, usize); 3] = [(1, 60), (25, 25), (100, 12)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize| arguments.get(index).map(String::as_str);
    let ranks: usize = argument(0).unwrap_or("0").parse()?;
    let collective: CollectiveChoice = argument(1).unwrap_or("auto").parse()?;
    let mut options = Options::default().with_collective(collective);
    if let Some(chunk) = argument(2) {
        options.chunk = chunk.parse()?;
    }
    let launcher = launcher::detect(|name| std::env::var(name).ok());
    let medians = if ranks > 0 {
        testing::world(ranks, &options, measure)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
    } else {
        let mut communicator = connect(&options, launcher.as_ref())?;
        let medians = measure(communicator.as_mut())?;
        if communicator.rank() > 0 {
            Vec::new()
        } else {
            vec![medians; communicator.world()]
        }
    };
    if let Some(first) = medians.first() {
        for ((megabytes, _), median) in SIZES.iter().zip(first) {
            println!("{} {megabytes} {median:.3}", medians.len());
        }
    }
    Ok(())
}

#[cfg(feature = "mpi")]
fn connect(
    options: &Options,
    launcher: Option<&launcher::Launcher>,
) -> Result<Box<dyn Communicator>, CommError> {
    ringstep::comm::mpi::connect(options, launcher)
}

#[cfg(not(feature = "mpi"))]
fn connect(
    _: &Options,
    launcher: Option<&launcher::Launcher>,
) -> Result<Box<dyn Communicator>, Box<dyn std::error::Error>> {
    launcher.map_or(Ok(()), launcher::Launcher::refuse_without_mpi)?;
    Err("give the number of thread ranks".into())
}

/// The median time of each size, in milliseconds.
fn measure(communicator: &mut dyn Communicator) -> Result<Vec<f64>, CommError> {
    let mut medians = Vec::new();
    for (megabytes, repeats) in SIZES {
        let len = megabytes * 1_000_000 / size_of::<f32>();
        let region = communicator.allocate_f32(len)?;
        let span = Span {
            region: region.id(),
            range: 0..len,
        };
        let mut times = Vec::new();
        for repeat in 0..repeats {
            // SAFETY: between collectives the region is this rank's own.
            unsafe { region.slice_mut(0..len) }.fill(repeat as f32);
            communicator.barrier()?;
            let start = Instant::now();
            communicator.all_reduce(&span)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let measured = &mut times[2..];
        measured.sort_by(f64::total_cmp);
        medians.push(measured[measured.len() / 2]);
    }
    Ok(medians)
}

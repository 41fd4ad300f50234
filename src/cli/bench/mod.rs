//! `ringstep bench`: how fast this machine sums over ranks, multiplies matrices and looks up rows.

mod all_reduce;
mod matmul;
mod tables;

use clap::{Args, Subcommand};

use super::Failure;
use crate::backend::{DeviceChoice, Precision};
use crate::comm::CollectiveChoice;
use crate::comm::nccl::NcclAlgorithm;

pub use matmul::training_products;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Sums over ranks, with the algorithm and bus bandwidths of nccl-tests: by every collective of
    /// threads, between GPUs where there are any, and of processes under mpirun.
    AllReduce(AllReduceArguments),
    /// Matrix products of training by own kernels and by cuBLASLt, and how much of the peak of
    /// multiply-adds they reach.
    Matmul(MatmulArguments),
    /// A step of a wide and deep model by the size of its tables: it follows the batch, not the table.
    Tables(TablesArguments),
}

/// `ringstep bench all-reduce`
#[derive(Debug, Args)]
pub struct AllReduceArguments {
    /// Number of ranks [default: one for each GPU or processor, 2 to 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: Option<u32>,
    /// Which collectives: direct, ring and hierarchical (two pretended hosts) in the host's memory,
    /// staged and nccl between GPUs [default: all that there are].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub collective: Vec<CollectiveChoice>,
    /// Which algorithm NCCL is asked for: auto, ring, tree or nvls.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub nccl_algo: NcclAlgorithm,
    /// How much is summed, in bytes or with a unit such as KiB or MB [default: 1KiB to 256MiB by
    /// factors of 4].
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = bytes)]
    pub sizes: Vec<usize>,
    /// Measurements of each size, of which the median counts [default: 5 to 50].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: Option<u32>,
    /// Prints a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// `ringstep bench matmul`
#[derive(Debug, Args)]
pub struct MatmulArguments {
    /// What multiplies: auto, cpu, cuda or cuda:N.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub device: DeviceChoice,
    /// What operands are rounded to: f32, tf32, bf16 or f16.
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub precision: Precision,
    /// Least seconds for each product.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1, value_parser = seconds)]
    pub seconds: f64,
    /// Divides all extents, for devices that are emulated.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub divide: u32,
    /// Prints a JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `ringstep bench tables`
#[derive(Debug, Args)]
pub struct TablesArguments {
    /// Number of ranks.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub ranks: u32,
    /// Rows of the tables, with commas between them, the first of which others are compared with.
    #[arg(long, value_name = "ROWS", value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 10_000_000], value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub rows: Vec<u32>,
    /// Turns of each size, 100 steps each, of which the median counts.
    #[arg(long, value_name = "N", default_value_t = 75, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeats: u32,
    /// Prints a JSON array.
    #[arg(long)]
    pub json: bool,
}

/// Runs the benchmark that was asked for.
pub(super) fn run(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::AllReduce(arguments) => all_reduce::run(arguments),
        BenchCommand::Matmul(arguments) => matmul::run(arguments),
        BenchCommand::Tables(arguments) => tables::run(arguments),
    }
}

/// The middle of what was measured.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// No more than one waits for.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.0..=60.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0 to 60".to_owned())
}

/// `1024`, `1KiB`, `25MB`
fn bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, usize); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let size = UNITS.iter().find_map(|(unit, bytes)| {
        let number: usize = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*bytes)
    });
    match size {
        Some(size) if size >= size_of::<f32>() => Ok(size),
        _ => Err("expected 4 bytes or more, such as 1024, 64KiB or 25MB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("1024"), Ok(1024));
        assert_eq!(bytes("3KiB"), Ok(3072));
        assert_eq!(bytes("25MB"), Ok(25_000_000));
        for wrong in [
            "",
            "MB",
            "-1KiB",
            "3",
            "1TiB",
            "99999999999999999999",
            "9999999999999GB",
        ] {
            assert!(bytes(wrong).unwrap_err().contains("64KiB"), "{wrong}");
        }
    }
}

//! Every kernel, compiled to machine code by the real compiler: no warning, no stack, no spill, and
//! products on the unit that they were written for. Writes a table of what each kernel takes.
//!
//! `scripts/check-kernels.sh` starts it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests stop the test where they fail"
)]

mod occupancy;
mod ptxas;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use ringstep::backend::Precision;
use ringstep::backend::cuda::{Capability, Compilation, compile_every_kernel};

use occupancy::Multiprocessor;
use ptxas::{UNITS, Usage, bound_of_threads, count_units, entries, read_log, unit_of};

/// Threads of a block where the kernel does not bound them: see `src/backend/cuda/launch.rs`.
const THREADS: u32 = 256;

#[test]
fn kernels_for_7_5() {
    check(Capability { major: 7, minor: 5 });
}

#[test]
fn kernels_for_8_0() {
    check(Capability { major: 8, minor: 0 });
}

#[test]
fn kernels_for_9_0() {
    check(Capability { major: 9, minor: 0 });
}

#[test]
fn kernels_for_10_0() {
    check(Capability {
        major: 10,
        minor: 0,
    });
}

/// Compiles everything for `capability`, writes the table and says what is wrong.
fn check(capability: Capability) {
    let compilations = compile_every_kernel(capability).unwrap();
    let mut problems = Vec::new();
    let mut table = format!(
        "compute capability {capability}\n{:<38} {:>7} {:>9} {:>7} {:>5} {:>6} {:>6} {:>5}  unit\n",
        "kernel", "threads", "registers", "shared", "stack", "spills", "blocks", "warps"
    );
    // For another compiler: file, and precision or a dash.
    let mut compiled = String::new();
    for compilation in &compilations {
        rows(compilation, capability, &mut table, &mut problems);
        let precision = compilation.precision;
        let precision = precision.map_or_else(|| "-".to_owned(), |of| format!("{of:?}"));
        writeln!(compiled, "{} {precision}", compilation.file).unwrap();
    }
    // Cargo sets it for integration tests.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::write(folder.join(format!("compiled-{capability}.txt")), compiled).unwrap();
    fs::write(folder.join(format!("kernels-{capability}.txt")), &table).unwrap();
    assert!(
        problems.is_empty(),
        "{capability}:\n{}",
        problems.join("\n")
    );
}

/// Adds the rows of a file.
fn rows(
    compilation: &Compilation,
    capability: Capability,
    table: &mut String,
    problems: &mut Vec<String>,
) {
    let Compilation {
        file, precision, ..
    } = compilation;
    let (usages, warnings) = read_log(&compilation.log);
    problems.extend(warnings.iter().map(|line| format!("{file}: {line}")));
    let entries = entries(&compilation.ptx);
    let of_products = precision.filter(|_| compilation.makes_products);
    let listing = of_products.map(|precision| disassemble(compilation, precision, capability));
    let listing = listing.unwrap_or_default();
    let units = count_units(&listing);
    for (kernel, dynamic) in &compilation.kernels {
        let (Some(usage), Some(body)) = (usages.get(kernel), entries.get(kernel)) else {
            problems.push(format!("{file}: the compiler says nothing of {kernel}"));
            continue;
        };
        let usage = Usage {
            shared: usage.shared + dynamic,
            ..*usage
        };
        let threads = bound_of_threads(body).unwrap_or(THREADS);
        let (blocks, warps) = Multiprocessor::of(capability).occupancy(usage, threads);
        let mut unit = String::new();
        let mut label = (*kernel).to_owned();
        if let Some(precision) = precision
            && *precision != Precision::F32
        {
            write!(label, " {precision}").unwrap();
        }
        if let Some(precision) = of_products {
            let (asked, counts) = (unit_of(body), units.get(kernel).unwrap_or(&[0; 3]));
            let index = UNITS.iter().position(|unit| *unit == asked).unwrap();
            unit = format!("{asked} x {}", counts[index]);
            if (asked == "FFMA") != (precision == Precision::F32) {
                problems.push(format!("{label}: made of {asked}"));
            }
            if counts[index] == 0 {
                problems.push(format!("{label}: no {asked} in its machine code"));
            }
        }
        let spills = usage.spills.iter().sum::<u32>();
        if usage.stack + spills > 0 {
            problems.push(format!("{label}: {usage:?}"));
        }
        if blocks == 0 {
            problems.push(format!(
                "{label}: a block of {threads} threads does not fit"
            ));
        }
        let line = format!(
            "{label:<38} {threads:>7} {:>9} {:>7} {:>5} {spills:>6} {blocks:>6} {warps:>5}  {unit}",
            usage.registers, usage.shared, usage.stack
        );
        writeln!(table, "{}", line.trim_end()).unwrap();
    }
}

/// What nvdisasm prints of the machine code.
fn disassemble(compilation: &Compilation, precision: Precision, capability: Capability) -> String {
    let nvdisasm = std::env::var_os("NVDISASM").expect("NVDISASM: start scripts/check-kernels.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let code = folder.join(format!(
        "{}-{precision}-{capability}.cubin",
        compilation.file
    ));
    fs::write(&code, &compilation.code).unwrap();
    let output = Command::new(nvdisasm)
        .arg("-c")
        .arg(&code)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "nvdisasm {}: {errors}",
        code.display()
    );
    String::from_utf8(output.stdout).unwrap()
}

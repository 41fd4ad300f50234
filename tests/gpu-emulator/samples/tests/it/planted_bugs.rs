//! Plants bugs in `basic.cu` and `hopper.cu` and checks that each one is found in at least one configuration.

use std::path::{Path, PathBuf};

use crate::emulator::{sample, text, without_nvrtc};

/// (name, n-th occurrence or 0 for all, text, replacement, expected message or "" for wrong result)
type Bug = (
    &'static str,
    usize,
    &'static str,
    &'static str,
    &'static str,
);

const BASIC: [Bug; 17] = [
    (
        "second barrier of the tile loop removed",
        2,
        "__syncthreads();",
        "",
        "race",
    ),
    (
        "first barrier of the tile loop removed",
        1,
        "__syncthreads();",
        "",
        "race",
    ),
    (
        "cp.async wait one group too weak",
        0,
        "cp_async_wait<1>()",
        "cp_async_wait<2>()",
        "nobody has written",
    ),
    (
        "trailing barrier of the mma loop removed",
        7,
        "__syncthreads();",
        "",
        "race",
    ),
    (
        "prefetch into the buffer in use",
        0,
        "load(buf ^ 1,",
        "load(buf,",
        "",
    ),
    (
        "wrong lane address of a B fragment",
        0,
        "((lane >> 3) & 1) * 8",
        "((lane >> 4) & 1) * 8",
        "",
    ),
    (
        "rows of the C fragment swapped",
        0,
        "(r + 8) * N + c] = acc[i][j][2]",
        "(r + 8) * N + c] = acc[i][j][1]",
        "",
    ),
    (
        "barrier before the reuse of red[] removed",
        4,
        "__syncthreads();",
        "",
        "race",
    ),
    (
        "half of the lanes missing from a shuffle mask",
        0,
        "v += __shfl_xor_sync(0xffffffffu",
        "v += __shfl_xor_sync(0x0000ffffu",
        "member mask",
    ),
    (
        "shared array one row short",
        0,
        "sB[TS][TS + 1]",
        "sB[TS - 1][TS + 1]",
        "out of bounds",
    ),
    (
        "missing bound in K",
        0,
        "(k0 + ty < K && col < N)",
        "(col < N)",
        "out of bounds",
    ),
    (
        "barrier in a divergent branch",
        2,
        "__syncthreads();",
        "if (tx < 8) __syncthreads();",
        "",
    ),
    (
        "reads shared memory of warps that do not exist",
        0,
        "s = warp_sum(lane < nw ? red[lane] : 0.f)",
        "s = warp_sum(red[lane])",
        "nobody has written",
    ),
    (
        "lanes return before a shuffle",
        0,
        "if (row >= rows) return;",
        "if (row >= rows || lane >= 30) return;",
        "member mask",
    ),
    (
        "atomicAdd replaced by +=",
        0,
        "atomicAdd(gnorm2, local)",
        "*gnorm2 += local",
        "",
    ),
    (
        "rows not aligned to 16 bytes",
        0,
        "BK = 32, PAD = 8",
        "BK = 32, PAD = 4",
        "aligned",
    ),
    (
        "one warp leaves early",
        0,
        "m = warp_max(lane < nw ? red[lane] : -INFINITY);",
        "if (w == 1) return; m = warp_max(lane < nw ? red[lane] : -INFINITY);",
        "",
    ),
];

const HOPPER: [Bug; 9] = [
    (
        "sums touched without a fence",
        0,
        "wgmma.fence.sync.aligned;",
        "",
        "without wgmma.fence",
    ),
    (
        "products that are in no group",
        0,
        "wgmma.commit_group.sync.aligned;",
        "",
        "a sum of wgmma is touched",
    ),
    (
        "products not waited for",
        0,
        "wgmma.wait_group.sync.aligned 0;",
        "wgmma.wait_group.sync.aligned 1;",
        "",
    ),
    (
        "stage filled again while it is read",
        2,
        "__syncthreads();",
        "",
        "",
    ),
    (
        "fewer bytes expected than come",
        0,
        "2 * 64 * 64 * 2",
        "64 * 64 * 2",
        "race",
    ),
    (
        "more bytes expected than come",
        0,
        "2 * 64 * 64 * 2",
        "3 * 64 * 64 * 2",
        "mbarrier wait never completes",
    ),
    (
        "copy not waited for",
        0,
        "mbarrier_wait(&full[s], (t >> 1) & 1);",
        "",
        "",
    ),
    (
        "wait for the phase before",
        0,
        "(t >> 1) & 1",
        "~(t >> 1) & 1",
        "",
    ),
    (
        "next terms in a row of 128 bytes misplaced",
        0,
        "&sB[s][k * 16]",
        "&sB[s][k * 8]",
        "",
    ),
];

/// Together these find every bug; none does alone.
const CONFIGURATIONS: [(&str, &str); 4] = [
    ("forward", "late"),
    ("forward", "early"),
    ("5", "late"),
    ("6", "early"),
];

fn mutate(source: &str, nth: usize, from: &str, to: &str) -> String {
    let mutated = match nth {
        0 => source.replace(from, to),
        n => {
            let (at, _) = source.match_indices(from).nth(n - 1).expect("occurrence");
            format!("{}{to}{}", &source[..at], &source[at + from.len()..])
        }
    };
    assert_ne!(mutated, source, "`{from}` not found");
    mutated
}

/// The first configuration in which the program notices, and what it says.
fn find(program: &[&str], kernels: &Path) -> Option<String> {
    CONFIGURATIONS.iter().find_map(|(order, timing)| {
        let mut command = sample(program[0]);
        command.args(&program[1..]).env("SAMPLE_KERNELS", kernels);
        command
            .env("PTX_EMU_ORDER", order)
            .env("PTX_EMU_ASYNC", timing);
        let output = command.output().expect("the sample starts");
        (!output.status.success()).then(|| format!("[{order}, {timing}] {}", text(&output)))
    })
}

/// Plants each bug in a kernel file, and runs the program that uses it.
fn check(program: &[&str], (file, source): (&str, &str), bugs: &[Bug]) {
    if without_nvrtc() {
        return;
    }
    let mut missed = Vec::new();
    for (index, &(name, nth, from, to, expected)) in bugs.iter().enumerate() {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{file}-{index}"));
        std::fs::create_dir_all(&dir).expect("directory");
        std::fs::write(dir.join(file), mutate(source, nth, from, to)).expect("file");
        match find(program, &dir) {
            Some(text) if text.contains(expected) => {
                let line = text
                    .lines()
                    .find(|l| l.contains("fake-cuda:"))
                    .unwrap_or("wrong result");
                println!("found: {name}: {line}");
            }
            Some(text) => missed.push(format!("{name}: not as expected: {text}")),
            None => missed.push(format!("{name}: not found")),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_bug_in_basic_kernels_is_found() {
    let program = [env!("CARGO_BIN_EXE_kernels"), "basic", "128"];
    let source = include_str!("../../kernels/basic.cu");
    check(&program, ("basic.cu", source), &BASIC);
}

#[test]
fn every_bug_in_hopper_kernels_is_found() {
    let program = [env!("CARGO_BIN_EXE_hopper")];
    let source = include_str!("../../kernels/hopper.cu");
    check(&program, ("hopper.cu", source), &HOPPER);
}

//! The invariants of `ARCHITECTURE.md` that can be read off the source.
//!
//! Each check lists what it found as `file:line: problem`, so that a failure says where to look.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file.
const LONGEST_FILE: usize = 500;

/// Files that may contain `unsafe`; clippy asks each block for its `SAFETY` sentence.
const UNSAFE_FILES: &[&str] = &[
    "src/backend/cpu/buffer.rs",
    "src/backend/cpu/convolution/tile.rs",
    "src/backend/cpu/fixed_point.rs",
    "src/backend/cpu/matmul/mod.rs",
    "src/backend/cpu/matmul/product.rs",
    "src/backend/cpu/matmul/tile.rs",
    "src/backend/cpu/matmul/vector.rs",
    "src/backend/cpu/mod.rs",
    "src/backend/cpu/peak.rs",
    "src/backend/cpu/simd.rs",
    "src/backend/cuda/buffer.rs",
    "src/backend/cuda/compile.rs",
    "src/backend/cuda/cublaslt/library.rs",
    "src/backend/cuda/cublaslt/mod.rs",
    "src/backend/cuda/cublaslt/plan.rs",
    "src/backend/cuda/cublaslt/timing.rs",
    "src/backend/cuda/device.rs",
    "src/backend/cuda/hopper.rs",
    "src/backend/cuda/kernels.rs",
    "src/backend/cuda/mod.rs",
    "src/backend/cuda/packed.rs",
    "src/backend/cuda/pinned.rs",
    "src/backend/cuda/queue/batch.rs",
    "src/backend/cuda/queue/graph.rs",
    "src/backend/cuda/queue/mod.rs",
    "src/backend/cuda/survey.rs",
    "src/backend/cuda/transfer.rs",
    "src/backend/memory.rs",
    "src/cli/bench/all_reduce.rs",
    "src/comm/agree.rs",
    "src/comm/cells.rs",
    "src/comm/endpoint.rs",
    "src/comm/fixed_point.rs",
    "src/comm/gate.rs",
    "src/comm/mpi/call.rs",
    "src/comm/mpi/memory.rs",
    "src/comm/mpi/processes.rs",
    "src/comm/mpi/session.rs",
    "src/comm/nccl/communicator.rs",
    "src/comm/nccl/handle.rs",
    "src/comm/nccl/loader.rs",
    "src/comm/ring.rs",
    "src/comm/staged.rs",
    "src/comm/thread.rs",
    "src/comm/wait.rs",
    "src/train/board.rs",
    "src/train/evaluate.rs",
    "src/train/exact.rs",
    "src/train/exchange.rs",
    "src/train/judged.rs",
    "src/train/reduction.rs",
    "src/train/snapshot.rs",
    "src/train/tables.rs",
    "src/train/trainer.rs",
];

/// Imports against the order, and why they are none.
const UPWARD_ALLOWED: &[(&str, &str)] = &[];

/// Crates that only some files may name.
const CONFINED_CRATES: &[(&str, &[&str])] = &[
    ("cudarc", &["src/backend/cuda", "src/comm/nccl"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("mpi", &["src/comm/mpi"]),
];

/// What makes a run depend on more than its run file: not for code that takes part in a step.
const UNREPEATABLE: &[&str] = &["HashMap", "HashSet", "Instant", "SystemTime", "env::var"];

/// Where what is unrepeatable may stand, and why.
const UNREPEATABLE_ALLOWED: &[(&str, &[&str])] = &[
    // What the user typed, where it was typed, and a progress bar.
    ("src/cli", UNREPEATABLE),
    ("src/config", UNREPEATABLE),
    ("src/main.rs", UNREPEATABLE),
    // Deadlines for ranks that do not arrive, and what launchers leave in the environment.
    ("src/comm", &["Instant", "env::var"]),
    // How long the trainer waited for data: reported, never acted on.
    ("src/data/pipeline.rs", &["Instant"]),
    // How long a step, and its exposed communication, took: reported. Between steps, what a run file wants
    // done every so many seconds goes by rank 0's clock.
    ("src/train", &["Instant"]),
    // When an event was written, for those who look at it.
    ("src/train/events.rs", &["SystemTime"]),
];

/// A source file of the library or the binary.
struct Source {
    /// Relative to the repository root, with `/`.
    path: String,
    /// `(line number, code)` outside unit tests, without comments and string contents.
    code: Vec<(usize, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file under `folder`, sorted.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap()
        .to_str()
        .unwrap()
        .replace('\\', "/")
}

/// Every Rust file under `folders`, without what was built there.
fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let files = folders
        .iter()
        .flat_map(|folder| files_under(&root().join(folder)));
    let built = |path: &Path| relative(path).contains("/target/");
    files
        .filter(|path| path.extension().is_some_and(|e| e == "rs") && !built(path))
        .collect()
}

fn sources() -> Vec<Source> {
    let sources: Vec<Source> = rust_files(&["src"])
        .iter()
        .map(|path| Source {
            path: relative(path),
            code: code(&fs::read_to_string(path).unwrap()),
        })
        .collect();
    assert!(
        sources.len() > 20,
        "only {} files found under src",
        sources.len()
    );
    sources
}

/// The lines of `text` before its unit tests, without comments and without what is between quotes.
fn code(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
    });
    let end = tests.unwrap_or(lines.len());
    lines[..end]
        .iter()
        .enumerate()
        .map(|(i, line)| (i + 1, strip(line)))
        .collect()
}

/// One line without its comment and without what is between double quotes.
fn strip(line: &str) -> String {
    let mut kept = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if quoted => {
                characters.next();
            }
            '\'' if !quoted && characters.peek() == Some(&'"') => {
                characters.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if !quoted => kept.push(c),
            _ => {}
        }
    }
    kept
}

/// Whether `word` stands in `code` as a word of its own.
fn has_word(code: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(start, _)| {
        !code[..start].ends_with(part_of_word)
            && !code[start + word.len()..].starts_with(part_of_word)
    })
}

/// Whether `path` is `place`, lies in it, or is a file that begins like it (`mpi` for `mpi_ffi.rs`).
fn is_within(path: &str, place: &str) -> bool {
    path.starts_with(place)
}

/// The modules named after `crate::` in `code`, a brace list included.
fn imported_modules(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (start, marker) in code.match_indices("crate::") {
        if code[..start].ends_with(['$', '_']) || code[..start].ends_with(char::is_alphanumeric) {
            continue;
        }
        let rest = &code[start + marker.len()..];
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(heads_of_list(list)),
            None => modules.push(head(rest)),
        }
    }
    modules
}

/// First path segments of the entries of `a::b, c::{d, e}}`, up to the closing brace.
fn heads_of_list(list: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut entry = String::new();
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(std::mem::take(&mut entry)),
            _ => {}
        }
        if depth == 0 && c != ',' {
            entry.push(c);
        }
    }
    heads.push(entry);
    heads
        .iter()
        .map(|entry| head(entry.trim_start()))
        .filter(|head| !head.is_empty())
        .collect()
}

/// The identifier at the start of `path`.
fn head(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The modules of the library, topmost first.
fn module_order() -> Vec<String> {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "));
    declared
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect()
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn a_module_imports_only_from_those_below_it() {
    let order = module_order();
    let place = |module: &str| order.iter().position(|name| name == module);
    let mut problems = Vec::new();
    for source in sources() {
        let module = head(source.path.trim_start_matches("src/"));
        let Some(own) = place(&module) else { continue };
        // A `use` may span lines: joined, its list is whole, and the line is where it starts.
        let mut statement = String::new();
        let mut first = 0;
        for (line, code) in &source.code {
            if statement.is_empty() {
                first = *line;
            }
            statement.push_str(code.trim());
            if statement.contains("use crate::{") && !statement.ends_with(';') {
                continue;
            }
            for imported in imported_modules(&statement) {
                let allowed = UPWARD_ALLOWED.contains(&(&source.path, &imported));
                if !allowed && place(&imported).is_some_and(|other| other < own) {
                    problems.push(format!("{}:{first}: {module} uses {imported}", source.path));
                }
            }
            statement.clear();
        }
    }
    report(&problems);
}

#[test]
fn lists_of_imports_are_read() {
    let read = |code| imported_modules(code).join(" ");
    assert_eq!(read("use crate::backend::{Backend, View};"), "backend");
    assert_eq!(
        read("use crate::{params::{Layout, Group}, comm::Span, cli};"),
        "params comm cli"
    );
    assert_eq!(
        read("fn f() -> Result<(), crate::comm::CommError> {"),
        "comm"
    );
    assert_eq!(read("$crate::cli::run()"), "");
    assert_eq!(
        strip(r#"call("// not \" crate::cli", x); // crate::cli"#),
        "call(, x); "
    );
}

#[test]
fn no_source_file_is_long() {
    let mut problems = Vec::new();
    for path in rust_files(&["src", "tests", "examples"]) {
        let length = fs::read_to_string(&path).unwrap().lines().count();
        if length > LONGEST_FILE {
            problems.push(format!(
                "{}: {length} lines, at most {LONGEST_FILE}",
                relative(&path)
            ));
        }
    }
    report(&problems);
}

#[test]
fn crates_stay_where_they_belong() {
    let mut problems = Vec::new();
    for source in sources() {
        for (name, places) in CONFINED_CRATES {
            if places.iter().any(|place| is_within(&source.path, place)) {
                continue;
            }
            for (line, code) in &source.code {
                let path = format!("{name}::");
                let named = code.match_indices(&path).any(|(start, _)| {
                    // `crate::comm::mpi::` and `self::mpi::` are modules, `::mpi::` is the crate.
                    let before = code[..start].trim_end_matches("::");
                    before.len() == start
                        && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                        || code[..start].ends_with(" ::")
                });
                if named {
                    problems.push(format!("{}:{line}: names {name}", source.path));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn a_step_depends_on_nothing_but_its_run_file() {
    let mut problems = Vec::new();
    for source in sources() {
        let allowed = UNREPEATABLE_ALLOWED
            .iter()
            .filter(|(place, _)| is_within(&source.path, place));
        let allowed: Vec<&str> = allowed
            .flat_map(|(_, words)| words.iter().copied())
            .collect();
        for word in UNREPEATABLE.iter().filter(|word| !allowed.contains(word)) {
            for (line, code) in &source.code {
                if has_word(code, word) {
                    problems.push(format!("{}:{line}: {word}", source.path));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn unsafe_stands_in_listed_files_only() {
    let mut problems = Vec::new();
    let mut seen = Vec::new();
    for source in sources() {
        let uses = source
            .code
            .iter()
            .find(|(_, code)| has_word(code, "unsafe"));
        if let Some((line, _)) = uses {
            seen.push(source.path.clone());
            if !UNSAFE_FILES.contains(&source.path.as_str()) {
                problems.push(format!(
                    "{}:{line}: unsafe, but not in UNSAFE_FILES",
                    source.path
                ));
            }
        }
    }
    for listed in UNSAFE_FILES
        .iter()
        .filter(|listed| !seen.iter().any(|path| path == *listed))
    {
        problems.push(format!("{listed}: in UNSAFE_FILES, but has no unsafe"));
    }
    report(&problems);
}

#[test]
fn lints_are_expected_with_a_reason_not_allowed() {
    let mut problems = Vec::new();
    for path in rust_files(&["src", "tests", "examples", "benches"]) {
        for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let line = strip(line);
            let attribute = line.trim_start().starts_with('#') || line.contains("cfg_attr");
            if attribute && has_word(&line, "allow") {
                problems.push(format!("{}:{}: allow", relative(&path), i + 1));
            }
        }
    }
    report(&problems);
}

/// A test that no module names would never run.
#[test]
fn every_file_of_tests_is_a_module() {
    let mut problems = Vec::new();
    let mut pending = vec![(root().join("tests/it"), "main")];
    while let Some((folder, parent)) = pending.pop() {
        let parent_file = fs::read_to_string(folder.join(format!("{parent}.rs"))).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_module = parent_file
                .lines()
                .any(|line| line.trim_start_matches("pub(crate) ") == format!("mod {name};"));
            if name != parent && !is_module {
                problems.push(format!("{}: not a module of {parent}.rs", relative(&path)));
            }
            if path.is_dir() {
                pending.push((path, "mod"));
            }
        }
    }
    report(&problems);
}

/// The repository must build and test from a fresh clone anywhere.
#[test]
fn nothing_points_outside_the_repository() {
    let outside = [
        concat!("../", "shared"),
        concat!("/work", "/"),
        concat!("/tmp/", "peers"),
    ];
    let mut problems = Vec::new();
    let mut paths: Vec<PathBuf> = ["src", "tests", "examples", "scripts", ".ci", ".github"]
        .iter()
        .flat_map(|folder| files_under(&root().join(folder)))
        .collect();
    let top = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    // A worktree has a file `.git` that names the clone it belongs to.
    paths.extend(top.filter(|path| path.is_file() && !path.ends_with(".git")));
    for path in paths {
        // Data files need not be text.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (i, line) in text.lines().enumerate() {
            for place in outside.iter().filter(|place| line.contains(*place)) {
                problems.push(format!("{}:{}: {place}", relative(&path), i + 1));
            }
        }
    }
    report(&problems);
}

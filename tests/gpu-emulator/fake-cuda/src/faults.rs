//! Fault injection: `FAKE_CUDA_FAIL=op:n[:error]`, several separated by commas.
//!
//! `op` is the name of a driver function without its version suffix, or one of the groups `alloc`,
//! `memcpy`, `launch`, `sync`, `load`. The n-th such call (from 1) fails with `error` (a number or a
//! name; by default out of memory for allocations, launch failure for launches, unknown else). After an
//! error of those that end a context every later call of the context fails alike.

use std::sync::{Mutex, OnceLock};

use crate::error::{self, report, CuError};

struct Rule {
    op: String,
    at: u64,
    error: i32,
    seen: Mutex<u64>,
}

fn default_error(op: &str) -> i32 {
    if op == "alloc" || op.starts_with("cuMemAlloc") || op.starts_with("cuMemHostAlloc") {
        error::OUT_OF_MEMORY.0
    } else if op == "launch" || op.starts_with("cuLaunch") {
        error::LAUNCH_FAILED.0
    } else {
        error::UNKNOWN.0
    }
}

fn parse(text: &str) -> Option<Rule> {
    let mut parts = text.trim().split(':');
    let op = parts.next()?.to_string();
    let at = parts.next()?.parse().ok()?;
    let error = match parts.next() {
        None => default_error(&op),
        Some(code) => code.parse().ok().or_else(|| error::by_name(code))?,
    };
    Some(Rule {
        op,
        at,
        error,
        seen: Mutex::new(0),
    })
}

fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let text = std::env::var("FAKE_CUDA_FAIL").unwrap_or_default();
        let entries = text.split(',').filter(|e| !e.trim().is_empty());
        entries
            .filter_map(|entry| {
                let rule = parse(entry);
                if rule.is_none() {
                    report!("FAKE_CUDA_FAIL entry `{entry}` not understood");
                }
                rule
            })
            .collect()
    })
}

/// Does a rule name this function?
fn matches(op: &str, function: &str) -> bool {
    let base = function.trim_end_matches(|c: char| c.is_ascii_digit());
    let base = base.strip_suffix("_v").unwrap_or(function);
    match op {
        "alloc" => base.starts_with("cuMemAlloc") || base == "cuMemHostAlloc",
        "memcpy" => base.starts_with("cuMemcpy"),
        "launch" => ["cuLaunchK", "cuLaunchC", "cuGraphLaunch"]
            .iter()
            .any(|start| base.starts_with(start)),
        "sync" => base.ends_with("Synchronize"),
        "load" => base.starts_with("cuModuleLoad"),
        name => base == name || function == name,
    }
}

/// The error to inject into this call, if any.
pub(crate) fn inject(function: &str) -> Option<CuError> {
    let mut found = None;
    for rule in rules().iter().filter(|r| matches(&r.op, function)) {
        let mut seen = rule.seen.lock().unwrap_or_else(|e| e.into_inner());
        *seen += 1;
        if *seen == rule.at {
            report!(
                "injected error {} into call {} of {function}",
                rule.error,
                rule.at
            );
            found = Some(CuError(rule.error));
        }
    }
    found
}

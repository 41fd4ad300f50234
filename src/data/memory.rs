//! How much memory there is, asked before a file decides how much of it is taken.

use std::path::Path;

use super::DataError;

/// Refuses a table of `rows` rows of `width` 32-bit numbers that the machine has no room for.
///
/// What a header says is checked by this before anything is allocated by it.
pub(super) fn check(path: &Path, rows: usize, width: usize) -> Result<(), DataError> {
    let available = available().unwrap_or(u64::MAX);
    let bytes = (rows as u64)
        .checked_mul(width as u64)
        .and_then(|numbers| numbers.checked_mul(4));
    match bytes {
        Some(bytes) if bytes <= available => Ok(()),
        _ => Err(DataError::format(
            path,
            format!(
                "{rows} rows of {width} numbers take more memory than the {} MiB that are free; split \
                 the file, or read fewer columns",
                available >> 20
            ),
        )),
    }
}

/// Bytes that can be taken without swapping, where the system says so.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes << 10)
}

//! Whether there is room for a table, asked before a file decides how much memory is taken.

use std::path::Path;

use super::DataError;
use crate::memory::available;

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

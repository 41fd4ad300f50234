//! IDX: MNIST's format.
//!
//! Two zero bytes, the type of elements (8: unsigned bytes), the number of dimensions; then each
//! dimension as a big-endian 32-bit integer; then the elements, the last dimension fastest. Files
//! compressed by gzip are known by their first two bytes.

use std::io::Read;
use std::path::Path;

use super::arrays::Array;
use super::{DataError, files, memory};

/// The code of unsigned bytes.
const UNSIGNED_BYTES: u8 = 0x08;

/// What is done about a file that is another.
const OTHER: &str = "name another file, or set format in [data] to what it is";

/// Reads images, `[rows, height, width, channels]`: one channel where the file does not say.
pub(super) fn images(path: &Path, scale: f64) -> Result<Array, DataError> {
    let mut file = Bytes::read(path)?;
    match file.dimensions.len() {
        3 => file.dimensions.push(1),
        4 => {}
        _ => return Err(file.dimensions_problem(path, "images have 3 (rows, height, width)")),
    }
    let scaled: Vec<f32> = (0..=255_u8)
        .map(|byte| (f64::from(byte) * scale) as f32)
        .collect();
    let rows = file.dimensions[0];
    memory::check(path, rows, file.elements.len() / rows.max(1))?;
    Ok(Array {
        dimensions: file.dimensions,
        elements: file
            .elements
            .iter()
            .map(|&byte| scaled[usize::from(byte)])
            .collect(),
    })
}

/// Reads labels, `[rows]`.
pub(super) fn labels(path: &Path) -> Result<Array, DataError> {
    let file = Bytes::read(path)?;
    if file.dimensions.len() != 1 {
        return Err(file.dimensions_problem(path, "labels have 1 (rows)"));
    }
    Ok(Array {
        dimensions: file.dimensions,
        elements: file.elements.iter().map(|&byte| f32::from(byte)).collect(),
    })
}

/// The content of one file.
struct Bytes {
    dimensions: Vec<usize>,
    elements: Vec<u8>,
}

impl Bytes {
    fn read(path: &Path) -> Result<Self, DataError> {
        let mut bytes = Vec::new();
        files::open(path)?
            .read_to_end(&mut bytes)
            .map_err(|error| files::unreadable(path, error))?;
        let &[0, 0, kind, count, ref rest @ ..] = bytes.as_slice() else {
            let start = &bytes[..bytes.len().min(4)];
            let problem =
                format!("not an IDX file: it starts with {start:02x?}, not 00 00; {OTHER}");
            return Err(DataError::format(path, problem));
        };
        if kind != UNSIGNED_BYTES {
            let problem = format!(
                "elements of type 0x{kind:02x}; write them as unsigned bytes, 0x08, or as a numpy array"
            );
            return Err(DataError::format(path, problem));
        }
        let header = 4 * usize::from(count);
        let Some((sizes, elements)) = rest.split_at_checked(header) else {
            return Err(DataError::format(
                path,
                format!("cut off within its header; {}", files::AGAIN),
            ));
        };
        let dimensions: Vec<_> = sizes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|size| u32::from_be_bytes(*size) as usize)
            .collect();
        let expected = dimensions
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size));
        if expected != Some(elements.len()) {
            let problem = format!(
                "the header says {} elements, but {} follow; {}",
                describe(&dimensions),
                elements.len(),
                files::AGAIN
            );
            return Err(DataError::format(path, problem));
        }
        bytes.drain(..4 + header);
        Ok(Self {
            dimensions,
            elements: bytes,
        })
    }

    fn dimensions_problem(&self, path: &Path, needs: &str) -> DataError {
        let problem = format!(
            "{} dimensions ({}), but {needs}; {OTHER}",
            self.dimensions.len(),
            describe(&self.dimensions)
        );
        DataError::format(path, problem)
    }
}

/// `2 x 28 x 28`
pub(super) fn describe(dimensions: &[usize]) -> String {
    let sizes: Vec<_> = dimensions.iter().map(usize::to_string).collect();
    sizes.join(" x ")
}

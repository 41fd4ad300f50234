//! IDX: MNIST's format.
//!
//! Two zero bytes, the type of elements (8: unsigned bytes), the number of dimensions; then each
//! dimension as a big-endian 32-bit integer; then the elements, the last dimension fastest. Files
//! compressed by gzip are known by their first two bytes.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::{DataError, IdxPair, Table, Targets, Task};
use crate::layers::Shape;

/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The code of unsigned bytes.
const UNSIGNED_BYTES: u8 = 0x08;

/// Reads images and labels. Classes have the names given, or their numbers as names.
pub(super) fn read(
    pair: &IdxPair,
    task: Task,
    classes: Option<&[String]>,
    scale: f64,
) -> Result<Table, DataError> {
    let IdxPair { images, labels } = pair;
    let image = Array::read(images)?;
    let label = Array::read(labels)?;
    let shape = match image.dimensions[..] {
        [_, height, width] => Shape(vec![height, width, 1]),
        [_, height, width, channels] => Shape(vec![height, width, channels]),
        _ => return Err(image.dimensions_problem(images, "images have 3 (rows, height, width)")),
    };
    let [label_rows] = label.dimensions[..] else {
        return Err(label.dimensions_problem(labels, "labels have 1 (rows)"));
    };
    let rows = image.dimensions[0];
    if rows != label_rows {
        return Err(DataError::Pair {
            images: images.clone(),
            labels: labels.clone(),
            image_rows: rows,
            label_rows,
        });
    }
    if rows == 0 || shape.elements() == 0 {
        return Err(format(images, "no images in it"));
    }
    let target_kind = match task {
        Task::Regression => Targets::Numbers(1),
        Task::Classification => Targets::Classes(match classes {
            Some(names) => names.to_vec(),
            None => {
                let largest = label.elements.iter().max().copied().unwrap_or(0);
                (0..=largest).map(|class| class.to_string()).collect()
            }
        }),
    };
    if let Targets::Classes(names) = &target_kind {
        let unknown = label
            .elements
            .iter()
            .position(|&class| usize::from(class) >= names.len());
        if let Some(row) = unknown {
            let class = label.elements[row];
            let problem = format!(
                "unknown label {class} in row {row}; known are 0 to {}",
                names.len().saturating_sub(1)
            );
            return Err(format(labels, problem));
        }
    }
    let scaled: Vec<f32> = (0..=255_u8)
        .map(|byte| (f64::from(byte) * scale) as f32)
        .collect();
    Ok(Table {
        features: image
            .elements
            .iter()
            .map(|&byte| scaled[usize::from(byte)])
            .collect(),
        targets: label
            .elements
            .iter()
            .map(|&class| f32::from(class))
            .collect(),
        ..Table::empty(shape, target_kind, rows)
    })
}

/// The content of one file.
struct Array {
    dimensions: Vec<usize>,
    elements: Vec<u8>,
}

impl Array {
    fn read(path: &Path) -> Result<Self, DataError> {
        let mut bytes = fs::read(path).map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
        if bytes.starts_with(&GZIP) {
            let mut plain = Vec::new();
            MultiGzDecoder::new(bytes.as_slice())
                .read_to_end(&mut plain)
                .map_err(|error| format(path, format!("cut off or damaged gzip data: {error}")))?;
            bytes = plain;
        }
        let &[0, 0, kind, count, ref rest @ ..] = bytes.as_slice() else {
            let start = &bytes[..bytes.len().min(4)];
            let problem = format!("not an IDX file: it starts with {start:02x?}, not 00 00");
            return Err(format(path, problem));
        };
        if kind != UNSIGNED_BYTES {
            let problem =
                format!("elements of type 0x{kind:02x}; only unsigned bytes, 0x08, are read");
            return Err(format(path, problem));
        }
        let header = 4 * usize::from(count);
        let Some((sizes, elements)) = rest.split_at_checked(header) else {
            return Err(format(path, "cut off within its header"));
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
                "the header says {} elements, but {} follow",
                describe(&dimensions),
                elements.len()
            );
            return Err(format(path, problem));
        }
        bytes.drain(..4 + header);
        Ok(Self {
            dimensions,
            elements: bytes,
        })
    }

    fn dimensions_problem(&self, path: &Path, needs: &str) -> DataError {
        let problem = format!(
            "{} dimensions ({}), but {needs}",
            self.dimensions.len(),
            describe(&self.dimensions)
        );
        format(path, problem)
    }
}

fn describe(dimensions: &[usize]) -> String {
    let sizes: Vec<_> = dimensions.iter().map(usize::to_string).collect();
    sizes.join(" x ")
}

fn format(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::Format {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

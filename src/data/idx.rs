//! IDX files, MNIST's format, plain or compressed by gzip: two zero bytes, a type (8 for bytes), the
//! number of dimensions, each dimension as a big-endian 32-bit number, then the elements.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;

use super::{DataError, IdxPair, Table, Targets};
use crate::layers::Shape;

/// Reads images and their labels, which are class indices.
pub(super) fn read(pair: &IdxPair, classes: Option<&[String]>) -> Result<Table, DataError> {
    let (dimensions, pixels) = read_file(&pair.images, 3)?;
    let (label_dimensions, labels) = read_file(&pair.labels, 1)?;
    let [rows, height, width] = dimensions[..] else {
        unreachable!("three were asked for")
    };
    let problem = |path: &Path, problem: String| DataError::Read {
        path: path.to_owned(),
        problem,
    };
    if label_dimensions[0] != rows {
        let text = format!(
            "{} labels, but {} has {rows} images",
            label_dimensions[0],
            pair.images.display()
        );
        return Err(problem(&pair.labels, text));
    }
    if rows == 0 {
        return Err(DataError::Empty {
            path: pair.images.clone(),
        });
    }
    let highest = labels.iter().copied().max().unwrap_or(0);
    let classes = match classes {
        Some(classes) => classes.to_vec(),
        None => (0..=highest).map(|class| class.to_string()).collect(),
    };
    if let Some(index) = labels
        .iter()
        .position(|&label| usize::from(label) >= classes.len())
    {
        let text = format!(
            "label {} of image {index} is not one of the {} classes {}",
            labels[index],
            classes.len(),
            classes.join(", ")
        );
        return Err(problem(&pair.labels, text));
    }
    Ok(Table {
        features: pixels.into_iter().map(f32::from).collect(),
        targets: labels.into_iter().map(f32::from).collect(),
        ..Table::empty(
            Shape(vec![height, width, 1]),
            Targets::Classes(classes),
            rows,
        )
    })
}

fn read_file(path: &Path, dimensions: usize) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let problem = |problem: String| DataError::Read {
        path: path.to_owned(),
        problem,
    };
    let file = File::open(path).map_err(|error| problem(error.to_string()))?;
    let mut file = BufReader::new(file);
    let mut bytes = Vec::new();
    let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
    let read = match is_compressed {
        true => GzDecoder::new(file).read_to_end(&mut bytes),
        false => file.read_to_end(&mut bytes),
    };
    read.map_err(|error| problem(format!("{error}; the file is cut off or damaged")))?;
    let header = 4 + 4 * dimensions;
    let magic = [0, 0, 8, dimensions as u8];
    if bytes.len() < header || bytes[..4] != magic {
        let kind = if dimensions == 1 { "labels" } else { "images" };
        return Err(problem(format!(
            "not an IDX file of {kind}: it must begin with {magic:?}"
        )));
    }
    let sizes: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
        .collect();
    let elements: usize = sizes.iter().product();
    if bytes.len() - header != elements {
        let found = bytes.len() - header;
        return Err(problem(format!(
            "{found} bytes of data, but {sizes:?} need {elements}"
        )));
    }
    Ok((sizes, bytes.split_off(header)))
}

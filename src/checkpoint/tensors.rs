//! Tensors in a file, in the safetensors format: a length, a JSON header, and the numbers.
//!
//! The header is written here, because its bytes must be a function of names, shapes and order
//! alone; reading goes through the `safetensors` crate, which checks what it is given.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A whole tensor to save.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Unique name, `layer/weight`.
    pub name: &'a str,
    /// Dimensions, row-major.
    pub shape: &'a [usize],
    /// Its elements, without padding.
    pub values: &'a [f32],
}

/// A run of elements of one array of optimizer state to save.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Name of the parameter.
    pub tensor: &'a str,
    /// Name of the state: `m`.
    pub state: &'a str,
    /// First element, counted from the tensor's first.
    pub start: usize,
    /// The elements, without padding.
    pub values: &'a [f32],
}

impl Piece<'_> {
    /// The name a piece is stored under.
    pub(super) fn stored_name(&self) -> String {
        let end = self.start + self.values.len();
        format!("{}/{}[{}..{end}]", self.tensor, self.state, self.start)
    }
}

/// Splits the name of a stored piece into `tensor/state` and its elements.
pub(super) fn parse_piece(stored: &str) -> Option<(&str, Range<usize>)> {
    let (array, range) = stored.strip_suffix(']')?.rsplit_once('[')?;
    let (start, end) = range.split_once("..")?;
    Some((array, start.parse().ok()?..end.parse().ok()?))
}

/// Tensors of a file by name, each with its shape.
pub type StoredTensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The tensors of a file's contents, in the safetensors format.
///
/// # Errors
/// What is wrong with the contents.
pub fn decode_all(contents: &[u8]) -> Result<StoredTensors, String> {
    let tensor = |(name, found): (&str, TensorView<'_>)| {
        let mut values = vec![0.0; found.data().len() / size_of::<f32>()];
        decode(found.data(), &mut values);
        (name.to_owned(), (found.shape().to_vec(), values))
    };
    Ok(parse_tensors(contents)?.iter().map(tensor).collect())
}

/// The contents of a file with these tensors, in the order given: what a checkpoint of them holds.
///
/// # Panics
/// If a shape is not that of its values.
pub fn encode(tensors: &[Named<'_>]) -> Vec<u8> {
    let mut contents = Vec::new();
    write_tensors(&mut contents, tensors).expect("memory takes whatever is written");
    contents
}

/// Writes tensors in the order given.
///
/// # Panics
/// If a shape is not that of its values.
pub(super) fn write_tensors(out: &mut dyn Write, tensors: &[Named<'_>]) -> io::Result<()> {
    let mut header = String::from("{");
    let mut end = 0;
    for (index, tensor) in tensors.iter().enumerate() {
        let elements = tensor.shape.iter().product::<usize>();
        assert_eq!(elements, tensor.values.len(), "shape of '{}'", tensor.name);
        let start = end;
        end += size_of_val(tensor.values);
        let comma = if index == 0 { "" } else { "," };
        let name = serde_json::to_string(tensor.name)?;
        let shape = serde_json::to_string(tensor.shape)?;
        header.push_str(&format!(
            r#"{comma}{name}:{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#
        ));
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for tensor in tensors {
        write_little_endian(out, tensor.values)?;
    }
    Ok(())
}

fn write_little_endian(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(values));
    }
    values
        .iter()
        .try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

/// The tensors of a file's contents.
///
/// # Errors
/// What is wrong with the contents.
pub(super) fn parse_tensors(contents: &[u8]) -> Result<SafeTensors<'_>, String> {
    let tensors = SafeTensors::deserialize(contents).map_err(|error| error.to_string())?;
    for (name, tensor) in tensors.iter() {
        if tensor.dtype() != Dtype::F32 {
            return Err(format!(
                "tensor '{name}' is {:?}, expected F32",
                tensor.dtype()
            ));
        }
    }
    Ok(tensors)
}

/// Decodes `from` into `to`.
///
/// # Panics
/// If the lengths differ.
pub(super) fn decode(from: &[u8], to: &mut [f32]) {
    let (numbers, rest) = from.as_chunks();
    assert!(
        rest.is_empty() && numbers.len() == to.len(),
        "lengths differ"
    );
    for (value, number) in to.iter_mut().zip(numbers) {
        *value = f32::from_le_bytes(*number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let tensors = [
            Named {
                name: "b/\"quoted\"",
                shape: &[2, 1],
                values: &[1.5, -0.0],
            },
            Named {
                name: "a",
                shape: &[],
                values: &[f32::MIN_POSITIVE],
            },
            Named {
                name: "empty",
                shape: &[0, 3],
                values: &[],
            },
        ];
        let mut contents = Vec::new();
        write_tensors(&mut contents, &tensors).unwrap();
        let read = parse_tensors(&contents).unwrap();
        assert_eq!(read.len(), 3);
        for tensor in &tensors {
            let found = read.tensor(tensor.name).unwrap();
            assert_eq!(found.shape(), tensor.shape);
            let mut values = vec![9.0; tensor.values.len()];
            decode(found.data(), &mut values);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values), bits(tensor.values));
        }
    }

    #[test]
    fn a_file_without_tensors_is_read() {
        let mut contents = Vec::new();
        write_tensors(&mut contents, &[]).unwrap();
        assert_eq!(parse_tensors(&contents).unwrap().len(), 0);
    }

    #[test]
    fn pieces_are_named_by_array_and_range() {
        let piece = Piece {
            tensor: "odd[1]/kernel",
            state: "m",
            start: 64,
            values: &[0.0; 6],
        };
        assert_eq!(piece.stored_name(), "odd[1]/kernel/m[64..70]");
        assert_eq!(
            parse_piece(&piece.stored_name()),
            Some(("odd[1]/kernel/m", 64..70))
        );
        assert_eq!(parse_piece("dense/kernel/m"), None);
        assert_eq!(parse_piece("m[1..x]"), None);
    }

    #[test]
    fn other_types_are_refused() {
        let header = br#"{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}  "#;
        let mut contents = (header.len() as u64).to_le_bytes().to_vec();
        contents.extend_from_slice(header);
        contents.extend_from_slice(&[0; 4]);
        let problem = parse_tensors(&contents).unwrap_err();
        assert!(problem.contains("'a' is I32"), "{problem}");
    }
}

//! numpy's `.npy`, and arrays within an `.npz`.
//!
//! `\x93NUMPY`, the version (two bytes), the length of the header (two little-endian bytes, or four
//! from version 2 on), the header: a Python dictionary of the elements' type, their order and the
//! shape; then the elements. An `.npz` is a zip of such files, named after the arrays; the array
//! `x_train` of `mnist.npz` is called by the path `mnist.npz/x_train`, as though the archive were a
//! folder.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use half::f16;
use zip::ZipArchive;
use zip::result::ZipError;

use super::arrays::Array;
use super::files::{self, AGAIN};
use super::idx::describe;
use super::{DataError, memory};
use crate::named::hint;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Most bytes of a header that are read.
const LONGEST_HEADER: u64 = 1 << 20;

/// Elements converted at a time.
const CHUNK: usize = 1 << 14;

/// Reads an array, each element multiplied by `scale` in `f64`.
pub(super) fn read(path: &Path, scale: f64) -> Result<Array, DataError> {
    let unreadable = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let (archive, name) = split(path);
    let file = File::open(archive).map_err(unreadable)?;
    if archive.extension().is_some_and(|end| end == "npz") {
        return in_archive(path, archive, file, name.as_deref(), scale);
    }
    let len = file.metadata().map_err(unreadable)?.len();
    array(
        path,
        BufReader::with_capacity(files::BUFFER, file),
        len,
        scale,
    )
}

/// The archive that a path leads into.
pub(super) fn archive_of(path: &Path) -> Option<&Path> {
    let is_archive = |path: &&Path| path.extension().is_some_and(|end| end == "npz");
    path.ancestors()
        .skip(1)
        .find(|above| is_archive(above) && above.is_file())
}

/// The file that a path leads to or into, and the name of the array in it.
fn split(path: &Path) -> (&Path, Option<String>) {
    match archive_of(path) {
        Some(archive) => {
            let name = path.strip_prefix(archive).unwrap_or(path);
            (archive, Some(name.to_string_lossy().into_owned()))
        }
        None => (path, None),
    }
}

/// Reads one array of an archive: the one of that name, or the only one.
fn in_archive(
    path: &Path,
    archive: &Path,
    file: File,
    name: Option<&str>,
    scale: f64,
) -> Result<Array, DataError> {
    let broken = |error: ZipError| match error {
        ZipError::Io(source) => files::unreadable(archive, source),
        error => DataError::format(
            archive,
            format!("not an .npz file, or cut off: {error}; {AGAIN}"),
        ),
    };
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut names = Vec::new();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(broken)?;
        let entry = entry.name().map_err(broken)?;
        names.push(entry.strip_suffix(".npy").unwrap_or(&entry).to_owned());
    }
    let index = match (name, &names[..]) {
        (None, [_]) => Some(0),
        (None, _) => {
            let problem = format!(
                "{} arrays in it: {}; name one behind a slash, as though the file were a folder",
                names.len(),
                names.join(", ")
            );
            return Err(DataError::format(archive, problem));
        }
        (Some(name), _) => names.iter().position(|other| other == name),
    };
    let Some(index) = index else {
        let name = name.unwrap_or_default();
        let problem = format!("no array '{name}'{}", hint(name, &names));
        return Err(DataError::format(archive, problem));
    };
    let entry = zip.by_index(index).map_err(broken)?;
    let len = entry.size();
    array(path, entry, len, scale)
}

/// Reads `len` bytes in the format of `.npy`.
fn array(path: &Path, mut file: impl Read, len: u64, scale: f64) -> Result<Array, DataError> {
    let fail = |problem: String| DataError::format(path, problem);
    let mut start = [0; 8];
    let mut count = [0; 4];
    let (header, begin) = (|| {
        file.read_exact(&mut start).ok()?;
        if !start.starts_with(MAGIC) {
            return None;
        }
        let size = if start[6] == 1 { 2 } else { 4 };
        file.read_exact(&mut count[..size]).ok()?;
        let header_len = u64::from(u32::from_le_bytes(count)).min(LONGEST_HEADER);
        let mut header = Vec::new();
        file.by_ref()
            .take(header_len)
            .read_to_end(&mut header)
            .ok()?;
        let begin = start.len() as u64 + size as u64 + header_len;
        (header.len() as u64 == header_len).then_some((header, begin))
    })()
    .ok_or_else(|| fail(format!(
            "not a .npy file, or cut off within its header; {AGAIN}, or set format in [data] to what it is"
        )))?;
    let header = Header::parse(&String::from_utf8_lossy(&header)).map_err(fail)?;
    let expected = (header.dimensions.iter())
        .try_fold(1_usize, |product, &size| product.checked_mul(size))
        .and_then(|count| count.checked_mul(header.element.size));
    if expected.map(|bytes| bytes as u64) != len.checked_sub(begin) {
        return Err(fail(format!(
            "the header says {} elements of {} bytes, but {} bytes follow; {AGAIN}",
            describe(&header.dimensions),
            header.element.size,
            len.saturating_sub(begin)
        )));
    }
    let count: usize = header.dimensions.iter().product();
    let rows = header.dimensions.first().copied().unwrap_or(1);
    memory::check(path, rows, count / rows.max(1))?;
    let damaged = |error| fail(format!("cut off or damaged: {error}; {AGAIN}"));
    let mut elements = Vec::new();
    let mut bytes = vec![0; CHUNK * header.element.size];
    while elements.len() < count {
        let bytes = &mut bytes[..CHUNK.min(count - elements.len()) * header.element.size];
        file.read_exact(bytes).map_err(damaged)?;
        for element in bytes.chunks_exact(header.element.size) {
            let value = header.element.value(element);
            let scaled = (value * scale) as f32;
            if !scaled.is_finite() {
                return Err(fail(format!(
                    "row {}: {value} is no finite 32-bit number; mend it, or leave the row out",
                    elements.len() / (count / rows) + 1
                )));
            }
            elements.push(scaled);
        }
    }
    // An archive compares its checksum where its end is read.
    file.read(&mut bytes).map_err(damaged)?;
    Ok(Array {
        dimensions: header.dimensions,
        elements,
    })
}

/// An array of `f32` in the format of `.npy`.
pub(crate) fn to_npy(dimensions: &[usize], elements: &[f32]) -> Vec<u8> {
    let sizes: String = dimensions.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    // With what stands before it and the end of the line, a multiple of 64 bytes.
    let len = (MAGIC.len() + 4 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 4;
    let mut bytes = [MAGIC, &[1, 0], &(len as u16).to_le_bytes()].concat();
    bytes.extend(format!("{header:<0$}\n", len - 1).into_bytes());
    bytes.extend(elements.iter().flat_map(|element| element.to_le_bytes()));
    bytes
}

/// What the header says.
#[derive(Debug, PartialEq)]
struct Header {
    element: Element,
    dimensions: Vec<usize>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
    fn parse(text: &str) -> Result<Self, String> {
        let entry = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}'"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let whole = || {
            let order = entry("fortran_order")?;
            let shape = entry("shape")?.strip_prefix('(')?.split_once(')')?.0;
            let sizes = shape
                .split(',')
                .map(str::trim)
                .filter(|size| !size.is_empty());
            let dimensions: Vec<usize> =
                sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?;
            Some((order.starts_with("True"), dimensions))
        };
        let (is_fortran, dimensions) = whole().ok_or_else(|| {
            format!(
                "its header is not numpy's: {}; write it by numpy.save",
                text.trim_end()
            )
        })?;
        if is_fortran && dimensions.len() > 1 {
            return Err(
                "its elements are in Fortran's order; save numpy.ascontiguousarray(..)".to_owned(),
            );
        }
        let kind = entry("descr").unwrap_or_default();
        let kind = kind
            .strip_prefix('\'')
            .and_then(|kind| kind.split_once('\''));
        let kind = kind.map_or("a structure", |(kind, _)| kind);
        let element = Element::parse(kind).ok_or_else(|| {
            format!(
                "elements of type {kind}; numbers of up to 8 bytes are read: save it with astype(\"float32\")"
            )
        })?;
        Ok(Self {
            element,
            dimensions,
        })
    }
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Element {
    kind: Kind,
    size: usize,
    is_big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

impl Element {
    /// `<f4`
    fn parse(text: &str) -> Option<Self> {
        let order = text
            .chars()
            .next()
            .filter(|order| "<>|=".contains(*order))?;
        let (kind, size) = match &text[1..] {
            "f2" => (Kind::Float, 2),
            "f4" => (Kind::Float, 4),
            "f8" => (Kind::Float, 8),
            "i1" => (Kind::Signed, 1),
            "i2" => (Kind::Signed, 2),
            "i4" => (Kind::Signed, 4),
            "i8" => (Kind::Signed, 8),
            "u1" | "b1" => (Kind::Unsigned, 1),
            "u2" => (Kind::Unsigned, 2),
            "u4" => (Kind::Unsigned, 4),
            "u8" => (Kind::Unsigned, 8),
            _ => return None,
        };
        Some(Self {
            kind,
            size,
            is_big_endian: order == '>',
        })
    }

    fn value(self, bytes: &[u8]) -> f64 {
        let mut word = [0; 8];
        word[..self.size].copy_from_slice(bytes);
        if self.is_big_endian {
            word[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(word);
        match (self.kind, self.size) {
            (Kind::Float, 2) => f16::from_bits(bits as u16).to_f64(),
            (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::Unsigned, _) => bits as f64,
            (Kind::Signed, size) => {
                // The sign is moved to the top and back, over all bits above.
                let above = 64 - 8 * size as u32;
                (((bits << above) as i64) >> above) as f64
            }
        }
    }
}

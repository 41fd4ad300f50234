//! TFRecord with `tf.Example`, plain or compressed by gzip or zlib.
//!
//! A record is its length (eight little-endian bytes), the length's checksum, the data and the data's
//! checksum: CRC-32C, rotated and shifted so that a checksum of data that has checksums in it is not
//! weak. The data is a protocol buffer, `Example { features: Features { feature: map<string, Feature> } }`,
//! where a `Feature` is a list of bytes, floats or integers. Those six messages are read here.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::iter;
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;

use super::keyed::{Keyed, Row};
use super::rows::Spec;
use super::scalar::Scalar;
use super::{DataError, Place, Table, files};

/// Bytes before the data of a record.
const HEADER: usize = 12;

/// Reads files. A record whose data are damaged or no example is an error, or with `skip_damaged` passed over and
/// counted; one whose length is damaged is always an error, for where the next begins is not known.
pub(super) fn read(
    paths: &[PathBuf],
    spec: &Spec<'_>,
    skip_damaged: bool,
) -> Result<Table, DataError> {
    let mut table = Keyed::new(spec);
    // Predictions stand for rows, so that none may be missing.
    let remedy = match spec.labels {
        [] => files::AGAIN,
        _ => files::AGAIN_OR_SKIP,
    };
    for path in paths {
        let mut reader = open(path)?;
        let (mut skipped, mut first) = (0, None);
        let mut record = Vec::new();
        let mut records = 0;
        loop {
            let read = match next(&mut reader, &mut record) {
                Ok(false) => break,
                Ok(true) => example(&record).ok_or(Damage::Data("no tf.Example")),
                Err(damage) => Err(damage),
            };
            records += 1;
            match read {
                Ok(row) => table.push(path, Place::Record(records), &row)?,
                Err(Damage::Data(problem)) if skip_damaged => {
                    skipped += 1;
                    first.get_or_insert((records, problem));
                }
                Err(damage) => return Err(damage.of(path, records, remedy)),
            }
        }
        if let Some((first, problem)) = first {
            tracing::warn!(
                "{}: skipped {skipped} of {records} records; the first, record {first}: {problem}",
                path.display()
            );
        }
    }
    table.finish(&paths[0])
}

/// The data of the records of a file. Behind damaged data there are more; where a record ends that has no length,
/// nobody knows.
pub(super) fn records(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Vec<u8>, DataError>> + Send + use<>, DataError> {
    let path = path.to_owned();
    let mut reader = Some(open(&path)?);
    let mut number = 0;
    Ok(iter::from_fn(move || {
        number += 1;
        let mut record = Vec::new();
        let read = next(reader.as_mut()?, &mut record);
        if !matches!(read, Ok(true) | Err(Damage::Data(_))) {
            reader = None;
        }
        match read {
            Ok(true) => Some(Ok(record)),
            Ok(false) => None,
            Err(damage) => Some(Err(damage.of(&path, number, files::AGAIN))),
        }
    }))
}

/// What lies in a file: its first twelve bytes are a length and its checksum, unless it is compressed.
fn open(path: &Path) -> Result<files::Contents, DataError> {
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let file = files::opened(path).map_err(failed)?;
    let mut file = BufReader::with_capacity(files::BUFFER, file);
    let start = file.fill_buf().map_err(failed)?;
    let is_plain = start
        .first_chunk()
        .is_none_or(|header| length(header).is_some());
    Ok(match start {
        _ if is_plain => Box::new(file),
        start if start.starts_with(&files::GZIP) => Box::new(files::Gzip::new(file)),
        &[first, second, ..] if files::is_zlib([first, second]) => Box::new(ZlibDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// What is wrong with a record.
enum Damage {
    /// The file cannot be read.
    File(io::Error),
    /// Where the record ends is not known.
    Length(String),
    /// Its data are nothing to read.
    Data(&'static str),
}

impl Damage {
    /// The error of record `number` of the file at `path`, counted from 1; `remedy` is what is done about data
    /// that are nothing to read.
    fn of(self, path: &Path, number: u64, remedy: &str) -> DataError {
        let problem = match self {
            Self::File(error) => return files::unreadable(path, error),
            Self::Length(problem) => problem,
            Self::Data(problem) => format!("{problem}; {remedy}"),
        };
        let error = DataError::Row {
            path: path.to_owned(),
            place: Place::Record(number),
            problem,
        };
        files::cause(error, open)
    }
}

/// Reads the data of the next record, where there is one.
fn next(reader: &mut impl Read, record: &mut Vec<u8>) -> Result<bool, Damage> {
    let damaged = |problem| Damage::Length(format!("{problem}; {}", files::AGAIN));
    let cut_off = || damaged("cut off");
    let broken = |error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => cut_off(),
        _ => Damage::File(error),
    };
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match reader.read(&mut header[filled..]).map_err(broken)? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(cut_off()),
            read => filled += read,
        }
    }
    let length = length(&header)
        .ok_or_else(|| damaged("its length is damaged, or the file is no TFRecord"))?;
    record.clear();
    // Grows by what is there, whatever the length says.
    let read = reader
        .by_ref()
        .take(length)
        .read_to_end(record)
        .map_err(broken)?;
    if read as u64 != length {
        return Err(cut_off());
    }
    let mut checksum = [0; 4];
    reader.read_exact(&mut checksum).map_err(broken)?;
    match u32::from_le_bytes(checksum) == masked_checksum(record) {
        true => Ok(true),
        false => Err(Damage::Data("damaged: its checksum is another")),
    }
}

/// A record as it stands in a file.
pub(crate) fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    [
        &length[..],
        &masked_checksum(&length).to_le_bytes(),
        record,
        &masked_checksum(record).to_le_bytes(),
    ]
    .concat()
}

/// The length that a header says, where its checksum is right.
fn length(header: &[u8; HEADER]) -> Option<u64> {
    let (length, checksum) = header.split_first_chunk::<8>()?;
    let checksum = u32::from_le_bytes(checksum.try_into().ok()?);
    (masked_checksum(length) == checksum).then_some(u64::from_le_bytes(*length))
}

/// The CRC-32C of `bytes` as TFRecord stores it.
fn masked_checksum(bytes: &[u8]) -> u32 {
    /// The remainders of single bytes, by Castagnoli's polynomial with its bits reversed.
    const REMAINDERS: [u32; 256] = {
        let mut remainders = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut remainder = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                remainder = (remainder >> 1) ^ (0x82f6_3b78 * (remainder & 1));
                bit += 1;
            }
            remainders[byte] = remainder;
            byte += 1;
        }
        remainders
    };
    let checksum = !bytes.iter().fold(!0, |checksum: u32, &byte| {
        (checksum >> 8) ^ REMAINDERS[usize::from(checksum as u8 ^ byte)]
    });
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The features of a serialised `tf.Example`.
fn example(bytes: &[u8]) -> Option<Row> {
    let mut row = Row::new();
    for features in submessages(bytes, 1)? {
        for entry in submessages(features, 1)? {
            let key = submessages(entry, 1)?.pop().unwrap_or_default();
            let feature = submessages(entry, 2)?.pop().unwrap_or_default();
            row.insert(String::from_utf8(key.to_vec()).ok()?, values(feature)?);
        }
    }
    Some(row)
}

/// The values of a `Feature`: it has one of three lists.
fn values(feature: &[u8]) -> Option<Vec<Scalar>> {
    let mut values = Vec::new();
    for texts in submessages(feature, 1)? {
        let texts = submessages(texts, 1)?;
        values.extend(texts.into_iter().map(|text| Scalar::Text(text.to_vec())));
    }
    for floats in submessages(feature, 2)? {
        for field in fields(floats)? {
            // A list of floats is written as one field, or as one each.
            let bytes = match field {
                (1, Wire::Bytes(bytes)) => bytes,
                (1, Wire::Word(bytes)) => bytes,
                _ => continue,
            };
            let (floats, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return None;
            }
            values.extend(
                floats
                    .iter()
                    .map(|float| Scalar::Single(f32::from_le_bytes(*float))),
            );
        }
    }
    for integers in submessages(feature, 3)? {
        for field in fields(integers)? {
            match field {
                (1, Wire::Integer(integer)) => values.push(Scalar::Integer(integer as i64)),
                (1, Wire::Bytes(mut bytes)) => {
                    while !bytes.is_empty() {
                        values.push(Scalar::Integer(varint(&mut bytes)? as i64));
                    }
                }
                _ => {}
            }
        }
    }
    Some(values)
}

/// A field's value, as protocol buffers write it.
enum Wire<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Word(&'a [u8]),
    Other,
}

/// The fields of a message: number and value.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Wire::Integer(varint(&mut bytes)?),
            1 => {
                bytes.split_off(..8)?;
                Wire::Other
            }
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                Wire::Bytes(bytes.split_off(..len)?)
            }
            5 => Wire::Word(bytes.split_off(..4)?),
            _ => return None,
        };
        fields.push((tag >> 3, value));
    }
    Some(fields)
}

/// The values of one field that holds messages, texts or lists.
fn submessages(bytes: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let field = |field| match field {
        (at, Wire::Bytes(bytes)) if at == number => Some(bytes),
        _ => None,
    };
    Some(fields(bytes)?.into_iter().filter_map(field).collect())
}

/// An integer of seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4, before the mask.
        let unmasked = |bytes: &[u8]| {
            masked_checksum(bytes)
                .wrapping_sub(0xa282_ead8)
                .rotate_left(15)
        };
        assert_eq!(unmasked(&[0; 32]), 0x8a91_36aa);
        assert_eq!(unmasked(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(unmasked(b"123456789"), 0xe306_9283);
    }
}

//! Parquet: columns of numbers, truth values and texts.

use std::cell::Cell;
use std::fmt::Display;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::Once;

use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use super::rows::{Builder, Places, Spec, each_once, same_columns};
use super::scalar::Scalar;
use super::{DataError, Place, Table, files, memory};
use crate::columns::Encoder;

/// Rows converted at a time.
const BATCH: usize = 1 << 12;

/// Reads files with the same columns.
pub(super) fn read(paths: &[PathBuf], spec: &Spec<'_>) -> Result<Table, DataError> {
    let mut builder = Builder::new(spec);
    let mut columns: Vec<String> = Vec::new();
    for path in paths {
        let first = (path != &paths[0]).then_some((&*paths[0], &columns[..]));
        columns = caught(|| read_file(path, spec, first, &mut builder))
            .unwrap_or_else(|| Err(broken(path, "its metadata and its pages do not agree")))?;
    }
    let places = Places::find(&paths[0], &columns, spec)?;
    let names = places.features.iter().map(|&index| columns[index].clone());
    builder.finish(&paths[0], names.collect())
}

thread_local! {
    /// Whether a panic of this thread is caught.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `read` returns, or nothing where it panics, as the crate does at some damage: the error says all,
/// so that the panic is not printed. What is half built is to be dropped with the error.
fn caught<T>(read: impl FnOnce() -> T) -> Option<T> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match IS_CAUGHT.get() {
            true => tracing::debug!("{panic}"),
            false => report(panic),
        }));
    });
    IS_CAUGHT.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    IS_CAUGHT.set(false);
    read.ok()
}

/// Adds the rows of a file, whose columns are those of the first. Returns their names.
fn read_file(
    path: &Path,
    spec: &Spec<'_>,
    first: Option<(&Path, &[String])>,
    builder: &mut Builder<'_>,
) -> Result<Vec<String>, DataError> {
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let reader = SerializedFileReader::new(file).map_err(|error| {
        let again = files::AGAIN;
        let problem = format!(
            "not a Parquet file, or cut off: {error}; {again}, or set format in [data] to what it is"
        );
        DataError::format(path, problem)
    })?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let names: Vec<_> = fields.iter().map(|field| field.name().to_owned()).collect();
    each_once(&names).map_err(|problem| DataError::format(path, problem))?;
    if let Some(first) = first {
        same_columns(path, &names, first)?;
    }
    let places = Places::find(path, &names, spec)?;
    let leaves = leaves(path, schema, &names)?;
    let mut first_row = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader
            .get_row_group(group)
            .map_err(|error| broken(path, error))?;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(usize::MAX);
        let width = spec.encoder.map_or(places.features.len(), Encoder::width);
        memory::check(path, rows, width)?;
        let mut reader = GroupReader::new(path, &*group, (&names, &leaves, &places), first_row)?;
        reader.read(rows, builder)?;
        first_row += rows as u64;
    }
    Ok(names)
}

/// Where in the file each column's values stand: those of nested columns are in several places, so that
/// they have none.
fn leaves(
    path: &Path,
    schema: &SchemaDescriptor,
    names: &[String],
) -> Result<Vec<Option<usize>>, DataError> {
    let mut leaves = vec![None; names.len()];
    for (index, column) in schema.columns().iter().enumerate() {
        let is_flat = column.path().parts().len() == 1 && column.max_rep_level() == 0;
        let place = leaves.get_mut(schema.get_column_root_idx(index));
        let place = place.ok_or_else(|| broken(path, "its schema"))?;
        if is_flat {
            *place = Some(index);
        }
    }
    Ok(leaves)
}

/// Reads the columns of one row group side by side.
struct GroupReader<'a> {
    path: &'a Path,
    /// Features, then labels, then the weight.
    columns: Vec<Column>,
    features: usize,
    labels: usize,
    /// Rows of the file before this group.
    first_row: u64,
}

impl<'a> GroupReader<'a> {
    fn new(
        path: &'a Path,
        group: &dyn RowGroupReader,
        (names, leaves, places): (&[String], &[Option<usize>], &Places),
        first_row: u64,
    ) -> Result<Self, DataError> {
        let all = places
            .features
            .iter()
            .chain(&places.labels)
            .chain(&places.weight);
        let columns = all.map(|&index| {
            let name = names[index].clone();
            let leaf = leaves[index].ok_or_else(|| {
                let remedy = match places.features.contains(&index) {
                    true => {
                        "learn from columns of single values alone, which features in [data], or [columns], \
                         chooses"
                    }
                    false => {
                        "write each of its numbers to a column of its own, and name them all, as in label = \
                         [\"a\", \"b\"]"
                    }
                };
                DataError::format(path, format!("column '{name}' is nested; {remedy}"))
            })?;
            let values = group.get_column_reader(leaf).map_err(|error| broken(path, error))?;
            let column = group.metadata().column(leaf).column_descr();
            Ok(Column {
                name,
                values,
                meaning: Meaning::of(column),
                is_optional: column.max_def_level() > 0,
                scalars: Vec::new(),
            })
        });
        Ok(Self {
            path,
            columns: columns.collect::<Result<_, DataError>>()?,
            features: places.features.len(),
            labels: places.labels.len(),
            first_row,
        })
    }

    fn read(&mut self, rows: usize, builder: &mut Builder<'_>) -> Result<(), DataError> {
        for first in (0..rows).step_by(BATCH) {
            let count = BATCH.min(rows - first);
            for column in &mut self.columns {
                column.fill(count).map_err(|problem| {
                    DataError::format(self.path, format!("column '{}': {problem}", column.name))
                })?;
            }
            for row in 0..count {
                let fail = |column: String, problem: String| DataError::Field {
                    path: self.path.to_owned(),
                    place: Place::Row(self.first_row + (first + row) as u64 + 1),
                    column,
                    problem,
                };
                for (index, column) in self.columns.iter().enumerate() {
                    let value = &column.scalars[row];
                    let added = match index {
                        _ if index < self.features => builder.feature(index, from_ref(value)),
                        _ if index < self.features + self.labels => builder.label(value),
                        _ => builder.weight(value),
                    };
                    added.map_err(|problem| fail(column.name.clone(), problem))?;
                }
                builder
                    .end_row()
                    .map_err(|fault| fail(fault.source, fault.problem))?;
            }
        }
        Ok(())
    }
}

/// One column of a row group, and the values of the rows at hand.
struct Column {
    name: String,
    values: ColumnReader,
    meaning: Meaning,
    is_optional: bool,
    scalars: Vec<Scalar>,
}

/// What integers and bytes stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meaning {
    Themselves,
    Unsigned,
    /// As many digits are behind the point.
    Decimal(i32),
}

impl Meaning {
    fn of(column: &ColumnDescriptor) -> Self {
        match (column.logical_type_ref(), column.converted_type()) {
            (Some(LogicalType::Decimal(_)), _) | (_, ConvertedType::DECIMAL) => {
                Self::Decimal(column.type_scale())
            }
            (_, ConvertedType::UINT_8 | ConvertedType::UINT_16) => Self::Unsigned,
            (_, ConvertedType::UINT_32 | ConvertedType::UINT_64) => Self::Unsigned,
            _ => Self::Themselves,
        }
    }

    fn scalar(self, value: i64, unsigned: u64) -> Scalar {
        match self {
            Self::Themselves => Scalar::Integer(value),
            Self::Unsigned => Scalar::Unsigned(unsigned),
            Self::Decimal(scale) => Scalar::Double(value as f64 / 10_f64.powi(scale)),
        }
    }

    /// A decimal is big-endian, in two's complement.
    fn of_bytes(self, bytes: &[u8]) -> Scalar {
        let Self::Decimal(scale) = self else {
            return Scalar::Text(bytes.to_vec());
        };
        let is_negative = bytes.first().is_some_and(|&byte| byte >= 0x80);
        let mut value = [if is_negative { 0xff } else { 0 }; 16];
        let Some(unused) = value.len().checked_sub(bytes.len()) else {
            return Scalar::Other("a decimal of more than 16 bytes");
        };
        value[unused..].copy_from_slice(bytes);
        Scalar::Double(i128::from_be_bytes(value) as f64 / 10_f64.powi(scale))
    }
}

impl Column {
    /// Reads the next `count` values.
    fn fill(&mut self, count: usize) -> Result<(), String> {
        self.scalars.clear();
        let (meaning, is_optional) = (self.meaning, self.is_optional);
        let scalars = &mut self.scalars;
        let found = match &mut self.values {
            ColumnReader::BoolColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |value| {
                    Scalar::Boolean(*value)
                })
            }
            ColumnReader::Int32ColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |&value| {
                    meaning.scalar(i64::from(value), u64::from(value as u32))
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |&value| {
                    meaning.scalar(value, value as u64)
                })
            }
            ColumnReader::FloatColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |value| {
                    Scalar::Single(*value)
                })
            }
            ColumnReader::DoubleColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |value| {
                    Scalar::Double(*value)
                })
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                take(reader, count, is_optional, scalars, |value| {
                    meaning.of_bytes(value.data())
                })
            }
            ColumnReader::FixedLenByteArrayColumnReader(reader)
                if meaning != Meaning::Themselves =>
            {
                take(reader, count, is_optional, scalars, |value| {
                    meaning.of_bytes(value.data())
                })
            }
            _ => {
                return Err(
                    "neither numbers of up to 8 bytes, nor decimals or texts; write it as one of them"
                        .to_owned(),
                );
            }
        };
        let problem = match found {
            Ok(found) if found == count => return Ok(()),
            Ok(found) => format!("{found} values where {count} belong"),
            Err(error) => error.to_string(),
        };
        Err(format!("damaged: {problem}; {}", files::AGAIN))
    }
}

/// Adds up to `count` values to `scalars`; says how many there were.
fn take<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    is_optional: bool,
    scalars: &mut Vec<Scalar>,
    scalar: impl Fn(&T::T) -> Scalar,
) -> Result<usize, ParquetError> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let (records, _, _) = reader.read_records(count, Some(&mut levels), None, &mut values)?;
    let mut values = values.iter();
    match is_optional {
        false => scalars.extend(values.map(scalar)),
        // A level of 0 says that there is no value.
        true => scalars.extend(levels.iter().map(|&level| match level {
            0 => Scalar::Null,
            _ => values.next().map_or(Scalar::Null, &scalar),
        })),
    }
    Ok(records.min(scalars.len()))
}

/// The error of what cannot be read, be it for a compression that this program is built without, which the
/// library says by a text alone.
fn broken(path: &Path, problem: impl Display) -> DataError {
    let problem = problem.to_string();
    if let Some((_, codec)) = problem.split_once("Disabled feature at compile time: ") {
        let problem = format!(
            "compressed by {codec}, which is not read; write it with snappy, gzip, zstd, brotli or no compression"
        );
        return DataError::format(path, problem);
    }
    DataError::format(path, format!("damaged: {problem}; {}", files::AGAIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_that_is_not_read_is_no_damage() {
        let path = Path::new("a.parquet");
        let error = ParquetError::General("Disabled feature at compile time: lz4".to_owned());
        assert_eq!(
            broken(path, error).to_string(),
            "a.parquet: compressed by lz4, which is not read; write it with snappy, gzip, zstd, brotli or no \
             compression"
        );
        let cut = broken(path, "eof").to_string();
        assert_eq!(cut, "a.parquet: damaged: eof; copy or write the file again");
    }
}

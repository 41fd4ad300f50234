//! Feature columns: from the named values of a row to the numbers that a model reads.
//!
//! Every column of a model has a run of slots in the row: a numeric one its numbers, a categorical one
//! its ids as whole numbers, which single precision holds up to 2^24, and -1 for none. How a model reads
//! ids (as one of many, or by a vector of their own) is its affair.

mod encoding;
mod normalize;
mod spec;

pub use encoding::{Encoded, Encoding, Values};
pub use normalize::Normalize;
pub use spec::{
    Bucketized, ColumnSpec, Columns, Crossed, Hash, Identity, Numeric, OutOfVocabulary, Vocabulary,
    Weighted,
};

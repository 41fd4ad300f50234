//! Feature columns: from the named values of a row to the numbers that a model reads.
//!
//! Every column of a model has a run of slots in the row: a numeric one its numbers, a categorical one
//! its ids as whole numbers, which single precision holds up to 2^24, and -1 for none. How a model reads
//! ids (as one of many, or by a vector of their own) is its affair.

mod check;
mod dictionary;
mod encoder;
mod encoding;
mod hash;
mod normalize;
mod part;
mod spec;
mod value;

pub use check::ColumnError;
pub(crate) use dictionary::Dictionary;
pub(crate) use encoder::{Encoder, Fault};
pub use encoding::{Encoded, Encoding, Values};
pub use normalize::Normalize;
pub use spec::{
    Bucketized, ColumnSpec, Columns, Crossed, Hash, Identity, Numeric, OutOfVocabulary, Selection,
    Vocabulary, Weighted,
};
pub(crate) use value::{MISSING, Value, single};

/// Most ids of a column: the whole numbers that single precision tells apart.
const MOST_IDS: usize = 1 << 24;

/// Most numbers that a column may have in a row: more would not be a row that a model reads.
const MOST_SLOTS: usize = 1 << 24;

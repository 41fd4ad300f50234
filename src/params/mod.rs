//! Flat arenas: how parameters lie in them, how they are cut, and how a finished gradient leaves.

mod bucket;
mod initializer;
mod layout;
mod partition;
mod sink;
mod working_set;

pub use bucket::{BUCKET_MIB, buckets};
pub use initializer::{
    Constant, GlorotNormal, GlorotUniform, HeNormal, HeUniform, Initializer, LecunNormal,
    LecunUniform, Ones, RandomNormal, RandomUniform, TruncatedNormal, Zeros,
};
pub use layout::{ALIGNMENT, Group, Layout, Tensor, elements};
pub use partition::partition;
pub use sink::{GradSink, Grads};
pub use working_set::{Indexed, WorkingSet, append_places, find_touched};

//! The keys of `[data]` that say which rows there are and what becomes of them, whatever their format.

use serde::{Deserialize, Serialize};

use super::file::{Problem, at_least_one, invalid};
use crate::data::{Augment, Normalize, Part, Shard};
use crate::range::is_single;

/// Most pixels by which images are moved: an image has no more.
const MOST_PIXELS: usize = 1 << 16;

/// `mean` or `std`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number for all channels, or an array with a number for each"
)]
pub(super) enum Channels {
    All(f64),
    Each(Vec<f64>),
}

impl Channels {
    fn numbers(self) -> Vec<f64> {
        match self {
            Self::All(number) => vec![number],
            Self::Each(numbers) => numbers,
        }
    }
}

/// What `mean` and `std` mean together.
pub(super) fn normalize(
    mean: Option<Channels>,
    std: Option<Channels>,
) -> Result<Option<Normalize>, Problem> {
    if mean.is_none() && std.is_none() {
        return Ok(None);
    }
    let normalize = Normalize {
        mean: mean.unwrap_or(Channels::All(0.0)).numbers(),
        std: std.unwrap_or(Channels::All(1.0)).numbers(),
    };
    if normalize.mean.is_empty() || normalize.mean.iter().any(|mean| !is_single(*mean)) {
        let text = "expected a finite number for each channel, or one for all";
        return Err(invalid(&["data", "mean"], text));
    }
    let divides = |std: &f64| is_single(*std) && *std as f32 > 0.0;
    if normalize.std.is_empty() || !normalize.std.iter().all(divides) {
        let text = "expected a number above 0 for each channel, or one for all";
        return Err(invalid(&["data", "std"], text));
    }
    Ok(Some(normalize))
}

/// What `skip`, `take` and `shard` mean together.
pub(super) fn part(
    skip: Option<usize>,
    take: Option<usize>,
    shard: Option<Shard>,
) -> Result<Part, Problem> {
    if let Some(take) = take {
        at_least_one(take as u64, &["data", "take"])?;
    }
    if let Some(Shard { count, index }) = shard
        && index >= count
    {
        let text = format!("index {index} of count {count}: shards are 0 to below count");
        return Err(invalid(&["data", "shard"], text));
    }
    Ok(Part {
        skip: skip.unwrap_or(0),
        take,
        shard,
    })
}

pub(super) fn check_augment(augment: &Augment) -> Result<(), Problem> {
    if augment.flip.is_none() && augment.crop == 0 {
        let text = "says nothing to vary; give flip or crop, or leave it out";
        return Err(invalid(&["data", "augment"], text));
    }
    if augment.crop > MOST_PIXELS {
        let text = format!("expected at most {MOST_PIXELS} pixels");
        return Err(invalid(&["data", "augment", "crop"], text));
    }
    Ok(())
}

//! Finding out, before the first step, that ranks are not set up alike.

use sha2::{Digest, Sha256};

use super::{CommError, Communicator, Span};

/// Most characters of a field that are looked through for what differs.
const LOOKED_THROUGH: usize = 1 << 18;

/// Most characters of it that are shown.
const SHOWN: usize = 200;

/// Why ranks cannot train together.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement {
    /// They have different values of a field.
    #[error(
        "{} {} another {field} than most: '{theirs}' on rank {}, '{ours}' on rank {majority}; start \
         every rank with the same program, run file and data",
        listed(.ranks),
        if .ranks.len() == 1 { "has" } else { "have" },
        .ranks[0]
    )]
    Field {
        /// The first field that differs.
        field: String,
        /// The ranks that differ from most, or from rank 0 where there are no most.
        ranks: Vec<usize>,
        /// What the first of them has, in the first line that differs.
        theirs: String,
        /// The lowest rank that has what most have.
        majority: usize,
        /// What that is.
        ours: String,
    },
    /// The comparison itself failed.
    #[error(transparent)]
    Comm(#[from] CommError),
}

/// "rank 2", or "ranks 1, 3".
fn listed(ranks: &[usize]) -> String {
    let list = ranks
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    format!("rank{} {list}", if ranks.len() == 1 { "" } else { "s" })
}

/// Compares `fields`, name and text, over all ranks. Collective; allocates, for the start only.
/// Every rank must pass the same number of fields with the same names.
///
/// # Errors
/// On every rank, with the ranks and the first field that differ.
pub fn agree(
    communicator: &mut dyn Communicator,
    fields: &[(&str, String)],
) -> Result<(), Disagreement> {
    let (rank, world) = (communicator.rank(), communicator.world());
    // Only hashes travel while all is well.
    let hashes: Vec<i64> = fields.iter().map(|(_, text)| hash(text)).collect();
    let all = gather(communicator, &hashes)?;
    let of = |rank: usize, field: usize| all[rank * fields.len() + field];
    let differs = |field: &usize| (1..world).any(|rank| of(rank, *field) != of(0, *field));
    let Some(field) = (0..fields.len()).find(differs) else {
        return Ok(());
    };

    let votes = |rank: &usize| {
        (0..world)
            .filter(|&r| of(r, field) == of(*rank, field))
            .count()
    };
    let most = (0..world).map(|rank| votes(&rank)).max().unwrap_or(0);
    let majority = (0..world).find(|rank| votes(rank) == most).unwrap_or(0);
    let ranks: Vec<_> = (0..world)
        .filter(|&r| of(r, field) != of(majority, field))
        .collect();
    let text = &fields[field].1;
    let lengths = gather(communicator, &[text.chars().count() as i64])?;
    let longest = lengths.into_iter().max().unwrap_or(0) as usize;
    let len = longest.clamp(1, LOOKED_THROUGH);
    let ours = text_of(communicator, majority, text, len)?;
    let theirs = text_of(communicator, ranks[0], text, len)?;
    let (ours, theirs) = first_difference(&ours, &theirs);
    tracing::debug!(rank, field = fields[field].0, "ranks differ");
    let field = fields[field].0.to_owned();
    Err(Disagreement::Field {
        field,
        ranks,
        theirs,
        majority,
        ours,
    })
}

/// Everybody's `values`, in rank order. Collective; allocates.
///
/// # Errors
/// If there is no memory, or another rank fails.
pub fn gather(communicator: &mut dyn Communicator, values: &[i64]) -> Result<Vec<i64>, CommError> {
    let (rank, world, len) = (communicator.rank(), communicator.world(), values.len());
    let region = communicator.allocate_host_i64(world * len)?;
    let range = rank * len..(rank + 1) * len;
    // SAFETY: nobody else uses the region between collectives.
    unsafe { region.slice_mut(range) }.copy_from_slice(values);
    communicator.all_gather(&Span {
        region: region.id(),
        range: 0..world * len,
    })?;
    // SAFETY: as above.
    Ok(unsafe { region.slice(0..world * len) }.to_vec())
}

/// What rank 0 says, on every rank. Collective; allocates.
///
/// # Errors
/// If there is no memory, or another rank fails.
pub fn tell(communicator: &mut dyn Communicator, text: &str) -> Result<String, CommError> {
    let lengths = gather(communicator, &[text.chars().count() as i64])?;
    match lengths[0] {
        0 => Ok(String::new()),
        length => text_of(communicator, 0, text, length as usize),
    }
}

/// The first lines that differ, without what is around them.
fn first_difference(left: &str, right: &str) -> (String, String) {
    let (mut lefts, mut rights) = (left.lines(), right.lines());
    let shown = |line: Option<&str>| match line {
        None => "nothing".to_owned(),
        Some(line) => line.trim().chars().take(SHOWN).collect(),
    };
    loop {
        match (lefts.next(), rights.next()) {
            (Some(left), Some(right)) if left == right => {}
            (left, right) => return (shown(left), shown(right)),
        }
    }
}

/// The first `len` characters of `root`'s text.
fn text_of(
    communicator: &mut dyn Communicator,
    root: usize,
    text: &str,
    len: usize,
) -> Result<String, CommError> {
    let region = communicator.allocate_host_i64(len)?;
    let characters: Vec<i64> = text
        .chars()
        .take(len)
        .map(|c| i64::from(u32::from(c)))
        .collect();
    // SAFETY: nobody else uses the region between collectives.
    unsafe { region.slice_mut(0..characters.len()) }.copy_from_slice(&characters);
    communicator.broadcast(
        &Span {
            region: region.id(),
            range: 0..len,
        },
        root,
    )?;
    // SAFETY: as above.
    let received = unsafe { region.slice(0..len) }
        .iter()
        .take_while(|&&c| c != 0);
    Ok(received
        .filter_map(|&c| char::from_u32(u32::try_from(c).ok()?))
        .collect())
}

fn hash(text: &str) -> i64 {
    let digest = Sha256::digest(text);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::{Options, testing};

    fn differing(world: usize, field: impl Fn(usize) -> &'static str + Sync) -> Vec<String> {
        let errors = testing::world(world, &Options::default(), |communicator| {
            let fields = [
                ("program version", "1.0".to_owned()),
                ("global_batch", field(communicator.rank()).to_owned()),
                ("data", format!("of rank {}", communicator.rank())),
            ];
            match agree(communicator, &fields) {
                Ok(()) => Ok("none".to_owned()),
                Err(error) => Ok(error.to_string()),
            }
        });
        errors.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn what_rank_0_says_is_heard_by_all() {
        for said in ["", "été", "a longer text than the others have"] {
            let heard = testing::world(3, &Options::default(), |communicator| {
                let text = match communicator.rank() {
                    0 => said,
                    _ => "something else",
                };
                tell(communicator, text)
            });
            for heard in heard {
                assert_eq!(heard.unwrap(), said);
            }
        }
    }

    #[test]
    fn the_ranks_and_the_first_field_that_differ_are_named_on_every_rank() {
        for error in differing(4, |rank| if rank == 2 { "128" } else { "64" }) {
            let expected = "rank 2 has another global_batch than most: '128' on rank 2, '64' on \
                            rank 0;";
            assert!(error.starts_with(expected), "{error}");
        }
        for error in differing(5, |rank| if rank % 3 == 0 { "é" } else { "64" }) {
            let expected = "ranks 0, 3 have another global_batch than most: 'é' on rank 0, '64' \
                            on rank 1;";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn of_a_long_text_the_line_that_differs_is_shown() {
        let head = "a line that all have\n".repeat(100);
        let own: [&str; 2] =
            ["seed = 1\n", "seed = 2\nmore\n"].map(|tail| &*format!("{head}{tail}").leak());
        for error in differing(3, |rank| own[usize::from(rank == 1)]) {
            assert!(
                error.contains("'seed = 2' on rank 1, 'seed = 1' on rank 0"),
                "{error}"
            );
        }
    }

    #[test]
    fn rank_zero_is_believed_where_there_are_no_most() {
        for error in differing(2, |rank| if rank == 0 { "64" } else { "128" }) {
            assert!(
                error.starts_with("rank 1 has another global_batch"),
                "{error}"
            );
        }
    }

    #[test]
    fn equal_fields_agree() {
        let results = testing::world(3, &Options::default(), |communicator| {
            agree(communicator, &[("data", "the same".to_owned())]).unwrap();
            agree(communicator, &[]).unwrap();
            Ok(())
        });
        assert_eq!(results.into_iter().filter(Result::is_ok).count(), 3);
    }
}

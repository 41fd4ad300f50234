//! Which elements of the arenas belong to which tensor and state.
//!
//! Two tensors of 100 and 70 elements lie at `0..100` and `128..198`: four blocks of 64 elements.
//! A rank that owns `0..64` and `128..256` steps the segments `0..64` and `128..198`; its state is
//! 192 elements long, and the second segment's state is `64..134`. Padding between segments is zero
//! everywhere and every rule keeps it so, which is why neighbours can be stepped in one call.

use std::ops::Range;

use super::Segment;
use crate::backend::{Backend, BackendError};
use crate::params::{ALIGNMENT, Group, Layout};

/// The segments of a rank that steps the arena ranges `owned`: the whole arena, or its shards.
///
/// State is laid out like the owned ranges one after another, padding included.
///
/// # Panics
/// If a range does not start and end at multiples of [`ALIGNMENT`], or they do not rise.
pub fn segments(layout: &Layout, owned: &[Range<usize>]) -> Vec<Segment> {
    let (mut segments, mut state, mut end) = (Vec::new(), 0, 0);
    for range in owned {
        assert!(
            range.start.is_multiple_of(ALIGNMENT) && range.end.is_multiple_of(ALIGNMENT),
            "owned range {range:?} is not made of whole blocks"
        );
        assert!(
            end <= range.start && range.start <= range.end,
            "owned range {range:?} after {end}"
        );
        end = range.end;
        segments.extend(
            layout
                .intersect(range.clone())
                .map(|(index, tensor, part)| {
                    let start = state + part.start - range.start;
                    Segment {
                        tensor: index,
                        group: tensor.group,
                        first_block: part.start / ALIGNMENT,
                        state: start..start + part.len(),
                        arena: part,
                    }
                }),
        );
        state += range.len();
    }
    segments
}

/// Those of `segments` whose tensors are stepped by `optimizer`, their state one behind the other.
pub(super) fn of_optimizer(
    layout: &Layout,
    segments: &[Segment],
    optimizer: usize,
) -> Vec<Segment> {
    let (mut own, mut end) = (Vec::new(), 0);
    for segment in segments {
        if layout.tensors()[segment.tensor].optimizer == optimizer {
            let state = end..end + segment.state.len();
            end = state.end.next_multiple_of(ALIGNMENT);
            own.push(Segment {
                state,
                ..segment.clone()
            });
        }
    }
    own
}

/// Number of blocks of all tensors: the length of the sums that norms are made of.
pub fn blocks(layout: &Layout) -> usize {
    layout.end() / ALIGNMENT
}

/// Length of state arrays for `segments`.
pub(super) fn state_len(segments: &[Segment]) -> usize {
    segments
        .last()
        .map_or(0, |last| last.state.end.next_multiple_of(ALIGNMENT))
}

/// For each block of the arena up to the last of `segments` 1 where weight decay spares it, else 0: the table
/// of [`Weights`](crate::backend::Weights) on the device.
pub(super) fn spared<B: Backend>(
    backend: &mut B,
    segments: &[Segment],
) -> Result<B::Buffer<u32>, BackendError> {
    let mut blocks = vec![0; segments.last().map_or(0, |last| last.blocks().end)];
    for segment in segments {
        blocks[segment.blocks()].fill(u32::from(segment.group == Group::NoDecay));
    }
    let mut table = backend.allocate("what weight decay spares", blocks.len())?;
    backend.upload(&blocks, B::view_mut(&mut table));
    Ok(table)
}

impl Segment {
    /// Its blocks among all blocks of all tensors.
    pub(super) fn blocks(&self) -> Range<usize> {
        self.first_block..self.first_block + self.arena.len().div_ceil(ALIGNMENT)
    }
}

/// Segments that one kernel call can step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Place in the parameter and gradient arenas, inner padding included.
    pub(super) arena: Range<usize>,
    /// Place in the state arrays.
    pub(super) state: Range<usize>,
    /// Its blocks.
    pub(super) blocks: Range<usize>,
}

/// The fewest runs that cover `segments`, in order: one where a rank steps the whole arena.
pub(super) fn runs(segments: &[Segment]) -> impl Iterator<Item = Run> {
    let mut rest = segments;
    std::iter::from_fn(move || {
        let (first, mut tail) = rest.split_first()?;
        let mut run = Run {
            arena: first.arena.clone(),
            state: first.state.clone(),
            blocks: first.blocks(),
        };
        while let Some((next, behind)) = tail.split_first()
            && next.arena.start == run.arena.end.next_multiple_of(ALIGNMENT)
            && next.state.start == run.state.end.next_multiple_of(ALIGNMENT)
        {
            run.arena.end = next.arena.end;
            run.state.end = next.state.end;
            run.blocks.end = next.blocks().end;
            tail = behind;
        }
        rest = tail;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::params::Zeros;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        for (name, len, group) in [
            ("a", 100, Group::Decay),
            ("b", 70, Group::NoDecay),
            ("empty", 0, Group::Decay),
            ("c", 64, Group::Decay),
        ] {
            layout.push(name.to_owned(), &[len], Zeros {}.into(), group);
        }
        layout
    }

    #[test]
    fn shards_keep_blocks_and_pack_state() {
        let layout = layout();
        assert_eq!(blocks(&layout), 5);
        let found = segments(&layout, &[0..64, 128..320, 320..384]);
        let expected = [
            (0, Group::Decay, 0..64, 0..64, 0),
            (1, Group::NoDecay, 128..198, 64..134, 2),
            (3, Group::Decay, 256..320, 192..256, 4),
        ];
        let found: Vec<_> = found
            .into_iter()
            .map(|s| (s.tensor, s.group, s.arena, s.state, s.first_block))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn blocks_that_weight_decay_spares_are_known() {
        let layout = layout();
        let all = segments(&layout, &[0..64, 128..320]);
        assert_eq!(*spared(&mut Cpu::new(), &all).unwrap(), [0, 0, 1, 1, 0]);
    }

    #[test]
    fn neighbours_are_stepped_together() {
        let layout = layout();
        let all = segments(&layout, &[0..192, 192..320]);
        let together: Vec<_> = runs(&all).collect();
        assert_eq!(together.len(), 1);
        assert_eq!(
            (&together[0].arena, &together[0].blocks),
            (&(0..320), &(0..5))
        );
        let split = segments(&layout, &[0..64, 128..320]);
        let split: Vec<_> = runs(&split).map(|run| run.arena).collect();
        assert_eq!(split, [0..64, 128..320]);
    }
}

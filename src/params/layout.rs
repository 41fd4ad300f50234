//! Where each parameter tensor lies in the flat arenas.
//!
//! Tensors stand in forward order, each starting at a multiple of [`ALIGNMENT`] elements; what lies
//! between is padding, zero in parameters, gradients and optimizer state, and never in a
//! checkpoint. The arena's length is padded so that any run of whole `ALIGNMENT * world` elements
//! cuts into equal shards that start at such a multiple, too.

use std::ops::Range;

use super::Initializer;

/// Elements per block: tensors start at multiples of it, and shards are whole blocks.
///
/// Sixteen lanes of the widest CPU vector times four; also the length over which norms are summed
/// before the blocks' sums are added in order, so that a norm does not depend on the sharding.
pub const ALIGNMENT: usize = crate::backend::BLOCK;

/// How many elements a tensor of these dimensions has; `usize::MAX` where they are more than can be counted, for
/// which no allocation is granted.
pub fn elements(shape: &[usize]) -> usize {
    let dimensions = shape.iter().copied();
    match shape.contains(&0) {
        true => 0,
        false => dimensions.fold(1, usize::saturating_mul),
    }
}

/// Which hyper-parameters a tensor is optimized with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Kernels and embeddings: weight decay applies.
    Decay,
    /// Biases and normalisation scales: no weight decay, no trust ratio.
    NoDecay,
}

/// One named tensor and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Unique name, `layer/weight`.
    pub name: String,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// First element in the arena.
    pub offset: usize,
    /// How it starts out.
    pub init: Initializer,
    /// Its optimizer group.
    pub group: Group,
    /// How often backward adds to its gradient in one micro-batch: more than once where tied.
    pub contributions: usize,
    /// Which of the model's optimizers steps it.
    pub optimizer: usize,
    /// Where it is the working set of a table: how many rows that has.
    pub rows: Option<usize>,
}

impl Tensor {
    /// Number of elements, without padding, as [`elements`] counts them.
    pub fn len(&self) -> usize {
        elements(&self.shape)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Dimensions of what a checkpoint has of it: of the whole table where it is a working set.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let (Some(rows), Some(first)) = (self.rows, shape.first_mut()) {
            *first = rows;
        }
        shape
    }

    /// Its elements in the arena, without padding.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.len())
    }
}

/// All tensors of an arena, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layout {
    tensors: Vec<Tensor>,
    end: usize,
}

impl Layout {
    /// Adds a tensor behind the last one and returns its place.
    pub fn push(
        &mut self,
        name: String,
        shape: &[usize],
        init: Initializer,
        group: Group,
    ) -> Range<usize> {
        let tensor = Tensor {
            name,
            shape: shape.to_vec(),
            offset: self.end,
            init,
            group,
            contributions: 1,
            optimizer: 0,
            rows: None,
        };
        let range = tensor.range();
        self.end = range
            .end
            .checked_next_multiple_of(ALIGNMENT)
            .unwrap_or(usize::MAX);
        self.tensors.push(tensor);
        range
    }

    /// The tensor that was added last, to say more of it.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Tensor> {
        self.tensors.last_mut()
    }

    /// Declares one more contribution to the gradient of the tensor that starts at `offset`.
    ///
    /// # Panics
    /// If no tensor starts there.
    pub fn tie(&mut self, offset: usize) {
        let index = self
            .tensors
            .partition_point(|tensor| tensor.offset < offset);
        assert_eq!(
            self.tensors[index].offset, offset,
            "no tensor starts at {offset}"
        );
        self.tensors[index].contributions += 1;
    }

    /// The tensors, in forward order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// First free element; a multiple of [`ALIGNMENT`].
    pub fn end(&self) -> usize {
        self.end
    }

    /// Length of an arena that cuts equally over `world` ranks.
    pub fn arena_len(&self, world: usize) -> usize {
        self.end.next_multiple_of(ALIGNMENT * world)
    }

    /// Number of parameters, without padding; of tables all.
    pub fn parameters(&self) -> usize {
        let parameters = |tensor: &Tensor| elements(&tensor.stored_shape());
        self.tensors.iter().map(parameters).sum()
    }

    /// The tensors that have elements in `range`, each with the range it has there (padding left
    /// out).
    pub fn intersect(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (usize, &Tensor, Range<usize>)> {
        let first = self
            .tensors
            .partition_point(|tensor| tensor.range().end <= range.start);
        self.tensors[first..]
            .iter()
            .enumerate()
            .take_while(move |(_, tensor)| tensor.offset < range.end)
            .map(move |(index, tensor)| {
                let own = tensor.range();
                let part = own.start.max(range.start)..own.end.min(range.end);
                (first + index, tensor, part)
            })
            .filter(|(_, _, part)| !part.is_empty())
    }

    /// Names, shapes and offsets as text, for the fingerprint that ranks compare.
    pub fn describe(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for Tensor {
            name,
            shape,
            offset,
            group,
            contributions,
            optimizer,
            rows,
            ..
        } in &self.tensors
        {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{name} {shape:?} at {offset} {group:?} x{contributions} by {optimizer}"
            );
            let _ = match rows {
                Some(rows) => writeln!(text, " of {rows} rows"),
                None => writeln!(text),
            };
        }
        text
    }
}

//! Descriptors as the caller fills them, and the product that they describe together.

use crate::status::{invalid, unsupported, LtResult};

/// `CUDA_R_32F`
const R_32F: i32 = 0;

/// Bytes of workspace that every algorithm takes where it may: enough to see that nobody else uses them.
const WORKSPACE: usize = 64 << 10;

/// What operands are rounded to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Rounding {
    None,
    Tf32,
    Bf16,
    F16,
}

/// `cublasLtMatmulDesc_t`
#[derive(Clone)]
pub(crate) struct Description {
    rounding: Rounding,
    transposed: [bool; 2],
    epilogue: u32,
    bias: u64,
}

/// An attribute's value, of the size that the attribute has.
fn value<const N: usize>(bytes: &[u8], attribute: u32) -> LtResult<[u8; N]> {
    let wrong = |_| {
        invalid(format!(
            "attribute {attribute} has {N} bytes, not {}",
            bytes.len()
        ))
    };
    bytes.try_into().map_err(wrong)
}

impl Description {
    pub(crate) fn new(compute: i32, scale: i32) -> LtResult<Self> {
        let rounding = match compute {
            68 => Rounding::None,
            74 => Rounding::F16,
            75 => Rounding::Bf16,
            77 => Rounding::Tf32,
            other => return Err(unsupported(format!("compute type {other}"))),
        };
        if scale != R_32F {
            return Err(unsupported(format!("scale type {scale}")));
        }
        Ok(Self {
            rounding,
            transposed: [false; 2],
            epilogue: 1,
            bias: 0,
        })
    }

    pub(crate) fn set(&mut self, attribute: u32, bytes: &[u8]) -> LtResult {
        match attribute {
            3 | 4 => {
                let operation = i32::from_ne_bytes(value(bytes, attribute)?);
                self.transposed[attribute as usize - 3] = match operation {
                    0 => false,
                    1 => true,
                    other => return Err(invalid(format!("operation {other}"))),
                };
            }
            7 => {
                let epilogue = u32::from_ne_bytes(value(bytes, attribute)?);
                if ![1, 2, 4, 6, 32, 36].contains(&epilogue) {
                    return Err(unsupported(format!("epilogue {epilogue}")));
                }
                self.epilogue = epilogue;
            }
            8 => self.bias = u64::from_ne_bytes(value(bytes, attribute)?),
            other => return Err(invalid(format!("attribute {other} of a product"))),
        }
        Ok(())
    }
}

/// `cublasLtMatrixLayout_t`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Layout {
    pub rows: usize,
    pub columns: usize,
    leading: usize,
    by_rows: bool,
}

impl Layout {
    pub(crate) fn new(kind: i32, rows: u64, columns: u64, leading: i64) -> LtResult<Self> {
        if kind != R_32F {
            return Err(unsupported(format!("elements of type {kind}")));
        }
        let extent = |extent: u64| {
            let fits = usize::try_from(extent).ok().filter(|&extent| extent > 0);
            fits.ok_or_else(|| invalid(format!("an extent of {extent}")))
        };
        Ok(Self {
            rows: extent(rows)?,
            columns: extent(columns)?,
            leading: usize::try_from(leading)
                .map_err(|_| invalid("a negative leading dimension"))?,
            by_rows: false,
        })
    }

    pub(crate) fn set(&mut self, attribute: u32, bytes: &[u8]) -> LtResult {
        match attribute {
            1 => {
                self.by_rows = match i32::from_ne_bytes(value(bytes, attribute)?) {
                    0 => false,
                    1 => true,
                    other => return Err(unsupported(format!("order {other}"))),
                }
            }
            other => return Err(unsupported(format!("attribute {other} of a layout"))),
        }
        Ok(())
    }

    fn check(self, name: &str) -> LtResult {
        let least = if self.by_rows {
            self.columns
        } else {
            self.rows
        };
        if self.leading < least {
            return Err(invalid(format!(
                "{name}: leading dimension {} is less than {least}",
                self.leading
            )));
        }
        Ok(())
    }

    /// Where an element lies.
    pub(crate) fn at(self, row: usize, column: usize) -> usize {
        match self.by_rows {
            false => column * self.leading + row,
            true => row * self.leading + column,
        }
    }

    /// Elements from the first to behind the last.
    pub(crate) fn span(self) -> usize {
        self.at(self.rows - 1, self.columns - 1) + 1
    }
}

/// `cublasLtMatmulPreference_t`
#[derive(Clone)]
pub(crate) struct Preference {
    workspace: usize,
    /// Of A, B, C and D, in bytes.
    alignments: [u32; 4],
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            workspace: 0,
            alignments: [256; 4],
        }
    }
}

impl Preference {
    pub(crate) fn set(&mut self, attribute: u32, bytes: &[u8]) -> LtResult {
        match attribute {
            1 => self.workspace = u64::from_ne_bytes(value(bytes, attribute)?) as usize,
            5..=8 => {
                let alignment = u32::from_ne_bytes(value(bytes, attribute)?);
                if !alignment.is_power_of_two() {
                    return Err(invalid(format!("an alignment of {alignment}")));
                }
                self.alignments[attribute as usize - 5] = alignment;
            }
            other => return Err(invalid(format!("attribute {other} of a preference"))),
        }
        Ok(())
    }
}

/// A product, as its descriptors say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Problem {
    pub rounding: Rounding,
    pub transposed: [bool; 2],
    pub epilogue: u32,
    pub a: Layout,
    pub b: Layout,
    pub c: Layout,
    pub d: Layout,
}

impl Problem {
    pub(crate) fn new(
        description: &Description,
        [a, b, c, d]: [Layout; 4],
    ) -> LtResult<(Self, u64)> {
        for (layout, name) in [(a, "A"), (b, "B"), (c, "C"), (d, "D")] {
            layout.check(name)?;
        }
        let problem = Self {
            rounding: description.rounding,
            transposed: description.transposed,
            epilogue: description.epilogue,
            a,
            b,
            c,
            d,
        };
        let (m, k) = problem.extents_of(0);
        let (also_k, n) = problem.extents_of(1);
        if k != also_k || (d.rows, d.columns) != (m, n) || (c.rows, c.columns) != (m, n) {
            return Err(invalid(format!(
                "A is {m} x {k}, B is {also_k} x {n}, C is {} x {}, D is {} x {}",
                c.rows, c.columns, d.rows, d.columns
            )));
        }
        if problem.adds_bias() && description.bias == 0 {
            return Err(invalid("an epilogue with a bias and no pointer to one"));
        }
        if problem.adds_bias() && d.by_rows {
            return Err(unsupported("a bias of a result that is stored by rows"));
        }
        Ok((problem, description.bias))
    }

    /// Rows and columns of an operand as it is multiplied.
    fn extents_of(&self, operand: usize) -> (usize, usize) {
        let Layout { rows, columns, .. } = [self.a, self.b][operand];
        match self.transposed[operand] {
            false => (rows, columns),
            true => (columns, rows),
        }
    }

    /// Rows, columns and terms.
    pub(crate) fn extents(&self) -> (usize, usize, usize) {
        let (m, k) = self.extents_of(0);
        (m, self.extents_of(1).1, k)
    }

    pub(crate) fn adds_bias(&self) -> bool {
        self.epilogue & 4 != 0
    }
}

/// `cublasLtMatmulAlgo_t`: what an algorithm was chosen for, which is all that it may be used for.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Algorithm {
    /// Of the problem.
    hash: u64,
    workspace: u64,
    alignments: [u32; 4],
    rest: [u64; 4],
}

impl Algorithm {
    pub(crate) fn choose(problem: &Problem, preference: &Preference) -> Self {
        Self {
            hash: hash(problem),
            workspace: preference.workspace.min(WORKSPACE) as u64,
            alignments: preference.alignments,
            rest: [0; 4],
        }
    }

    pub(crate) fn workspace(&self) -> usize {
        self.workspace as usize
    }

    /// Refuses what the algorithm was not chosen for; addresses are those of A, B, C and D.
    pub(crate) fn check(
        &self,
        problem: &Problem,
        addresses: [u64; 4],
        workspace: usize,
    ) -> LtResult {
        if self.hash != hash(problem) {
            return Err(invalid("the algorithm was chosen for another product"));
        }
        for (address, alignment) in addresses.into_iter().zip(self.alignments) {
            if !address.is_multiple_of(alignment.into()) {
                return Err(invalid(format!(
                    "the algorithm counts on addresses that are multiples of {alignment}, and {address:#x} \
                     is none"
                )));
            }
        }
        if workspace < self.workspace() {
            return Err(invalid(format!(
                "the algorithm wants {} bytes of workspace, and gets {workspace}",
                self.workspace()
            )));
        }
        Ok(())
    }
}

fn hash(problem: &Problem) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    problem.hash(&mut hasher);
    hasher.finish()
}

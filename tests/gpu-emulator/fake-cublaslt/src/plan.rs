//! Descriptors as the caller fills them, and the product that they describe together.

use crate::status::{invalid, unsupported, LtResult};

/// `CUDA_R_32F`
const R_32F: i32 = 0;

/// What a matrix is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// From `cudaDataType`.
    fn new(kind: i32) -> LtResult<Self> {
        match kind {
            R_32F => Ok(Self::F32),
            2 => Ok(Self::F16),
            14 => Ok(Self::Bf16),
            other => Err(unsupported(format!("elements of type {other}"))),
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

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
    pub element: Element,
    pub rows: usize,
    pub columns: usize,
    leading: usize,
    by_rows: bool,
}

impl Layout {
    pub(crate) fn new(kind: i32, rows: u64, columns: u64, leading: i64) -> LtResult<Self> {
        let element = Element::new(kind)?;
        let extent = |extent: u64| {
            let fits = usize::try_from(extent).ok().filter(|&extent| extent > 0);
            fits.ok_or_else(|| invalid(format!("an extent of {extent}")))
        };
        Ok(Self {
            element,
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

    /// Bytes from the first element to behind the last.
    pub(crate) fn bytes(self) -> usize {
        self.span() * self.element.bytes()
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
        // Of what the library multiplies: operands of 16 bits are what they are, and sums are `f32`.
        let is_rounded = description.rounding != Rounding::None;
        let operands_fit = a.element == b.element && (a.element == Element::F32 || !is_rounded);
        if !operands_fit || [c.element, d.element] != [Element::F32; 2] {
            return Err(unsupported(format!(
                "A of {:?}, B of {:?}, C of {:?} and D of {:?} with rounding {:?}",
                a.element, b.element, c.element, d.element, description.rounding
            )));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    fn layout(rows: u64, columns: u64) -> Layout {
        Layout::new(R_32F, rows, columns, rows as i64).unwrap()
    }

    fn refused<T>(result: LtResult<T>) -> Status {
        result.err().unwrap().status
    }

    /// `[m, n] = [m, k] · [k, n]`
    fn problem(m: u64, n: u64, k: u64) -> Problem {
        let description = Description::new(68, R_32F).unwrap();
        let d = layout(m, n);
        let layouts = [layout(m, k), layout(k, n), d, d];
        Problem::new(&description, layouts).unwrap().0
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let mut description = Description::new(77, R_32F).unwrap();
        let (a, b, d) = (layout(3, 5), layout(5, 4), layout(3, 4));
        let (fits, _) = Problem::new(&description, [a, b, d, d]).unwrap();
        assert_eq!(fits.extents(), (3, 4, 5));
        let other = [layout(3, 6), b, d, d];
        assert_eq!(
            refused(Problem::new(&description, other)),
            Status::InvalidValue
        );
        let narrow = Layout::new(R_32F, 3, 5, 2).unwrap();
        let narrow = [narrow, b, d, d];
        assert_eq!(
            refused(Problem::new(&description, narrow)),
            Status::InvalidValue
        );
        // Transposed, A is 5 x 3.
        description.set(3, &1i32.to_ne_bytes()).unwrap();
        assert!(Problem::new(&description, [a, b, d, d]).is_err());
        assert!(Problem::new(&description, [layout(5, 3), b, d, d]).is_ok());
        // A bias that is not there, and one of rows.
        description.set(7, &6u32.to_ne_bytes()).unwrap();
        let layouts = [layout(5, 3), b, d, d];
        assert_eq!(
            refused(Problem::new(&description, layouts)),
            Status::InvalidValue
        );
        description.set(8, &4096u64.to_ne_bytes()).unwrap();
        assert_eq!(Problem::new(&description, layouts).unwrap().1, 4096);
    }

    #[test]
    fn operands_of_16_bits_are_taken_as_they_are() {
        let halves = |rows, columns| Layout::new(14, rows, columns, rows as i64).unwrap();
        let (a, b, d) = (halves(3, 5), halves(5, 4), layout(3, 4));
        let plain = Description::new(68, R_32F).unwrap();
        assert_eq!(Problem::new(&plain, [a, b, d, d]).unwrap().0.a.bytes(), 30);
        let mixed = Layout::new(2, 5, 4, 5).unwrap();
        let rounding = Description::new(75, R_32F).unwrap();
        for (description, layouts) in [
            (&plain, [a, mixed, d, d]),
            (&plain, [a, b, d, halves(3, 4)]),
            (&rounding, [a, b, d, d]),
        ] {
            assert_eq!(
                refused(Problem::new(description, layouts)),
                Status::NotSupported
            );
        }
    }

    #[test]
    fn attributes_and_types_that_are_not_known_are_refused() {
        assert_eq!(refused(Description::new(64, R_32F)), Status::NotSupported);
        assert_eq!(refused(Layout::new(3, 1, 1, 1)), Status::NotSupported);
        assert_eq!(refused(Layout::new(R_32F, 0, 1, 1)), Status::InvalidValue);
        let mut description = Description::new(68, R_32F).unwrap();
        assert_eq!(refused(description.set(99, &[0; 4])), Status::InvalidValue);
        assert_eq!(refused(description.set(3, &[0; 8])), Status::InvalidValue);
        let drelu = 136u32.to_ne_bytes();
        assert_eq!(refused(description.set(7, &drelu)), Status::NotSupported);
        let mut preference = Preference::default();
        assert_eq!(
            refused(preference.set(5, &3u32.to_ne_bytes())),
            Status::InvalidValue
        );
    }

    #[test]
    fn an_algorithm_is_good_for_what_it_was_chosen_for() {
        let mut preference = Preference::default();
        preference.set(1, &4096u64.to_ne_bytes()).unwrap();
        for operand in 5..=8 {
            preference.set(operand, &16u32.to_ne_bytes()).unwrap();
        }
        let asked = problem(3, 4, 5);
        let algorithm = Algorithm::choose(&asked, &preference);
        let addresses = [16, 32, 48, 48];
        algorithm.check(&asked, addresses, 4096).unwrap();
        assert!(algorithm.check(&asked, addresses, 4095).is_err());
        assert!(algorithm.check(&asked, [16, 40, 48, 48], 4096).is_err());
        assert!(algorithm.check(&problem(3, 5, 4), addresses, 4096).is_err());
    }

    #[test]
    fn elements_lie_where_the_order_says() {
        let mut matrix = Layout::new(R_32F, 3, 4, 6).unwrap();
        assert_eq!((matrix.at(2, 1), matrix.span()), (8, 21));
        matrix.set(1, &1i32.to_ne_bytes()).unwrap();
        assert_eq!((matrix.at(2, 1), matrix.span()), (13, 16));
    }
}

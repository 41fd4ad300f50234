//! Data types and reductions.
//!
//! Each step of the ring rounds to the data type, as data travelling between GPUs does.

use ptx_interpreter::numeric::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DataType {
    I8,
    U8,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
    Bf16,
}

impl DataType {
    /// `ncclDataType_t`
    pub(crate) fn from_code(code: i32) -> Option<DataType> {
        use DataType::*;
        [I8, U8, I32, U32, I64, U64, F16, F32, F64, Bf16]
            .get(code as usize)
            .copied()
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            DataType::I8 | DataType::U8 => 1,
            DataType::F16 | DataType::Bf16 => 2,
            DataType::I32 | DataType::U32 | DataType::F32 => 4,
            DataType::I64 | DataType::U64 | DataType::F64 => 8,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReduceOp {
    Sum,
    Prod,
    Max,
    Min,
    Avg,
}

impl ReduceOp {
    /// `ncclRedOp_t`
    pub(crate) fn from_code(code: i32) -> Option<ReduceOp> {
        use ReduceOp::*;
        [Sum, Prod, Max, Min, Avg].get(code as usize).copied()
    }
}

/// An element: how to read it as a number, combine two, and scale by 1/n.
trait Element: Copy {
    fn combine(self, other: Self, op: ReduceOp) -> Self;
    /// Floats are averaged by scaling before the sum, as NCCL does.
    fn scale_before(self, ranks: usize) -> Self;
    /// Integers are averaged by dividing after the sum.
    fn scale_after(self, ranks: usize) -> Self;
}

macro_rules! integer_element {
    ($($ty:ty),*) => {$(
        impl Element for $ty {
            fn combine(self, other: Self, op: ReduceOp) -> Self {
                match op {
                    ReduceOp::Sum | ReduceOp::Avg => self.wrapping_add(other),
                    ReduceOp::Prod => self.wrapping_mul(other),
                    ReduceOp::Max => self.max(other),
                    ReduceOp::Min => self.min(other),
                }
            }

            fn scale_before(self, _ranks: usize) -> Self {
                self
            }

            fn scale_after(self, ranks: usize) -> Self {
                self / ranks as $ty
            }
        }
    )*};
}

integer_element!(i8, u8, i32, u32, i64, u64);

fn combine_floats<T>(x: T, y: T, op: ReduceOp) -> T
where
    T: std::ops::Add<Output = T> + std::ops::Mul<Output = T> + PartialOrd,
{
    match op {
        ReduceOp::Sum | ReduceOp::Avg => x + y,
        ReduceOp::Prod => x * y,
        ReduceOp::Max if y > x => y,
        ReduceOp::Min if y < x => y,
        _ => x,
    }
}

macro_rules! float_element {
    ($($ty:ty),*) => {$(
        impl Element for $ty {
            fn combine(self, other: Self, op: ReduceOp) -> Self {
                combine_floats(self, other, op)
            }

            fn scale_before(self, ranks: usize) -> Self {
                self * (1.0 / ranks as $ty)
            }

            fn scale_after(self, _ranks: usize) -> Self {
                self
            }
        }
    )*};
}

float_element!(f32, f64);

macro_rules! half_element {
    ($name:ident, $to:path, $from:path) => {
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name(u16);

        impl Element for $name {
            fn combine(self, other: Self, op: ReduceOp) -> Self {
                $name($from(combine_floats($to(self.0), $to(other.0), op)))
            }

            fn scale_before(self, ranks: usize) -> Self {
                $name($from($to(self.0) * $to($from(1.0 / ranks as f32))))
            }

            fn scale_after(self, _ranks: usize) -> Self {
                self
            }
        }
    };
}

half_element!(Half, f16_to_f32, f32_to_f16);
half_element!(BrainHalf, bf16_to_f32, f32_to_bf16);

/// Reduces `count` elements of several sources, in order, into `out`.
///
/// # Safety
/// Every source and `out` must hold `count` elements; `out` must not overlap a source.
pub(crate) unsafe fn reduce(
    ty: DataType,
    op: ReduceOp,
    sources: &[*const u8],
    out: *mut u8,
    count: usize,
) {
    match ty {
        DataType::I8 => typed::<i8>(op, sources, out, count),
        DataType::U8 => typed::<u8>(op, sources, out, count),
        DataType::I32 => typed::<i32>(op, sources, out, count),
        DataType::U32 => typed::<u32>(op, sources, out, count),
        DataType::I64 => typed::<i64>(op, sources, out, count),
        DataType::U64 => typed::<u64>(op, sources, out, count),
        DataType::F16 => typed::<Half>(op, sources, out, count),
        DataType::F32 => typed::<f32>(op, sources, out, count),
        DataType::F64 => typed::<f64>(op, sources, out, count),
        DataType::Bf16 => typed::<BrainHalf>(op, sources, out, count),
    }
}

unsafe fn typed<T: Element>(op: ReduceOp, sources: &[*const u8], out: *mut u8, count: usize) {
    let ranks = sources.len();
    let prepare = |value: T| {
        if op == ReduceOp::Avg {
            value.scale_before(ranks)
        } else {
            value
        }
    };
    for index in 0..count {
        let read = |source: &*const u8| prepare(source.cast::<T>().add(index).read_unaligned());
        let mut total = read(&sources[0]);
        for source in &sources[1..] {
            total = total.combine(read(source), op);
        }
        if op == ReduceOp::Avg {
            total = total.scale_after(ranks);
        }
        out.cast::<T>().add(index).write_unaligned(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Copy + Default>(ty: DataType, op: ReduceOp, sources: &[Vec<T>]) -> Vec<T> {
        let count = sources[0].len();
        let mut out = vec![T::default(); count];
        let pointers: Vec<*const u8> = sources.iter().map(|s| s.as_ptr().cast()).collect();
        // SAFETY: all vectors have `count` elements.
        unsafe { reduce(ty, op, &pointers, out.as_mut_ptr().cast(), count) };
        out
    }

    #[test]
    fn sums_keep_the_order_of_the_sources() {
        let sources = [vec![1e8f32], vec![1.0], vec![-1e8]];
        assert_eq!(run(DataType::F32, ReduceOp::Sum, &sources), [0.0]);
        let sources = [vec![1e8f32], vec![-1e8], vec![1.0]];
        assert_eq!(run(DataType::F32, ReduceOp::Sum, &sources), [1.0]);
    }

    #[test]
    fn averages() {
        let sources = [vec![1i32, 7], vec![2, 8]];
        assert_eq!(run(DataType::I32, ReduceOp::Avg, &sources), [1, 7]);
        let sources = [vec![1f64], vec![2.0]];
        assert_eq!(run(DataType::F64, ReduceOp::Avg, &sources), [1.5]);
    }

    #[test]
    fn halves_round_at_each_step() {
        // 256 + 1 is not representable in bf16, twice.
        let sources = [
            vec![f32_to_bf16(256.0)],
            vec![f32_to_bf16(1.0)],
            vec![f32_to_bf16(1.0)],
        ];
        let sum = run(DataType::Bf16, ReduceOp::Sum, &sources);
        assert_eq!(bf16_to_f32(sum[0]), 256.0);
        let sources = [vec![f32_to_f16(3.0)], vec![f32_to_f16(4.0)]];
        assert_eq!(
            f16_to_f32(run(DataType::F16, ReduceOp::Max, &sources)[0]),
            4.0
        );
        assert_eq!(
            f16_to_f32(run(DataType::F16, ReduceOp::Prod, &sources)[0]),
            12.0
        );
    }

    #[test]
    fn codes() {
        assert_eq!(DataType::from_code(7), Some(DataType::F32));
        assert_eq!(DataType::from_code(9), Some(DataType::Bf16));
        assert_eq!(DataType::from_code(10), None);
        assert_eq!(ReduceOp::from_code(4), Some(ReduceOp::Avg));
    }
}

//! Raw runs of memory that several ranks use, and the loops over them.

use std::ops::Range;

use half::bf16;

use crate::backend::Element;

/// A run of elements at an address: part of a region of this rank or of a peer, or a message.
///
/// Whoever makes one promises what collectives need: the memory outlives every copy of the cells,
/// and while one rank writes an element nobody else touches it. The methods are safe on the
/// strength of that promise.
#[derive(Debug)]
pub(crate) struct Cells<T> {
    start: *mut T,
    len: usize,
}

impl<T> Clone for Cells<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Cells<T> {}

// SAFETY: only an address and a length; the maker's promise covers every thread that gets a copy.
unsafe impl<T: Send> Send for Cells<T> {}

impl<T: Copy> Cells<T> {
    /// The `len` elements from `start`.
    ///
    /// # Safety
    /// `start` is aligned for `T`, and the promise in the type's description holds.
    pub(crate) unsafe fn new(start: *mut T, len: usize) -> Self {
        debug_assert!(start.is_aligned());
        Self { start, len }
    }

    /// Number of elements.
    pub(crate) fn len(self) -> usize {
        self.len
    }

    /// Address of the first element.
    pub(crate) fn start(self) -> *mut T {
        self.start
    }

    /// The elements of `range`.
    pub(crate) fn slice(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "range {range:?} of {} cells",
            self.len
        );
        Self {
            // SAFETY: in bounds by the assertion.
            start: unsafe { self.start.add(range.start) },
            len: range.len(),
        }
    }

    /// Element `index`.
    pub(crate) fn get(self, index: usize) -> T {
        assert!(index < self.len, "element {index} of {} cells", self.len);
        // SAFETY: in bounds; nobody writes it meanwhile by the maker's promise.
        unsafe { self.start.add(index).read() }
    }

    /// The same memory as bytes.
    pub(crate) fn bytes(self) -> Cells<u8> {
        Cells {
            start: self.start.cast(),
            len: self.len * size_of::<T>(),
        }
    }

    /// Copies all of `source`, which has the same length and does not overlap.
    pub(crate) fn copy_from(self, source: Self) {
        assert_eq!(
            self.len, source.len,
            "copy between cells of different lengths"
        );
        // SAFETY: both hold `len` elements by their makers' promise, and are different memory.
        unsafe { std::ptr::copy_nonoverlapping(source.start, self.start, self.len) }
    }
}

impl Cells<u8> {
    /// The first byte.
    pub(crate) fn first(self) -> u8 {
        assert!(self.len > 0, "no first byte");
        // SAFETY: in bounds; nobody writes it meanwhile by the maker's promise.
        unsafe { self.start.read() }
    }

    /// The same memory as elements.
    ///
    /// # Panics
    /// If it is not aligned for them or not a whole number of them.
    pub(crate) fn of<T: Element>(self) -> Cells<T> {
        let start = self.start.cast::<T>();
        assert!(
            start.is_aligned() && self.len.is_multiple_of(size_of::<T>()),
            "not of this type"
        );
        Cells {
            start,
            len: self.len / size_of::<T>(),
        }
    }
}

/// An element that collectives add. Sealed with [`Element`].
pub(crate) trait Summand: Element {
    /// What sums are taken in.
    type Sum: Copy;

    /// As a sum of one.
    fn widen(self) -> Self::Sum;

    /// The sum of two.
    fn add(left: Self::Sum, right: Self::Sum) -> Self::Sum;

    /// A sum, rounded.
    fn narrow(sum: Self::Sum) -> Self;
}

impl Summand for f32 {
    type Sum = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn add(left: f32, right: f32) -> f32 {
        left + right
    }

    #[inline(always)]
    fn narrow(sum: f32) -> f32 {
        sum
    }
}

impl Summand for bf16 {
    type Sum = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn add(left: f32, right: f32) -> f32 {
        left + right
    }

    /// To nearest, ties to even; a NaN stays one. Without a branch, so that it vectorises.
    #[inline(always)]
    fn narrow(sum: f32) -> bf16 {
        let bits = sum.to_bits();
        let even = (bits >> 16) & 1;
        let rounded = bits.wrapping_add(0x7fff + even) >> 16;
        let quiet = (bits >> 16) | 0x40;
        bf16::from_bits(if sum.is_nan() { quiet } else { rounded } as u16)
    }
}

impl Summand for i64 {
    type Sum = i64;

    #[inline(always)]
    fn widen(self) -> i64 {
        self
    }

    #[inline(always)]
    fn add(left: i64, right: i64) -> i64 {
        left.wrapping_add(right)
    }

    #[inline(always)]
    fn narrow(sum: i64) -> i64 {
        sum
    }
}

/// Adds `sources` element by element, first to last, and stores each sum in every target.
///
/// A target may be one of the sources. An element's bits depend on the sources alone, not on where
/// it lies or which instructions add it. All cells have the same length.
pub(crate) fn sum<T: Summand>(sources: &[Cells<T>], targets: &[Cells<T>]) {
    let Some(len) = sources.first().map(|cells| cells.len) else {
        return;
    };
    let same = sources.iter().chain(targets).all(|cells| cells.len == len);
    assert!(same, "sum of cells of different lengths");
    // SAFETY: all cells hold `len` elements, and the processor has the instructions asked for.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            return sum_avx512(sources, targets, len);
        } else if is_x86_feature_detected!("avx2") {
            return sum_avx2(sources, targets, len);
        }
        sum_blocks::<T, 16>(sources, targets, len);
    }
}

/// [`sum_blocks`] in registers of 64 bytes.
///
/// # Safety
/// As there, and the processor has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn sum_avx512<T: Summand>(sources: &[Cells<T>], targets: &[Cells<T>], len: usize) {
    // SAFETY: the caller's promise.
    unsafe { sum_blocks::<T, 64>(sources, targets, len) }
}

/// [`sum_blocks`] in registers of 32 bytes.
///
/// # Safety
/// As there, and the processor has the feature.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_avx2<T: Summand>(sources: &[Cells<T>], targets: &[Cells<T>], len: usize) {
    // SAFETY: the caller's promise.
    unsafe { sum_blocks::<T, 32>(sources, targets, len) }
}

/// Blocks of `WIDTH` elements, whose sums stay in registers, then what is left one by one.
///
/// # Safety
/// All cells hold `len` elements.
#[inline(always)]
unsafe fn sum_blocks<T: Summand, const WIDTH: usize>(
    sources: &[Cells<T>],
    targets: &[Cells<T>],
    len: usize,
) {
    let whole = len - len % WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        // SAFETY: `at + WIDTH <= len`.
        unsafe { sum_block::<T, WIDTH>(sources, targets, at) }
    }
    for at in whole..len {
        // SAFETY: `at < len`.
        unsafe { sum_block::<T, 1>(sources, targets, at) }
    }
}

/// # Safety
/// All cells hold the `WIDTH` elements from `at`.
#[inline(always)]
unsafe fn sum_block<T: Summand, const WIDTH: usize>(
    sources: &[Cells<T>],
    targets: &[Cells<T>],
    at: usize,
) {
    // SAFETY: in bounds by the caller's promise; an array is aligned as its elements are.
    let load = |cells: &Cells<T>| unsafe { cells.start.add(at).cast::<[T; WIDTH]>().read() };
    let mut sums = load(&sources[0]).map(T::widen);
    for source in &sources[1..] {
        let block = load(source);
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum = T::add(*sum, value.widen());
        }
    }
    let block = sums.map(T::narrow);
    for target in targets {
        // SAFETY: as for `load`; nobody else touches it by the promise of the cells' makers.
        unsafe { target.start.add(at).cast::<[T; WIDTH]>().write(block) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells<T: Element>(values: &mut [T]) -> Cells<T> {
        // SAFETY: the tests use the cells while the slices they come from live, from one thread.
        unsafe { Cells::new(values.as_mut_ptr(), values.len()) }
    }

    #[test]
    fn every_element_is_the_sum_in_source_order_wherever_it_lies() {
        for len in [0, 1, 15, 16, 17, 64, 65, 200] {
            let value = |source: usize, at: usize| ((at * 37 + source * 11) as f32).sin() * 1e3;
            let mut sources: Vec<Vec<f32>> = (0..3)
                .map(|source| (0..len).map(|at| value(source, at)).collect())
                .collect();
            let all: Vec<_> = sources.iter_mut().map(|source| cells(source)).collect();
            sum(&all, &all[1..]);
            for at in 0..len {
                let expected = value(0, at) + value(1, at) + value(2, at);
                assert_eq!(sources[0][at], value(0, at));
                assert_eq!(sources[1][at].to_bits(), expected.to_bits());
                assert_eq!(sources[2][at].to_bits(), expected.to_bits());
            }
        }
    }

    #[test]
    fn bf16_rounds_once_to_nearest_even() {
        for value in [
            0.0,
            -1.5,
            1.0 + 1.0 / 256.0,
            1.0 + 3.0 / 256.0,
            f32::MAX,
            f32::INFINITY,
        ] {
            assert_eq!(<bf16 as Summand>::narrow(value), bf16::from_f32(value));
        }
        assert!(<bf16 as Summand>::narrow(f32::NAN).is_nan());
        // 1 + 2^-8 + 2^-8: rounding after each addition would lose both small terms.
        let mut terms = [
            [bf16::ONE],
            [bf16::from_f32(1.0 / 256.0)],
            [bf16::from_f32(1.0 / 256.0)],
        ];
        let all: Vec<_> = terms.iter_mut().map(|term| cells(term)).collect();
        sum(&all, &all[..1]);
        assert_eq!(terms[0][0].to_f32(), 1.0 + 1.0 / 128.0);
    }

    #[test]
    fn integers_wrap() {
        let (mut left, mut right) = ([i64::MAX; 70], [1; 70]);
        let all = [cells(&mut left), cells(&mut right)];
        sum(&all, &all);
        assert_eq!(left, [i64::MIN; 70]);
        assert_eq!(right, left);
    }
}

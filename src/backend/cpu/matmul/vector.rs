//! Vectors of `f32` as each instruction set has them: the few operations that products need.
//!
//! Every function is inlined into a caller that has the instructions switched on; the caller of
//! that caller has made sure that the machine has them.

/// A register of `f32` lanes.
///
/// # Safety
/// Every function needs the instruction set's features on the machine; pointers must be valid for
/// all lanes, or for the first `count` of them where a mask is given.
pub(in crate::backend::cpu) trait Vector: Copy {
    /// Lanes of a register.
    const LANES: usize;
    /// Selects the first lanes of a register.
    type Mask: Copy;

    unsafe fn mask(count: usize) -> Self::Mask;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Unselected lanes are zero.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    unsafe fn add(self, other: Self) -> Self;
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// Asks for the cache line of an address, which need not be valid.
    unsafe fn prefetch(address: *const f32);
    /// The same, to write there.
    unsafe fn prefetch_to_write(address: *const f32);
    /// Zero where negative; NaN stays.
    unsafe fn relu(self) -> Self;
    /// Turns the first `LANES` rows into columns.
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]);
}

/// Lanes of the widest register.
pub(in crate::backend::cpu) const MOST_LANES: usize = 16;

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;
    type Mask = usize;

    #[inline(always)]
    unsafe fn mask(count: usize) -> usize {
        count
    }

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: eight lanes are valid; unaligned arrays are read as such.
        unsafe { Self(from.cast::<[f32; 8]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (lane, value) in lanes.iter_mut().enumerate().take(mask) {
            // SAFETY: the first `mask` lanes are valid.
            *value = unsafe { *from.add(lane) };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight lanes are valid; unaligned arrays are written as such.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(mask) {
            // SAFETY: the first `mask` lanes are valid.
            unsafe { *to.add(lane) = value };
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], self.0[i])))
    }

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}

    #[inline(always)]
    unsafe fn prefetch_to_write(_: *const f32) {}

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x < 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
        let before: [_; 8] = std::array::from_fn(|row| rows[row].0);
        for (row, lanes) in rows.iter_mut().enumerate().take(8) {
            lanes.0 = std::array::from_fn(|lane| before[lane][row]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(in crate::backend::cpu) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{MOST_LANES, Vector};

    /// Sixteen lanes.
    #[derive(Clone, Copy)]
    pub(in crate::backend::cpu) struct Avx512(__m512);

    /// Eight lanes.
    #[derive(Clone, Copy)]
    pub(in crate::backend::cpu) struct Avx2(__m256);

    // SAFETY (of every block): the trait's contract is the one of the instruction.
    impl Vector for Avx512 {
        const LANES: usize = 16;
        type Mask = __mmask16;

        #[inline(always)]
        unsafe fn mask(count: usize) -> __mmask16 {
            ((1u32 << count) - 1) as __mmask16
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn load_masked(from: *const f32, mask: __mmask16) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_maskz_loadu_ps(mask, from)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_masked(self, to: *mut f32, mask: __mmask16) {
            // SAFETY: see above.
            unsafe { _mm512_mask_storeu_ps(to, mask, self.0) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn prefetch(address: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_to_write(address: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see above. The second operand is what comes out for NaN and for -0.
            unsafe { Self(_mm512_max_ps(_mm512_setzero_ps(), self.0)) }
        }

        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
            // SAFETY: see above.
            unsafe {
                // Within each 128-bit quarter, 4x4 blocks of rows 4g..4g+4.
                let mut quarters = [_mm512_setzero_ps(); 16];
                for group in 0..4 {
                    let [a, b, c, d] = std::array::from_fn(|i| rows[4 * group + i].0);
                    let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                    let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                    quarters[4 * group] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
                    quarters[4 * group + 1] = _mm512_shuffle_ps::<0xee>(ab_low, cd_low);
                    quarters[4 * group + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
                    quarters[4 * group + 3] = _mm512_shuffle_ps::<0xee>(ab_high, cd_high);
                }
                // Then the 4x4 blocks among the quarters.
                for column in 0..4 {
                    let [a, b, c, d] = std::array::from_fn(|i| quarters[4 * i + column]);
                    let even_low = _mm512_shuffle_f32x4::<0x88>(a, b);
                    let odd_low = _mm512_shuffle_f32x4::<0xdd>(a, b);
                    let even_high = _mm512_shuffle_f32x4::<0x88>(c, d);
                    let odd_high = _mm512_shuffle_f32x4::<0xdd>(c, d);
                    rows[column].0 = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
                    rows[8 + column].0 = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
                    rows[4 + column].0 = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
                    rows[12 + column].0 = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
                }
            }
        }
    }

    // SAFETY (of every block): the trait's contract is the one of the instruction.
    impl Vector for Avx2 {
        const LANES: usize = 8;
        type Mask = __m256i;

        #[inline(always)]
        unsafe fn mask(count: usize) -> __m256i {
            // SAFETY: see above.
            unsafe {
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
            }
        }

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_setzero_ps()) }
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_set1_ps(value)) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_loadu_ps(from)) }
        }

        #[inline(always)]
        unsafe fn load_masked(from: *const f32, mask: __m256i) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_maskload_ps(from, mask)) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_masked(self, to: *mut f32, mask: __m256i) {
            // SAFETY: see above.
            unsafe { _mm256_maskstore_ps(to, mask, self.0) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see above.
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0)) }
        }

        #[inline(always)]
        unsafe fn prefetch(address: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
        }

        #[inline(always)]
        unsafe fn prefetch_to_write(address: *const f32) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) }
        }

        #[inline(always)]
        unsafe fn relu(self) -> Self {
            // SAFETY: see above. The second operand is what comes out for NaN and for -0.
            unsafe { Self(_mm256_max_ps(_mm256_setzero_ps(), self.0)) }
        }

        #[inline(always)]
        unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
            // SAFETY: see above.
            unsafe {
                // Within each 128-bit half, 4x4 blocks of rows 4g..4g+4; then the halves.
                let mut halves = [_mm256_setzero_ps(); 8];
                for group in 0..2 {
                    let [a, b, c, d] = std::array::from_fn(|i| rows[4 * group + i].0);
                    let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                    let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                    halves[4 * group] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
                    halves[4 * group + 1] = _mm256_shuffle_ps::<0xee>(ab_low, cd_low);
                    halves[4 * group + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
                    halves[4 * group + 3] = _mm256_shuffle_ps::<0xee>(ab_high, cd_high);
                }
                for column in 0..4 {
                    let (top, bottom) = (halves[column], halves[4 + column]);
                    rows[column].0 = _mm256_permute2f128_ps::<0x20>(top, bottom);
                    rows[4 + column].0 = _mm256_permute2f128_ps::<0x31>(top, bottom);
                }
            }
        }
    }
}

//! Vectors of `f32` in the widths that CPUs have, so that a tile is written once.

/// A register of `COUNT` numbers.
pub(super) trait Lanes: Copy {
    /// Numbers in one register.
    const COUNT: usize;

    /// The same number in every lane.
    ///
    /// # Safety
    /// The CPU has the instruction set of this width; true of every method here.
    unsafe fn splat(value: f32) -> Self;

    /// The `COUNT` numbers at `from`.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count` numbers at `from`, zeros behind them.
    ///
    /// # Safety
    /// That many can be read; `count` is at most `COUNT`.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;

    /// Writes the first `count` lanes.
    ///
    /// # Safety
    /// That many can be written at `to`; `count` is at most `COUNT`.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// `self + other`
    ///
    /// # Safety
    /// See [`Lanes::splat`].
    unsafe fn add(self, other: Self) -> Self;

    /// `self + a * b`, rounded once.
    ///
    /// # Safety
    /// See [`Lanes::splat`].
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
}

/// Any CPU. Slow where the compiler's target has no fused multiply-add, but the same bits.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 4]);

impl Lanes for Portable {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; arrays need no more alignment than their elements.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller's promise.
            *lane = unsafe { from.add(i).read() };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (i, lane) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { to.add(i).write(lane) };
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
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256);

    /// AVX-512.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512);

    impl Avx2 {
        #[inline(always)]
        unsafe fn mask(count: usize) -> __m256i {
            // SAFETY: the caller's promise is that of every method here.
            unsafe {
                let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places)
            }
        }
    }

    // SAFETY of the bodies below: the instruction set and the memory are the caller's promises,
    // and masked lanes are not touched.
    impl Lanes for Avx2 {
        const COUNT: usize = 8;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_maskload_ps(from, Self::mask(count)) })
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: as above.
            unsafe { _mm256_maskstore_ps(to, Self::mask(count), self.0) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }
    }

    impl Avx512 {
        #[inline(always)]
        fn mask(count: usize) -> __mmask16 {
            ((1u32 << count) - 1) as u16
        }
    }

    impl Lanes for Avx512 {
        const COUNT: usize = 16;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_maskz_loadu_ps(Self::mask(count), from) })
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, count: usize) {
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(to, Self::mask(count), self.0) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }
    }
}

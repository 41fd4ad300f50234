//! Random numbers as a function of where they are used.
//!
//! Philox 4x32-10 (J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) turns
//! a key and a counter into four 32-bit numbers. There is no state: a number depends on the seed
//! and on what it is for, never on who asks or in which order, so every rank and every device
//! draws the same.

use std::fmt::{self, Write};

/// Four random words for `counter` under `key`.
///
/// ```
/// // The known answer of the paper's reference implementation.
/// let words = ringstep::random::philox([0; 4], [0; 2]);
/// assert_eq!(words, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let product0 = u64::from(c0) * 0xd251_1f53;
        let product1 = u64::from(c2) * 0xcd9e_8d57;
        (c0, c2) = (
            (product1 >> 32) as u32 ^ c1 ^ k0,
            (product0 >> 32) as u32 ^ c3 ^ k1,
        );
        (c1, c3) = (product1 as u32, product0 as u32);
        k0 = k0.wrapping_add(0x9e37_79b9);
        k1 = k1.wrapping_add(0xbb67_ae85);
    }
    [c0, c1, c2, c3]
}

/// An endless sequence of numbers for one purpose.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The numbers of `purpose`, such as a tensor's name or an epoch, under `seed`.
    pub fn new(seed: u64, purpose: impl fmt::Display) -> Self {
        let hash = Fnv1a::of(purpose);
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [0, 0, hash as u32, (hash >> 32) as u32],
            words: [0; 4],
            used: 4,
        }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox(self.counter, self.key);
            let (low, carry) = self.counter[0].overflowing_add(1);
            self.counter[0] = low;
            self.counter[1] = self.counter[1].wrapping_add(u32::from(carry));
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Uniform in `[0, 1)`, 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let high = u64::from(self.next_u32()) << 21;
        let low = u64::from(self.next_u32()) >> 11;
        (high | low) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..bound`, without bias (D. Lemire, "Fast random integer generation in an
    /// interval", 2019).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no number is below zero");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Standard normal (Box and Muller's method).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Standard normal, drawn again where it is beyond two standard deviations.
    pub fn truncated_normal(&mut self) -> f64 {
        loop {
            let value = self.normal();
            if value.abs() <= 2.0 {
                return value;
            }
        }
    }
}

/// The 64-bit FNV-1a hash of what is written to it.
struct Fnv1a(u64);

impl Fnv1a {
    fn of(text: impl fmt::Display) -> u64 {
        let mut hash = Self(0xcbf2_9ce4_8422_2325);
        // Hashing cannot fail, and nobody asks a text that does.
        let _ = write!(hash, "{text}");
        hash.0
    }
}

impl fmt::Write for Fnv1a {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(
            philox([0xffff_ffff; 4], [0xffff_ffff; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn purposes_and_seeds_have_their_own_numbers() {
        let draw = |seed, purpose| Stream::new(seed, purpose).next_u32();
        assert_ne!(draw(0, "a"), draw(0, "b"));
        assert_ne!(draw(0, "a"), draw(1, "a"));
        assert_eq!(draw(7, "a"), draw(7, "a"));
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut stream = Stream::new(3, "moments");
        let count = 100_000;
        let uniform = (0..count).map(|_| stream.uniform()).sum::<f64>() / f64::from(count);
        assert!((uniform - 0.5).abs() < 0.005);
        let squares = (0..count).map(|_| stream.normal().powi(2)).sum::<f64>() / f64::from(count);
        assert!((squares - 1.0).abs() < 0.02);
        assert!((0..1000).all(|_| stream.below(7) < 7));
    }
}

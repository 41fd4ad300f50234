//! FarmHash's Fingerprint64 and how fingerprints are combined: what TensorFlow numbers texts by.
//!
//! Source: Pike and Alakuijala, FarmHash 1.1 (2014), the fingerprint that it promises never to change;
//! crosses: TensorFlow's FingerprintCat64. The golden ids in `tests/golden/hashes.json` are TensorFlow's.

use std::num::Wrapping;

type Word = Wrapping<u64>;

const K0: Word = Wrapping(0xc3a5_c85c_97cb_3127);
const K1: Word = Wrapping(0xb492_b66f_be98_f273);
const K2: Word = Wrapping(0x9ae1_6a3b_2f90_404f);

/// Bytes that are taken in at a time of long texts.
const BLOCK: usize = 64;

/// The fingerprint of no values, which a cross [adds](concatenated) its keys' to.
pub(super) const CROSS: u64 = 0xde_cafc_affe;

/// The id of a text among `buckets`.
pub(super) fn bucket(text: &[u8], buckets: usize) -> usize {
    (fingerprint(text) % buckets as u64) as usize
}

/// FingerprintCat64: depends on the order of the two.
pub(super) fn concatenated(first: u64, second: u64) -> u64 {
    const FACTOR: Word = Wrapping(0xc6a4_a793_5bd1_e995);
    let (first, second) = (Wrapping(first), Wrapping(second));
    let mixed = (first ^ FACTOR ^ (shift_mix(second * FACTOR) * FACTOR)) * FACTOR;
    shift_mix(shift_mix(mixed) * FACTOR).0
}

/// The fingerprint of a text.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    let count = Wrapping(text.len() as u64);
    // Words that are counted from the start, and from the end: they overlap in short texts.
    let at = |place| word(&text[place..]);
    let end = |place| word(&text[text.len() - place..]);
    let factor = K2 + count * Wrapping(2);
    match text.len() {
        0 => K2,
        1..4 => {
            let byte = |place: usize| Wrapping(u64::from(text[place]));
            let first = byte(0) + (byte(text.len() / 2) << 8);
            let second = count + (byte(text.len() - 1) << 2);
            shift_mix((first * K2) ^ (second * K0)) * K2
        }
        4..8 => {
            let first = half(text);
            mixed(count + (first << 3), half(&text[text.len() - 4..]), factor)
        }
        8..17 => {
            let (a, b) = (at(0) + K2, end(8));
            let first = rotated(b, 37) * factor + a;
            mixed(first, (rotated(a, 25) + b) * factor, factor)
        }
        17..33 => {
            let (a, b) = (at(0) * K1, at(8));
            let (c, d) = (end(8) * factor, end(16) * K2);
            let first = rotated(a + b, 43) + rotated(c, 30) + d;
            mixed(first, a + rotated(b + K2, 18) + c, factor)
        }
        33..65 => {
            let (a, b) = (at(0) * K2, at(8));
            let (c, d) = (end(8) * factor, end(16) * K2);
            let y = rotated(a + b, 43) + rotated(c, 30) + d;
            let z = mixed(y, a + rotated(b + K2, 18) + c, factor);
            let (e, f) = (at(16) * factor, at(24));
            let (g, h) = ((y + end(32)) * factor, (z + end(24)) * factor);
            let first = rotated(e + f, 43) + rotated(g, 30) + h;
            mixed(first, e + rotated(f + a, 18) + g, factor)
        }
        _ => Long::fingerprint(text),
    }
    .0
}

/// The state over the blocks of a text of more than one.
struct Long {
    x: Word,
    y: Word,
    z: Word,
    v: (Word, Word),
    w: (Word, Word),
}

impl Long {
    fn fingerprint(text: &[u8]) -> Word {
        const SEED: Word = Wrapping(81);
        const STEP: Word = Wrapping(113);
        let y = SEED * K1 + STEP;
        let mut state = Self {
            x: SEED * K2 + word(text),
            y,
            z: shift_mix(y * K2 + STEP) * K2,
            v: Default::default(),
            w: Default::default(),
        };
        // The last block is whole: it begins within the one before where the text ends within a block.
        let before = (text.len() - 1) / BLOCK * BLOCK;
        for block in text[..before].chunks_exact(BLOCK) {
            state.take_in(block, K1, Wrapping(1));
        }
        let factor = K1 + ((state.z & Wrapping(0xff)) << 1);
        state.w.0 += Wrapping((text.len() - 1 - before) as u64);
        state.v.0 += state.w.0;
        state.w.0 += state.v.0;
        state.take_in(&text[text.len() - BLOCK..], factor, Wrapping(9));
        let Self { x, y, z, v, w } = state;
        mixed(
            mixed(v.0, w.0, factor) + shift_mix(y) * K0 + z,
            mixed(v.1, w.1, factor) + x,
            factor,
        )
    }

    fn take_in(&mut self, block: &[u8], factor: Word, weight: Word) {
        let at = |place: usize| word(&block[place..]);
        let Self { x, y, z, v, w } = self;
        *x = rotated(*x + *y + v.0 + at(8), 37) * factor;
        *y = rotated(*y + v.1 + at(48), 42) * factor;
        *x ^= w.1 * weight;
        *y += v.0 * weight + at(40);
        *z = rotated(*z + w.0, 33) * factor;
        *v = half_block(&block[..32], v.1 * factor, *x + w.0);
        *w = half_block(&block[32..], *z + w.1, *y + at(16));
        std::mem::swap(x, z);
    }
}

fn half_block(block: &[u8], a: Word, b: Word) -> (Word, Word) {
    let at = |place: usize| word(&block[place..]);
    let a = a + at(0);
    let sum = a + at(8) + at(16);
    let b = rotated(b + a + at(24), 21) + rotated(sum, 44);
    (sum + at(24), b + a)
}

fn mixed(first: Word, second: Word, factor: Word) -> Word {
    let mix = |word: Word| shift_mix(word * factor);
    mix(second ^ mix(first ^ second)) * factor
}

fn shift_mix(word: Word) -> Word {
    word ^ (word >> 47)
}

/// To the right.
fn rotated(word: Word, places: u32) -> Word {
    Wrapping(word.0.rotate_right(places))
}

/// The eight bytes that `bytes` begins with.
fn word(bytes: &[u8]) -> Word {
    Wrapping(u64::from_le_bytes(
        *bytes
            .first_chunk()
            .expect("places lie eight bytes before the end"),
    ))
}

/// The four bytes that `bytes` begins with.
fn half(bytes: &[u8]) -> Word {
    Wrapping(u64::from(u32::from_le_bytes(
        *bytes
            .first_chunk()
            .expect("places lie four bytes before the end"),
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        fingerprint64_vectors: BTreeMap<String, String>,
        #[serde(rename = "occupation_1000")]
        hashed: BTreeMap<String, usize>,
        #[serde(rename = "education_X_occupation_1000")]
        pairs: BTreeMap<String, u64>,
        #[serde(rename = "age_X_education_X_occupation_1000")]
        triples: BTreeMap<String, u64>,
    }

    #[test]
    fn texts_and_crosses_have_tensorflows_ids() {
        let golden: Golden =
            serde_json::from_str(include_str!("../../tests/golden/hashes.json")).unwrap();
        let counts = [
            golden.fingerprint64_vectors.len(),
            golden.hashed.len(),
            golden.pairs.len() + golden.triples.len(),
        ];
        assert_eq!(counts, [16, 15, 2880]);
        for (text, expected) in &golden.fingerprint64_vectors {
            assert_eq!(
                fingerprint(text.as_bytes()).to_string(),
                *expected,
                "{text}"
            );
        }
        for (text, expected) in &golden.hashed {
            assert_eq!(bucket(text.as_bytes(), 1000), *expected, "{text}");
        }
        let texts = |keys: &str| {
            keys.split('|')
                .map(|key| fingerprint(key.as_bytes()))
                .collect()
        };
        for (keys, expected) in &golden.pairs {
            let fingerprints: Vec<u64> = texts(keys);
            let cross = fingerprints.into_iter().fold(CROSS, concatenated);
            assert_eq!(cross % 1000, *expected, "{keys}");
        }
        for (keys, expected) in &golden.triples {
            // The first is a bucket.
            let (bucket, rest) = keys.split_once('|').unwrap();
            let fingerprints: Vec<u64> = texts(rest);
            let all = [bucket.parse().unwrap()].into_iter().chain(fingerprints);
            let cross = all.fold(CROSS, concatenated);
            assert_eq!(cross % 1000, *expected, "{keys}");
        }
    }
}

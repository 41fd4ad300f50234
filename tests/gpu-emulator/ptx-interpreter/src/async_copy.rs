//! Copies that land later than they are issued.
//!
//! PTX ISA: "Asynchronous Operations", "Data Movement and Conversion Instructions: Asynchronous
//! copy" and "... Tensor copy". With [`crate::AsyncTiming::Late`] a copy lands at the last moment
//! the ISA permits (when it is waited for), with `Early` at the moment it is issued. A program that
//! is right gives the same result with both.

/// One `cp.async` of one lane.
#[derive(Debug, Clone)]
pub(crate) struct PendingCopy {
    pub destination: u64,
    pub source: u64,
    /// Bytes read from `source`; the rest of `size` is zero.
    pub source_bytes: usize,
    pub size: usize,
}

/// A bulk or tensor copy into shared memory that completes on an mbarrier.
#[derive(Debug, Clone)]
pub(crate) struct PendingTensorCopy {
    pub destination: u64,
    pub mbarrier: u64,
    pub lane: usize,
    pub source: BulkSource,
}

#[derive(Debug, Clone)]
pub(crate) enum BulkSource {
    Linear { address: u64, bytes: u64 },
    Tensor { map: TensorMap, x: i64, y: i64 },
}

/// Value of the first word of a tensor map made by this project's fake driver.
pub(crate) const TENSOR_MAP_MAGIC: u64 = 0x544d_4150;

/// The 2-D tiled tensor map of the fake driver (128 bytes, private layout).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorMap {
    pub element_bytes: u64,
    /// 0 none, 1 = 32 bytes, 2 = 64 bytes, 3 = 128 bytes.
    pub swizzle: u64,
    pub base: u64,
    pub width: u64,
    pub height: u64,
    pub row_bytes: u64,
    pub box_width: u64,
    pub box_height: u64,
}

impl TensorMap {
    /// Decodes the sixteen words of a tensor map.
    pub(crate) fn decode(words: &[u64; 16]) -> Option<TensorMap> {
        (words[0] == TENSOR_MAP_MAGIC).then_some(TensorMap {
            element_bytes: words[1] & 0xff,
            swizzle: words[1] >> 16,
            base: words[2],
            width: words[3],
            height: words[4],
            row_bytes: words[8],
            box_width: words[12] & 0xffff_ffff,
            box_height: words[12] >> 32,
        })
    }
}

/// XOR of address bits [4..7) with bits [7..10), as far as the swizzle width reaches.
pub(crate) fn swizzle(address: u64, mode: u64) -> u64 {
    let mask = match mode {
        3 => 7,
        2 => 3,
        1 => 1,
        _ => 0,
    };
    address ^ ((address >> 7 & mask) << 4)
}

//! Fixed point and 16-bit floats: the bits of the CPU, whatever the length and the place in memory.

use half::bf16;
use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Accumulate, Element, FixedPoint, Memory};
use ringstep::random::Stream;

use crate::twins::{assert_same_bits, cuda, download, normals, twins, upload};

/// The last ones are more than the threads of one block take, in groups of four.
const LENGTHS: [usize; 9] = [0, 1, 3, 4, 31, 33, 257, 1024, 2099];

/// Where two arrays begin, alike and not.
const OFFSETS: [(usize, usize); 5] = [(0, 0), (1, 1), (3, 3), (1, 2), (3, 0)];

/// Elements before and after what a kernel may touch.
const MARGIN: usize = 5;

/// A kernel's arrays: what is read, what may be written, with the offset of each.
struct Placed<B: Memory, T: Element, U: Element> {
    from: B::Buffer<T>,
    to: B::Buffer<U>,
    offsets: (usize, usize),
    len: usize,
}

impl<B: Memory, T: Element, U: Element> Placed<B, T, U> {
    fn new(backend: &mut B, from: &[T], to: &[U], offsets: (usize, usize)) -> Self {
        assert_eq!(from.len(), to.len());
        Self {
            from: upload(backend, &surrounded(from, offsets.0)),
            to: upload(backend, &surrounded(to, offsets.1)),
            offsets,
            len: from.len(),
        }
    }

    fn views(&mut self) -> (B::View<'_, T>, B::ViewMut<'_, U>) {
        let (from, to) = (B::view(&self.from), B::view_mut(&mut self.to));
        let (first, second) = self.offsets;
        (
            B::slice(from, first..first + self.len),
            B::slice_mut(to, second..second + self.len),
        )
    }
}

/// `values` from `offset` on, between elements that no kernel should touch.
fn surrounded<T: Element>(values: &[T], offset: usize) -> Vec<T> {
    let mut all = vec![T::default(); offset];
    all.extend(values);
    all.resize(offset + values.len() + MARGIN, T::default());
    all
}

/// Numbers of all sizes that 64 bits hold at an exponent of 20: halves of a unit, zeros and denormals
/// are among them.
fn values(len: usize) -> Vec<f32> {
    let mut values = normals(11, len);
    for (at, value) in values.iter_mut().enumerate() {
        *value *= 3f32.powi(at as i32 % 40 - 20);
        match at % 16 {
            3 => *value = (at as f32 - 90.5) * 2f32.powi(-20),
            7 => *value = -0.0,
            11 => *value = f32::from_bits(at as u32 + 1),
            _ => {}
        }
    }
    values
}

fn integers(len: usize) -> Vec<i64> {
    let mut stream = Stream::new(13, "integers");
    let all = (0..len).map(|at| (stream.normal() * 2f64.powi(at as i32 % 62)) as i64);
    let mut all: Vec<i64> = all.collect();
    // Between two floats, and between two doubles that are.
    let special = [
        i64::MAX,
        i64::MIN,
        0,
        (1 << 24) + 1,
        -(1 << 54) - (1 << 30) - 1,
    ];
    for (place, special) in all.iter_mut().skip(1).step_by(3).zip(special) {
        *place = special;
    }
    all
}

/// Floats of which a 16-bit float tells little: ties, the edge of infinity, and NaNs of many kinds.
fn all_kinds(len: usize) -> Vec<f32> {
    let special = [
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0xbf80_7fff,
        0x7f7f_7fff,
        0x7f7f_8000,
        0xff7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7f80_0001,
        0x7fc1_2345,
        0xffff_ffff,
        0xff80_ffff,
        0x0000_0001,
        0x8000_8000,
        0x007f_ffff,
    ];
    let mut all = normals(17, len);
    for (place, special) in all.iter_mut().skip(1).step_by(2).zip(special) {
        *place = f32::from_bits(special);
    }
    all
}

#[test]
fn floats_become_the_same_integers() {
    fn body<B: FixedPoint>(
        backend: &mut B,
        values: &[f32],
        exponent: i32,
        write: Accumulate,
        offsets: (usize, usize),
    ) -> (Vec<i64>, Vec<u32>) {
        let before = integers(values.len());
        let mut placed = Placed::new(backend, values, &before, offsets);
        let mut magnitude = upload(backend, &[7u32, 0, 9]);
        let (from, to) = placed.views();
        let at = B::slice_mut(B::view_mut(&mut magnitude), 1..2);
        backend.quantize(from, exponent, to, write, at);
        (download(backend, &placed.to), download(backend, &magnitude))
    }
    let gpu = &mut cuda();
    for write in [Accumulate::Set, Accumulate::Add] {
        for len in LENGTHS {
            for offsets in OFFSETS {
                let values = values(len);
                let (cpu, cuda) = twins!(on gpu, body, &values, 20, write, offsets);
                assert_same_bits(&cpu.0, &cuda.0);
                assert_eq!(cpu.1, cuda.1);
            }
        }
        // Every exponent, of values that fit.
        for exponent in (-126..=127).step_by(11) {
            let scale = 2f32.powi(30.min(124 + exponent) - exponent);
            let values: Vec<f32> = normals(3, 33).iter().map(|x| x * scale).collect();
            let (cpu, cuda) = twins!(on gpu, body, &values, exponent, write, (0, 0));
            assert_same_bits(&cpu.0, &cuda.0);
            assert_eq!(cpu.1, cuda.1);
        }
    }
}

#[test]
fn the_largest_magnitude_is_the_same() {
    fn body<B: FixedPoint>(
        backend: &mut B,
        values: &[f32],
        offset: usize,
        before: u32,
    ) -> Vec<u32> {
        // The elements around would be the largest.
        let mut all = vec![f32::NAN; offset];
        all.extend(values);
        all.push(f32::INFINITY);
        let (all, mut magnitude) = (upload(backend, &all), upload(backend, &[before]));
        let part = B::slice(B::view(&all), offset..offset + values.len());
        backend.magnitude(part, B::view_mut(&mut magnitude));
        download(backend, &magnitude)
    }
    let gpu = &mut cuda();
    for len in LENGTHS {
        for offset in 0..4 {
            let values = normals(len as u64, len);
            let (cpu, cuda) = twins!(on gpu, body, &values, offset, 0);
            assert_eq!(cpu, cuda);
            let before = 2.5f32.to_bits();
            let (cpu, cuda) = twins!(on gpu, body, &values, offset, before);
            assert_eq!(cpu, cuda);
        }
    }
    // In every place, what is not finite; a NaN's own bits among them.
    for bits in [0xffff_ffff, 0x7f80_0001, 0xff80_0000, 0x7fc0_0000] {
        for at in [0, 63, 64, 512, 1023, 1024, 1299] {
            let mut values = normals(1, 1300);
            values[at] = f32::from_bits(bits);
            let (cpu, cuda) = twins!(on gpu, body, &values, 0, 0);
            assert_eq!(cpu, cuda);
            assert_eq!(cuda, [bits & 0x7fff_ffff]);
        }
    }
}

#[test]
fn the_largest_magnitude_of_more_than_a_grid_takes_at_once() {
    // 4096 blocks of 256 threads, with four elements each.
    let mut values = vec![0.5f32; 4096 * 256 * 4 + 9];
    *values.last_mut().unwrap() = -2.0;
    let gpu = &mut cuda();
    let (values, mut magnitude) = (upload(gpu, &values), upload(gpu, &[0u32]));
    gpu.magnitude(Cuda::view(&values), Cuda::view_mut(&mut magnitude));
    assert_eq!(download(gpu, &magnitude), [2f32.to_bits()]);
}

#[test]
fn what_is_not_finite_is_in_the_magnitude_of_a_quantization() {
    fn body<B: FixedPoint>(backend: &mut B, values: &[f32]) -> Vec<u32> {
        let mut placed = Placed::new(backend, values, &vec![0i64; values.len()], (0, 0));
        let mut magnitude = upload(backend, &[0u32]);
        let (from, to) = placed.views();
        let magnitude_view = B::view_mut(&mut magnitude);
        backend.quantize(from, 0, to, Accumulate::Add, magnitude_view);
        download(backend, &magnitude)
    }
    let gpu = &mut cuda();
    for bits in [0xffff_ffff, 0x7f80_0001, 0xff80_0000] {
        let mut values = normals(1, 37);
        values[36] = f32::from_bits(bits);
        let (cpu, cuda) = twins!(on gpu, body, &values);
        assert_eq!(cpu, cuda);
        assert_eq!(cuda, [bits & 0x7fff_ffff]);
    }
}

#[test]
fn integers_become_the_same_floats() {
    fn body<B: FixedPoint>(
        backend: &mut B,
        sums: &[i64],
        exponent: i32,
        offsets: (usize, usize),
    ) -> Vec<f32> {
        let before = vec![1.0; sums.len()];
        let mut placed = Placed::new(backend, sums, &before, offsets);
        let (from, to) = placed.views();
        backend.dequantize(from, exponent, to);
        download(backend, &placed.to)
    }
    let gpu = &mut cuda();
    for len in LENGTHS {
        for offsets in OFFSETS {
            let (cpu, cuda) = twins!(on gpu, body, &integers(len), 20, offsets);
            assert_same_bits(&cpu, &cuda);
        }
    }
    // Down to denormals and up to infinity.
    for exponent in -126..=127 {
        let (cpu, cuda) = twins!(on gpu, body, &integers(33), exponent, (0, 0));
        assert_same_bits(&cpu, &cuda);
    }
}

#[test]
fn floats_of_16_bits_are_the_same() {
    fn narrow<B: FixedPoint>(
        backend: &mut B,
        values: &[f32],
        offsets: (usize, usize),
    ) -> Vec<bf16> {
        let before = vec![bf16::ONE; values.len()];
        let mut placed = Placed::new(backend, values, &before, offsets);
        let (from, to) = placed.views();
        backend.narrow(from, to);
        download(backend, &placed.to)
    }
    fn widen<B: FixedPoint>(backend: &mut B, narrow: &[bf16], offsets: (usize, usize)) -> Vec<f32> {
        let before = vec![1.0; narrow.len()];
        let mut placed = Placed::new(backend, narrow, &before, offsets);
        let (from, to) = placed.views();
        backend.widen(from, to);
        download(backend, &placed.to)
    }
    let gpu = &mut cuda();
    for len in LENGTHS {
        for offsets in OFFSETS {
            let (cpu, cuda) = twins!(on gpu, narrow, &all_kinds(len), offsets);
            assert_same_bits(&cpu, &cuda);
            let narrow: Vec<bf16> = cpu[offsets.1..offsets.1 + len].to_vec();
            let (cpu, cuda) = twins!(on gpu, widen, &narrow, offsets);
            assert_same_bits(&cpu, &cuda);
        }
    }
    // Every number of 16 bits.
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    let (cpu, cuda) = twins!(on gpu, widen, &all, (0, 0));
    assert_same_bits(&cpu, &cuda);
}

#[test]
fn moving_averages_are_the_same() {
    fn body<B: FixedPoint>(
        backend: &mut B,
        sums: &[i64],
        momentum: f32,
        count: u64,
        offsets: (usize, usize),
    ) -> Vec<f32> {
        let before = normals(5, sums.len());
        let mut placed = Placed::new(backend, sums, &before, offsets);
        for exponent in [40, 33] {
            let (from, to) = placed.views();
            backend.move_average(to, momentum, from, exponent, count);
        }
        download(backend, &placed.to)
    }
    let gpu = &mut cuda();
    for len in LENGTHS {
        let offsets = OFFSETS[len % OFFSETS.len()];
        for (momentum, count) in [(0.99, 1), (0.9, 3 * 17), (0.0, 1 << 40), (1.0, u64::MAX)] {
            let (cpu, cuda) = twins!(on gpu, body, &integers(len), momentum, count, offsets);
            assert_same_bits(&cpu, &cuda);
        }
    }
}

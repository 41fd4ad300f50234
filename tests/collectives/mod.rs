//! What every communicator has to do, whatever carries it and wherever its regions lie: bodies that
//! one rank runs, with the backend whose memory it is.

use std::ops::Range;

use half::bf16;
use ringstep::backend::cpu::Cpu;
use ringstep::backend::{Accumulate, BLOCK, Element, FixedPoint, Memory, Region};
use ringstep::comm::{Algorithm, CommError, Communicator, Span};
use ringstep::params::partition;

/// Elements around a span that must stay as they are.
const MARGIN: usize = 3;

/// An element type under test.
pub(crate) trait Subject: Element {
    /// A value whose sums over 16 ranks are exact in every type.
    fn whole(value: i64) -> Self;
    fn allocate(communicator: &mut dyn Communicator, len: usize)
    -> Result<Region<Self>, CommError>;
}

impl Subject for f32 {
    fn whole(value: i64) -> f32 {
        value as f32
    }
    fn allocate(communicator: &mut dyn Communicator, len: usize) -> Result<Region<f32>, CommError> {
        communicator.allocate_f32(len)
    }
}

impl Subject for bf16 {
    fn whole(value: i64) -> bf16 {
        bf16::from_f32(value as f32)
    }
    fn allocate(
        communicator: &mut dyn Communicator,
        len: usize,
    ) -> Result<Region<bf16>, CommError> {
        communicator.allocate_bf16(len)
    }
}

impl Subject for i64 {
    fn whole(value: i64) -> i64 {
        value
    }
    fn allocate(communicator: &mut dyn Communicator, len: usize) -> Result<Region<i64>, CommError> {
        communicator.allocate_i64(len)
    }
}

/// Writes a region and hands it over.
fn write<T: Element, B: Memory>(
    communicator: &mut dyn Communicator,
    backend: &mut B,
    region: &Region<T>,
    values: &[T],
) {
    // SAFETY: no collective runs, and no other reference to the region is alive.
    backend.upload(values, unsafe { B::region_mut(region, 0..region.len()) });
    communicator.after(backend.release()).unwrap();
}

/// Takes a region back and reads it.
fn read<T: Element, B: Memory>(backend: &mut B, region: &Region<T>) -> Vec<T> {
    let mut values = vec![T::default(); region.len()];
    backend.acquire();
    // SAFETY: no collective runs, and no other reference to the region is alive.
    backend.download(unsafe { B::region(region, 0..region.len()) }, &mut values);
    backend.synchronize().unwrap();
    values
}

/// From -8 to 7: sums of 16 such values are exact even in 8 bits of mantissa.
fn whole_value(rank: usize, at: usize) -> i64 {
    ((at * 7 + rank * 5 + at / 16 * rank) % 16) as i64 - 8
}

/// Checks all collectives on spans of `len` elements of `T`.
pub(crate) fn all_collectives<T: Subject>(
    communicator: &mut dyn Communicator,
    backend: &mut impl Memory,
    len: usize,
) {
    let (rank, world) = (communicator.rank(), communicator.world());
    let region = T::allocate(communicator, len + 2 * MARGIN).unwrap();
    let span = Span {
        region: region.id(),
        range: MARGIN..MARGIN + len,
    };
    let filled = |value: &dyn Fn(usize) -> i64| {
        let mut cells = vec![T::whole(101); region.len()];
        for (at, cell) in cells[MARGIN..][..len].iter_mut().enumerate() {
            *cell = T::whole(value(at));
        }
        cells
    };
    let check = |cells: &[T], what: &str, range: Range<usize>, value: &dyn Fn(usize) -> i64| {
        for at in range {
            let (found, expected) = (cells[MARGIN + at], T::whole(value(at)));
            assert_eq!(
                found, expected,
                "{what}, element {at} of {len}, rank {rank} of {world}"
            );
        }
        for at in (0..MARGIN).chain(MARGIN + len..cells.len()) {
            assert_eq!(cells[at], T::whole(101), "{what} wrote outside its span");
        }
    };
    let total = |at: usize| (0..world).map(|rank| whole_value(rank, at)).sum::<i64>();
    let owner = |at: usize| {
        (0..world)
            .find(|&r| partition(len, world, r).contains(&at))
            .unwrap()
    };

    let cells = filled(&|at| whole_value(rank, at));
    write(communicator, backend, &region, &cells);
    communicator.all_reduce(&span).unwrap();
    check(&read(backend, &region), "all-reduce", 0..len, &total);

    write(communicator, backend, &region, &cells);
    communicator.reduce_scatter(&span).unwrap();
    let own = partition(len, world, rank);
    check(&read(backend, &region), "reduce-scatter", own, &total);

    let pieces = filled(&|at| match owner(at) == rank {
        true => whole_value(rank, at),
        false => 99,
    });
    write(communicator, backend, &region, &pieces);
    communicator.all_gather(&span).unwrap();
    check(&read(backend, &region), "all-gather", 0..len, &|at| {
        whole_value(owner(at), at)
    });

    for root in [0, world - 1, world / 2] {
        write(communicator, backend, &region, &cells);
        communicator.broadcast(&span, root).unwrap();
        check(&read(backend, &region), "broadcast", 0..len, &|at| {
            whole_value(root, at)
        });
    }
    communicator.barrier().unwrap();
}

/// A number of magnitude 1e-3 to 1e3 that no two ranks share.
fn real_value(rank: usize, at: usize) -> f32 {
    let x = ((at * 2_654_435_761 + rank * 40_503 + 12_345) % 1_000_003) as f32 / 1_000_003.0;
    (x - 0.5) * 10_f32.powi((at % 7) as i32 - 3)
}

/// Checks that real sums are near the plain ones, have the same bits on every rank, and that
/// reduce-scatter then all-gather gives the bits of all-reduce.
pub(crate) fn same_bits_everywhere(
    communicator: &mut dyn Communicator,
    backend: &mut impl Memory,
    len: usize,
) {
    let (rank, world) = (communicator.rank(), communicator.world());
    let once = communicator.allocate_f32(len).unwrap();
    let twice = communicator.allocate_f32(len).unwrap();
    let spans = [&once, &twice].map(|region| Span {
        region: region.id(),
        range: 0..len,
    });
    let values: Vec<f32> = (0..len).map(|at| real_value(rank, at)).collect();
    for region in [&once, &twice] {
        write(communicator, backend, region, &values);
    }
    communicator.all_reduce(&spans[0]).unwrap();
    communicator.reduce_scatter(&spans[1]).unwrap();
    communicator.all_gather(&spans[1]).unwrap();
    let (sums, parts) = (read(backend, &once), read(backend, &twice));
    for at in 0..len {
        let values = (0..world).map(|rank| f64::from(real_value(rank, at)));
        let size: f64 = values.clone().map(f64::abs).sum();
        let plain: f64 = values.sum();
        for sum in [sums[at], parts[at]] {
            let difference = (f64::from(sum) - plain).abs();
            assert!(
                difference <= 1e-6 * size,
                "element {at}: off by {difference} of {size}"
            );
        }
        // NCCL chooses the order of its sums for each operation by itself.
        if communicator.algorithm() != Algorithm::Nccl {
            assert_eq!(
                sums[at].to_bits(),
                parts[at].to_bits(),
                "element {at} in two steps"
            );
        }
        if communicator.algorithm() == Algorithm::Direct {
            let in_order = (1..world).fold(real_value(0, at), |sum, r| sum + real_value(r, at));
            assert_eq!(
                sums[at].to_bits(),
                in_order.to_bits(),
                "element {at} in rank order"
            );
        }
    }
    for sums in [sums, parts] {
        agree_on(
            communicator,
            sums.iter().map(|sum| u64::from(sum.to_bits())),
        );
    }
}

/// 16-bit sums: near the plain one, the same bits everywhere, rounded once where memory is read.
pub(crate) fn half_sums(
    communicator: &mut dyn Communicator,
    backend: &mut impl Memory,
    len: usize,
) {
    let (rank, world) = (communicator.rank(), communicator.world());
    let value = |rank, at| bf16::from_f32(real_value(rank, at));
    let region = communicator.allocate_bf16(len).unwrap();
    let values: Vec<bf16> = (0..len).map(|at| value(rank, at)).collect();
    write(communicator, backend, &region, &values);
    communicator
        .all_reduce(&Span {
            region: region.id(),
            range: 0..len,
        })
        .unwrap();
    let sums = read(backend, &region);
    for (at, sum) in sums.iter().enumerate() {
        let values = (0..world).map(|rank| value(rank, at).to_f32());
        if communicator.algorithm() == Algorithm::Direct {
            let exact = values.clone().reduce(|left, right| left + right).unwrap();
            assert_eq!(*sum, bf16::from_f32(exact), "element {at} rounded once");
        }
        let size: f32 = values.clone().map(f32::abs).sum();
        let difference = (sum.to_f32() - values.sum::<f32>()).abs();
        // Half a unit in the last of 8 places, once per addition at most.
        assert!(
            difference <= world as f32 * size / 256.0,
            "element {at}: off by {difference}"
        );
    }
    agree_on(
        communicator,
        sums.iter().map(|sum| u64::from(sum.to_bits())),
    );
}

/// Sums of floats in fixed point: the bits of rounding, adding integers and turning back, on any span,
/// whole or this rank's piece. Only ranks that see each other's memory can; says whether these do.
pub(crate) fn fixed_point_sums(communicator: &mut dyn Communicator, len: usize) -> bool {
    let (rank, world) = (communicator.rank(), communicator.world());
    let region = communicator.allocate_f32(len + 2 * MARGIN).unwrap();
    let Some(exponents) = communicator.sum_in_fixed_point(&region).unwrap() else {
        return false;
    };
    let exponent = |at: usize| 20 + (at / BLOCK * 3 % 4) as i32;
    // SAFETY: no collective runs, and no other reference to the table is alive.
    let table = unsafe { exponents.slice_mut(0..exponents.len()) };
    for (block, cell) in table.iter_mut().enumerate() {
        *cell = exponent(block * BLOCK).into();
    }
    let span = Span {
        region: region.id(),
        range: MARGIN..MARGIN + len,
    };
    let mut cpu = Cpu::new();
    let values: Vec<f32> = (0..region.len()).map(|at| real_value(rank, at)).collect();
    let mut sum = |at: usize| {
        let (mut sum, mut value, exponent) = ([0], [0.0], exponent(at));
        for rank in 0..world {
            let values = [real_value(rank, at)];
            cpu.quantize(&values, exponent, &mut sum, Accumulate::Add, &mut [0]);
        }
        cpu.dequantize(&sum, exponent, &mut value);
        value[0].to_bits()
    };
    for is_whole in [true, false] {
        write(communicator, &mut Cpu::new(), &region, &values);
        let own = match is_whole {
            true => communicator.all_reduce(&span).map(|()| 0..len),
            false => communicator
                .reduce_scatter(&span)
                .map(|()| partition(len, world, rank)),
        };
        let sums = read(&mut Cpu::new(), &region);
        for at in own.unwrap() {
            let at = MARGIN + at;
            assert_eq!(sums[at].to_bits(), sum(at), "element {at} of {len}");
        }
        for at in (0..MARGIN).chain(MARGIN + len..sums.len()) {
            assert_eq!(sums[at], values[at], "written outside the span");
        }
    }
    true
}

/// Asserts that every rank has the same bits.
fn agree_on(communicator: &mut dyn Communicator, bits: impl Iterator<Item = u64>) {
    let hash = bits.fold(0xcbf2_9ce4_8422_2325_u64, |hash, bits| {
        (hash ^ bits).wrapping_mul(0x0100_0000_01b3)
    });
    let hashes = gather(communicator, hash).unwrap();
    assert!(
        hashes.iter().all(|&other| other == hash),
        "ranks differ: {hashes:?}"
    );
}

/// `value` of every rank, in order.
pub(crate) fn gather(
    communicator: &mut dyn Communicator,
    value: u64,
) -> Result<Vec<u64>, CommError> {
    let all = ringstep::comm::gather(communicator, &[value as i64])?;
    Ok(all.into_iter().map(|value| value as u64).collect())
}

/// Lengths that matter: none, one, fewer than ranks, not a multiple of anything, several chunks.
pub(crate) fn lengths(world: usize) -> Vec<usize> {
    vec![0, 1, world - 1, world, 2 * world + 1, 700]
}

//! The two products that convolution is made of, on tiles that stay in registers.
//!
//! Both read the image where it lies. A patch of an image whose channels are last is, for each row
//! of the kernel, one run of `kernel_width * channels` neighbours; so a patch matrix never has to
//! be written out, it is a list of places where rows of it start.

use crate::backend::cpu::InstructionSet;
#[cfg(target_arch = "x86_64")]
use crate::backend::cpu::matmul::vector::{Avx2, Avx512};
use crate::backend::cpu::matmul::vector::{Portable, Vector};

/// Most rows of a tile.
pub(super) const MOST_ROWS: usize = 14;

/// `out[i][j] += sum over runs r, elements k of a[starts[i] + r * run_pitch + k] * panel[(r, k)][j]`
///
/// The sum runs over `r`, then `k`, in order, whatever the tile, from the value it is added to.
pub(super) struct Gathered<'a> {
    /// What the rows are read from.
    pub(super) a: &'a [f32],
    /// Where each row of the tile starts in `a`; entries from `rows` on are ignored.
    pub(super) starts: [usize; MOST_ROWS],
    /// Rows of the tile.
    pub(super) rows: usize,
    /// Runs of neighbours in a row.
    pub(super) runs: usize,
    /// From the start of one run to the next.
    pub(super) run_pitch: usize,
    /// Elements of a run.
    pub(super) run: usize,
    /// `[runs * run, vectors]` whole registers, zero where there is no column.
    pub(super) panel: &'a [f32],
    /// What the sums start from, a whole register for each vector; `None`: from `out`.
    pub(super) bias: Option<&'a [f32]>,
    /// Columns of the tile: at most the panel's, and more than one register less.
    pub(super) columns: usize,
    /// From one row of `out` to the next.
    pub(super) pitch: usize,
}

/// `out[i][j] += sum over images g, lines r, steps s of
/// a[offsets[i] + g * image + r * line + s * step] * b[(g, r, s)][j]`
///
/// The sum is made apart, in that order, and added last.
pub(super) struct Outer<'a> {
    /// What the left factor is read from.
    pub(super) a: &'a [f32],
    /// Where each row of the tile starts in `a`; entries from `rows` on are ignored.
    pub(super) offsets: [usize; MOST_ROWS],
    /// Rows of the tile.
    pub(super) rows: usize,
    /// Images.
    pub(super) images: usize,
    /// From one image to the next, added to the offsets.
    pub(super) image: usize,
    /// Image rows.
    pub(super) lines: usize,
    /// From one image row to the next, added to the offsets.
    pub(super) line: usize,
    /// Places in an image row.
    pub(super) steps: usize,
    /// From one place of an image row to the next.
    pub(super) step: usize,
    /// `[images * lines * steps, pitch]`, from the tile's first column on.
    pub(super) b: &'a [f32],
    /// Columns of the tile: at most its registers', and more than one register less.
    pub(super) columns: usize,
    /// From one row of `b`, and of `out`, to the next.
    pub(super) pitch: usize,
}

type GatheredTile = unsafe fn(&Gathered<'_>, *mut f32);
type OuterTile = unsafe fn(&Outer<'_>, *mut f32);

/// The tiles of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Numbers in a register.
    pub(super) lanes: usize,
    /// Rows of a tile that is 1, 2, .. registers wide.
    pub(super) rows: &'static [usize],
    gathered: &'static [GatheredTile],
    outer: &'static [OuterTile],
}

macro_rules! tiles {
    ($name:ident, $set:ty, $($feature:literal)?, [$(($rows:literal, $vectors:literal)),*]) => {
        pub(super) static $name: Tiles = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn gathered<const M: usize, const N: usize>(of: &Gathered<'_>, out: *mut f32) {
                // SAFETY: the caller's promises are the same.
                unsafe { gathered_tile::<$set, M, N>(of, out) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn outer<const M: usize, const N: usize>(of: &Outer<'_>, out: *mut f32) {
                // SAFETY: the caller's promises are the same.
                unsafe { outer_tile::<$set, M, N>(of, out) }
            }
            Tiles {
                lanes: <$set as Vector>::LANES,
                rows: &[$($rows),*],
                gathered: &[$(gathered::<$rows, $vectors>),*],
                outer: &[$(outer::<$rows, $vectors>),*],
            }
        };
    };
}

tiles!(PORTABLE, Portable, , [(8, 1), (4, 2)]);
#[cfg(target_arch = "x86_64")]
tiles!(AVX2, Avx2, "avx2,fma", [(12, 1), (6, 2)]);
#[cfg(target_arch = "x86_64")]
tiles!(
    AVX512,
    Avx512,
    "avx512f",
    [(14, 1), (12, 2), (8, 3), (6, 4)]
);

impl Tiles {
    /// Those of `instructions`, which the machine must have.
    pub(super) fn of(instructions: InstructionSet) -> Self {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => AVX512,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => AVX2,
            _ => PORTABLE,
        }
    }

    /// Registers that `columns` take.
    pub(super) fn vectors(&self, columns: usize) -> usize {
        columns.div_ceil(self.lanes)
    }

    /// Panels of nearly equal width that cover `columns`, as `(first register, registers)`.
    pub(super) fn panels(&self, columns: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let vectors = self.vectors(columns);
        let count = vectors.div_ceil(self.rows.len());
        let (share, wider) = (vectors / count, vectors % count);
        (0..count).map(move |i| (i * share + i.min(wider), share + usize::from(i < wider)))
    }

    /// Adds a tile of `vectors` registers a row to `out`.
    pub(super) fn gathered(&self, vectors: usize, of: &Gathered<'_>, out: &mut [f32]) {
        self.check(vectors, of.rows, of.columns, of.pitch, out.len());
        assert!(of.runs > 0, "a sum of nothing");
        let last = (of.runs - 1) * of.run_pitch + of.run;
        let farthest = of.starts[..of.rows]
            .iter()
            .max()
            .map_or(0, |start| start + last);
        assert!(farthest <= of.a.len(), "a row outside its image");
        assert!(of.panel.len() >= of.runs * of.run * vectors * self.lanes);
        assert!(
            of.bias
                .is_none_or(|bias| bias.len() >= vectors * self.lanes)
        );
        // SAFETY: a `Cpu` has only instructions that the machine has; every read and write is inside
        // its slice by the assertions.
        unsafe { self.gathered[vectors - 1](of, out.as_mut_ptr()) }
    }

    /// Adds a tile of `vectors` registers a row to `out`.
    pub(super) fn outer(&self, vectors: usize, of: &Outer<'_>, out: &mut [f32]) {
        self.check(vectors, of.rows, of.columns, of.pitch, out.len());
        assert!(of.images * of.lines * of.steps > 0, "a sum of nothing");
        let last = (of.images - 1) * of.image + (of.lines - 1) * of.line + (of.steps - 1) * of.step;
        let farthest = of.offsets[..of.rows]
            .iter()
            .max()
            .map_or(0, |offset| offset + last);
        assert!(farthest < of.a.len(), "a row outside its image");
        let places = of.images * of.lines * of.steps;
        assert!(of.b.len() >= (places - 1) * of.pitch + of.columns);
        // SAFETY: as above.
        unsafe { self.outer[vectors - 1](of, out.as_mut_ptr()) }
    }

    fn check(&self, vectors: usize, rows: usize, columns: usize, pitch: usize, out: usize) {
        let most = self.rows[vectors - 1];
        assert!((1..=most).contains(&rows), "a tile has 1 to {most} rows");
        assert!(columns <= vectors * self.lanes && columns > (vectors - 1) * self.lanes);
        assert!(columns <= pitch && out >= (rows - 1) * pitch + columns);
    }
}

/// # Safety
/// The CPU has the instruction set of `V`; all of `of` lies in its slices, which
/// [`Tiles::gathered`] checks.
#[inline(always)]
unsafe fn gathered_tile<V: Vector, const M: usize, const N: usize>(
    of: &Gathered<'_>,
    out: *mut f32,
) {
    // SAFETY: the caller's promise. Rows that are not there are computed as the first one and not
    // written, so that every row is computed by the same instructions.
    unsafe {
        let present = |i| if i < of.rows { i } else { 0 };
        let last = V::mask(of.columns - (N - 1) * V::LANES);
        let a = of.a.as_ptr();
        let mut sums: [[V; N]; M] = match of.bias {
            Some(bias) => {
                let bias = bias.as_ptr();
                [std::array::from_fn(|j| V::load(bias.add(j * V::LANES))); M]
            }
            None => std::array::from_fn(|i| load_row::<V, N>(out.add(present(i) * of.pitch), last)),
        };
        let mut panel = of.panel.as_ptr();
        for run in 0..of.runs {
            let rows: [*const f32; M] =
                std::array::from_fn(|i| a.add(of.starts[present(i)] + run * of.run_pitch));
            for k in 0..of.run {
                let right: [V; N] = std::array::from_fn(|j| V::load(panel.add(j * V::LANES)));
                for (row, sums) in rows.iter().zip(&mut sums) {
                    let left = V::splat(*row.add(k));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = sum.add_product(left, right);
                    }
                }
                panel = panel.add(N * V::LANES);
            }
        }
        for (i, &sums) in sums.iter().enumerate() {
            if i < of.rows {
                store_row(sums, out.add(i * of.pitch), last);
            }
        }
    }
}

/// # Safety
/// The CPU has the instruction set of `V`; all of `of` lies in its slices, which
/// [`Tiles::outer`] checks.
#[inline(always)]
unsafe fn outer_tile<V: Vector, const M: usize, const N: usize>(of: &Outer<'_>, out: *mut f32) {
    // SAFETY: the caller's promise; as above for rows that are not there.
    unsafe {
        let present = |i| if i < of.rows { i } else { 0 };
        let last = V::mask(of.columns - (N - 1) * V::LANES);
        let a = of.a.as_ptr();
        let offsets: [*const f32; M] = std::array::from_fn(|i| a.add(of.offsets[present(i)]));
        let mut sums = [[V::zero(); N]; M];
        let mut b = of.b.as_ptr();
        for line in 0..of.images * of.lines {
            let mut at = line / of.lines * of.image + line % of.lines * of.line;
            for _ in 0..of.steps {
                let right: [V; N] = load_row(b, last);
                for (offset, sums) in offsets.iter().zip(&mut sums) {
                    let left = V::splat(*offset.add(at));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = sum.add_product(left, right);
                    }
                }
                at += of.step;
                b = b.add(of.pitch);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            if i < of.rows {
                let to = out.add(i * of.pitch);
                let before: [V; N] = load_row(to, last);
                let after: [V; N] = std::array::from_fn(|j| before[j].add(sums[j]));
                store_row(after, to, last);
            }
        }
    }
}

/// `N` registers, of the last one only the lanes in `mask`.
///
/// # Safety
/// The CPU has the instruction set of `V`, and so many numbers can be read.
#[inline(always)]
unsafe fn load_row<V: Vector, const N: usize>(from: *const f32, mask: V::Mask) -> [V; N] {
    // SAFETY: the caller's promise.
    unsafe {
        std::array::from_fn(|j| {
            let from = from.add(j * V::LANES);
            if j + 1 < N {
                V::load(from)
            } else {
                V::load_masked(from, mask)
            }
        })
    }
}

/// Writes `N` registers, of the last one only the lanes in `mask`.
///
/// # Safety
/// The CPU has the instruction set of `V`, and so many numbers can be written.
#[inline(always)]
unsafe fn store_row<V: Vector, const N: usize>(row: [V; N], to: *mut f32, mask: V::Mask) {
    // SAFETY: the caller's promise.
    unsafe {
        for (j, vector) in row[..N - 1].iter().enumerate() {
            vector.store(to.add(j * V::LANES));
        }
        row[N - 1].store_masked(to.add((N - 1) * V::LANES), mask);
    }
}

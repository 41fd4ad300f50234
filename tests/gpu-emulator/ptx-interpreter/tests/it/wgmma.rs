//! Products of a warpgroup against plain loops, and what may not be done while they run.

use crate::kernel::run_with;
use ptx_interpreter::numeric::{bf16_to_f32, f32_to_bf16};
use ptx_interpreter::{Error, ErrorKind, Options};

const ROWS: usize = 64;
const COLUMNS: usize = 8;
const TERMS: usize = 16;

/// Copies 640 words of the input to shared memory `s`, and makes the descriptors of two matrices there,
/// without swizzling: %rd10, whose blocks of 8 rows are 128 bytes apart and its blocks of 8 terms 1024,
/// and %rd11 behind it, whose blocks of 8 terms are 128 bytes apart.
const STAGE: &str = "
    .shared .align 128 .b8 s[2560];
    mov.u32 %r20, %r1;
COPY:
    mul.wide.u32 %rd12, %r20, 4; add.s64 %rd13, %rd1, %rd12; ld.global.u32 %r22, [%rd13];
    shl.b32 %r21, %r20, 2; mov.u32 %r23, s; add.u32 %r23, %r23, %r21; st.shared.u32 [%r23], %r22;
    add.u32 %r20, %r20, 128; setp.lt.u32 %p7, %r20, 640; @%p7 bra COPY;
    bar.sync 0;
    mov.u32 %r24, s; shr.u32 %r25, %r24, 4; cvt.u64.u32 %rd10, %r25;
    add.u64 %rd11, %rd10, 128;
    or.b64 %rd10, %rd10, 0x800400000; or.b64 %rd11, %rd11, 0x800080000;
    mov.f32 %f1, 0f3F800000; mov.f32 %f2, %f1; mov.f32 %f3, %f1; mov.f32 %f4, %f1;";

const FENCE: &str = "wgmma.fence.sync.aligned;";
const MULTIPLY: &str =
    "setp.eq.u32 %p1, 0, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 \
                        {%f1, %f2, %f3, %f4}, %rd10, %rd11, %p1, 1, 1, 0, 0;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";
const STORE: &str = "shl.b32 %r30, %r1, 4; cvt.u64.u32 %rd14, %r30; add.s64 %rd15, %rd2, %rd14; \
                     st.global.v4.b32 [%rd15], {%f1, %f2, %f3, %f4};";

fn value(index: usize) -> f32 {
    ((index * 37 % 23) as f32 - 11.0) / 8.0
}

fn a(row: usize, term: usize) -> f32 {
    value(row * TERMS + term)
}

fn b(column: usize, term: usize) -> f32 {
    value(5000 + column * TERMS + term)
}

/// Both matrices as `STAGE` wants them.
fn input() -> Vec<u32> {
    let mut halves = [0u16; 1280];
    let mut put = |byte: usize, x: f32| halves[byte / 2] = f32_to_bf16(x);
    for term in 0..TERMS {
        for row in 0..ROWS {
            let block = term / 8 * 1024 + row / 8 * 128;
            put(block + row % 8 * 16 + term % 8 * 2, a(row, term));
        }
        for column in 0..COLUMNS {
            let block = 2048 + term / 8 * 128;
            put(block + column * 16 + term % 8 * 2, b(column, term));
        }
    }
    let word = |pair: &[u16]| u32::from(pair[0]) | u32::from(pair[1]) << 16;
    halves.chunks(2).map(word).collect()
}

fn run(steps: &[&str]) -> Result<Vec<u32>, Error> {
    let body = [&[STAGE], steps].concat().join("\n");
    run_with("", &body, 128, &input(), &Options::default(), 0)
}

/// What is said of steps that are wrong.
fn fault(steps: &[&str]) -> String {
    let error = run(steps).expect_err("steps are wrong");
    assert_eq!(error.kind, ErrorKind::Race, "{error}");
    error.message
}

#[test]
fn sums_are_those_of_loops() {
    assert_eq!(bf16_to_f32(f32_to_bf16(value(5))), value(5));
    let out = run(&[FENCE, MULTIPLY, COMMIT, WAIT, STORE]).expect("steps are right");
    for (index, bits) in out.iter().enumerate() {
        let (thread, i) = (index / 4, index % 4);
        let row = thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8;
        let column = thread % 4 * 2 + i % 2;
        let products = (0..TERMS).map(|term| a(row, term) * b(column, term));
        let want = 1.0 + products.sum::<f32>();
        assert_eq!(f32::from_bits(*bits), want, "row {row} column {column}");
    }
}

#[test]
fn products_add_up_in_a_group_and_over_groups() {
    let two = run(&[FENCE, MULTIPLY, MULTIPLY, COMMIT, WAIT, STORE]).expect("one group");
    let groups = [FENCE, MULTIPLY, COMMIT, MULTIPLY, COMMIT, WAIT, STORE];
    assert_eq!(two, run(&groups).expect("two groups"));
    let sum = |x: f32| 2.0 * (x - 1.0) + 1.0;
    let one = run(&[FENCE, MULTIPLY, COMMIT, WAIT, STORE]).expect("one product");
    let bits = |x: &u32| sum(f32::from_bits(*x)).to_bits();
    assert_eq!(two, one.iter().map(bits).collect::<Vec<_>>());
}

#[test]
fn sums_need_a_fence_behind_what_touched_them() {
    let missing = "without wgmma.fence";
    assert!(fault(&[MULTIPLY, COMMIT, WAIT, STORE]).contains(missing));
    let touch = "add.f32 %f2, %f2, %f1;";
    let again = [FENCE, MULTIPLY, COMMIT, WAIT, touch, MULTIPLY, COMMIT, WAIT];
    assert!(fault(&again).contains(missing));
    // What touches other registers needs none.
    let other = "add.f32 %f20, %f21, 0f3F800000;";
    let right = [FENCE, MULTIPLY, COMMIT, WAIT, other, MULTIPLY, COMMIT, WAIT];
    run(&right).expect("steps are right");
}

#[test]
fn sums_are_not_touched_while_products_run() {
    let touched = "a sum of wgmma is touched";
    // Neither waited for nor in a group that could be, or not all of them waited for.
    assert!(fault(&[FENCE, MULTIPLY, COMMIT, STORE]).contains(touched));
    assert!(fault(&[FENCE, MULTIPLY, WAIT, STORE]).contains(touched));
    let weak = "wgmma.wait_group.sync.aligned 1;";
    let groups = [FENCE, MULTIPLY, COMMIT, MULTIPLY, COMMIT, weak, STORE];
    assert!(fault(&groups).contains(touched));
    let write = "mov.f32 %f3, 0f00000000;";
    assert!(fault(&[FENCE, MULTIPLY, COMMIT, write, WAIT]).contains(touched));
}

#[test]
fn operands_are_not_changed_while_products_run() {
    // A barrier lets the last thread be the only one that is wrong.
    let change = "bar.sync 0; setp.eq.u32 %p2, %r1, 127; mov.u32 %r40, s; mov.u32 %r41, 0x4040; \
                  @%p2 st.shared.u16 [%r40+2050], %r41; bar.sync 0;";
    let message = fault(&[FENCE, MULTIPLY, COMMIT, change, WAIT, STORE]);
    assert!(message.contains("has changed before"), "{message}");
    run(&[FENCE, MULTIPLY, COMMIT, WAIT, change, STORE]).expect("changed afterwards");
}

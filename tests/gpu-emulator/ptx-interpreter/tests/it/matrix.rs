//! ldmatrix, stmatrix, mma and wmma against plain loops.

use crate::kernel::{run, run_error};
use ptx_interpreter::numeric::{bf16_to_f32, f32_to_bf16, f32_to_f16};
use ptx_interpreter::ErrorKind;

fn value(index: usize) -> f32 {
    ((index * 37 % 23) as f32 - 11.0) / 8.0
}

/// 16-bit values packed two to a word, as they lie in memory.
fn pack(values: impl Iterator<Item = u16>) -> Vec<u32> {
    let values: Vec<u16> = values.collect();
    values
        .chunks(2)
        .map(|p| u32::from(p[0]) | u32::from(p[1]) << 16)
        .collect()
}

/// Copies the first 256 words of the input to shared memory `s`.
const STAGE: &str = "
    .shared .align 16 .b8 s[1024];
    mov.u32 %r20, 0;
COPY:
    mad.lo.u32 %r21, %r20, 32, %r1; shl.b32 %r21, %r21, 2; cvt.u64.u32 %rd10, %r21;
    add.s64 %rd11, %rd1, %rd10; ld.global.u32 %r22, [%rd11]; st.shared.u32 [%r21], %r22;
    add.u32 %r20, %r20, 1; setp.lt.u32 %p7, %r20, 8; @%p7 bra COPY;
    bar.warp.sync -1;";

fn store4(registers: [&str; 4]) -> String {
    let list = registers.join(", ");
    format!("shl.b32 %r30, %r1, 4; cvt.u64.u32 %rd12, %r30; add.s64 %rd13, %rd2, %rd12; st.global.v4.b32 [%rd13], {{{list}}};")
}

#[test]
fn ldmatrix_distributes_rows() {
    let input = pack((0..512).map(|i| i as u16));
    let load = |trans: &str| {
        let body = format!(
            "{STAGE} shl.b32 %r23, %r1, 4; \
             ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r23]; {}",
            store4(["%r10", "%r11", "%r12", "%r13"])
        );
        run(&body, 32, &input)
    };
    let out = load("");
    // Lane 5 holds row 1, columns 2 and 3 of each 8x8 matrix (rows of 8 elements).
    let element = |k: u32| k | (k + 1) << 16;
    assert_eq!(
        out[20..24],
        [element(10), element(74), element(138), element(202)]
    );
    // Transposed: rows 2 and 3, column 1.
    let out = load(".trans");
    assert_eq!(out[20], 17 | 25 << 16);
}

#[test]
fn stmatrix_is_the_inverse() {
    let input = pack((0..512).map(|i| i as u16));
    let body = format!(
        "{STAGE} shl.b32 %r23, %r1, 4; \
         ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r23]; \
         bar.warp.sync -1; bar.sync 0; \
         stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r23], {{%r10, %r11, %r12, %r13}}; \
         bar.sync 0; shl.b32 %r24, %r1, 2; ld.shared.u32 %r10, [%r24]; st.global.u32 [%rd3], %r10;"
    );
    assert_eq!(run(&body, 32, &input)[..32], input[..32]);
}

#[test]
fn misaligned_rows() {
    let body = ".shared .align 16 .b8 s[1024]; mad.lo.u32 %r23, %r1, 24, 0; \
                ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r10}, [%r23];";
    assert_eq!(run_error(body, 32).kind, ErrorKind::Misaligned);
}

/// Runs one mma with fragments laid out as in the manual; A is 16 x k, B is k x 8.
fn check_mma(name: &str, k: usize, half: Option<fn(f32) -> u16>) {
    let a = |row: usize, column: usize| value(row * k + column);
    let b = |row: usize, column: usize| value(1000 + row * 8 + column);
    // Per lane: A registers, then B registers, padded to 8 words.
    let mut input = vec![0u32; 32 * 8];
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        let words = &mut input[lane * 8..lane * 8 + 8];
        match half {
            Some(encode) => {
                let pair = |x: f32, y: f32| u32::from(encode(x)) | u32::from(encode(y)) << 16;
                for r in 0..k / 4 {
                    let (row, column) = (g + 8 * (r & 1), 2 * t + 8 * (r / 2));
                    words[r] = pair(a(row, column), a(row, column + 1));
                }
                for r in 0..k / 8 {
                    let row = 2 * t + 8 * r;
                    words[4 + r] = pair(b(row, g), b(row + 1, g));
                }
            }
            None => {
                for r in 0..k / 2 {
                    words[r] = a(g + 8 * (r & 1), t + 4 * (r / 2)).to_bits();
                }
                for r in 0..k / 4 {
                    words[4 + r] = b(t + 4 * r, g).to_bits();
                }
            }
        }
    }
    let list = |first: usize, count: usize| {
        (first..first + count)
            .map(|r| format!("%r{r}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (na, nb) = if half.is_some() {
        (k / 4, k / 8)
    } else {
        (k / 2, k / 4)
    };
    let body = format!(
        "shl.b32 %r40, %r1, 5; cvt.u64.u32 %rd14, %r40; add.s64 %rd15, %rd1, %rd14; \
         ld.global.v4.u32 {{%r4, %r5, %r6, %r7}}, [%rd15]; ld.global.v4.u32 {{%r8, %r9, %r50, %r51}}, [%rd15+16]; \
         mma.sync.aligned.{name} {{%f1, %f2, %f3, %f4}}, {{{}}}, {{{}}}, {{0f3F800000, 0f3F800000, 0f3F800000, 0f3F800000}}; {}",
        list(4, na),
        list(8, nb),
        store4(["%f1", "%f2", "%f3", "%f4"])
    );
    let out = run(&body, 32, &input);
    for lane in 0..32 {
        for i in 0..4 {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            let want: f32 = 1.0 + (0..k).map(|q| a(row, q) * b(q, column)).sum::<f32>();
            assert_eq!(
                f32::from_bits(out[lane * 4 + i]),
                want,
                "{name} row {row} column {column}"
            );
        }
    }
}

#[test]
fn mma_shapes_and_types() {
    assert_eq!(bf16_to_f32(f32_to_bf16(value(5))), value(5));
    check_mma("m16n8k16.row.col.f32.bf16.bf16.f32", 16, Some(f32_to_bf16));
    check_mma("m16n8k16.row.col.f32.f16.f16.f32", 16, Some(f32_to_f16));
    check_mma("m16n8k8.row.col.f32.bf16.bf16.f32", 8, Some(f32_to_bf16));
    check_mma("m16n8k8.row.col.f32.tf32.tf32.f32", 8, None);
}

#[test]
fn unknown_shapes_are_errors() {
    let body = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd1, %fd2}, {%fd3}, {%fd4}, {%fd1, %fd2};";
    assert_eq!(run_error(body, 32).kind, ErrorKind::Unsupported);
}

#[test]
fn wmma_multiplies_tiles() {
    // A row major at word 0, B column major at word 128, both 16 x 16 bf16.
    let input = pack((0..512).map(|i| f32_to_bf16(value(i))));
    let eight = |first: usize| {
        (first..first + 8)
            .map(|r| format!("%f{r}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let body = format!(
        "add.s64 %rd14, %rd1, 512;
         wmma.load.a.sync.aligned.row.m16n16k16.global.bf16 {{%r4, %r5, %r6, %r7}}, [%rd1], 16;
         wmma.load.b.sync.aligned.col.m16n16k16.global.bf16 {{%r8, %r9, %r10, %r11}}, [%rd14], 16;
         mov.f32 %f1, 0f00000000;
         wmma.mma.sync.aligned.row.col.m16n16k16.f32.bf16.bf16.f32 {{{d}}}, {{%r4, %r5, %r6, %r7}}, {{%r8, %r9, %r10, %r11}},
             {{%f1, %f1, %f1, %f1, %f1, %f1, %f1, %f1}};
         add.s64 %rd15, %rd2, 0;
         setp.lt.u32 %p1, %r1, 32;
         wmma.store.d.sync.aligned.row.m16n16k16.shared.f32 [s], {{{d}}}, 16;
         bar.sync 0;
         {}",
        "shl.b32 %r30, %r1, 4; ld.shared.v4.f32 {%f20, %f21, %f22, %f23}, [%r30]; cvt.u64.u32 %rd12, %r30; \
         add.s64 %rd13, %rd2, %rd12; st.global.v4.f32 [%rd13], {%f20, %f21, %f22, %f23};",
        d = eight(10)
    );
    let body = format!(".shared .align 16 .b8 s[1024]; {body}");
    let out = run(&body, 32, &input);
    for (index, bits) in out.iter().take(128).enumerate() {
        let (row, column) = (index / 16, index % 16);
        let want: f32 = (0..16)
            .map(|q| value(row * 16 + q) * value(256 + column * 16 + q))
            .sum();
        assert!(
            (f32::from_bits(*bits) - want).abs() < 1e-5,
            "row {row} column {column}"
        );
    }
}

//! Integer, bit, float, comparison and conversion instructions.

use crate::kernel::{float, run, scalar};
use ptx_interpreter::numeric::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

const MINUS_3: u32 = -3i32 as u32;

#[test]
fn integer_arithmetic() {
    assert_eq!(scalar("add.u32 %r10, %r2, %r3;", u32::MAX, 2), 1);
    assert_eq!(scalar("sub.s32 %r10, %r2, %r3;", 5, 7), -2i32 as u32);
    assert_eq!(
        scalar("add.sat.s32 %r10, %r2, %r3;", i32::MAX as u32, 2),
        i32::MAX as u32
    );
    assert_eq!(
        scalar("mul.lo.s32 %r10, %r2, %r3;", MINUS_3, 4),
        -12i32 as u32
    );
    assert_eq!(scalar("mul.hi.u32 %r10, %r2, %r3;", 1 << 31, 6), 3);
    assert_eq!(scalar("mul.hi.s32 %r10, %r2, %r3;", MINUS_3, 1), u32::MAX);
    assert_eq!(scalar("mad.lo.u32 %r10, %r2, %r3, 5;", 6, 7), 47);
    assert_eq!(scalar("div.s32 %r10, %r2, %r3;", -7i32 as u32, 2), MINUS_3);
    assert_eq!(scalar("rem.s32 %r10, %r2, %r3;", -7i32 as u32, 2), u32::MAX);
    assert_eq!(scalar("div.u32 %r10, %r2, %r3;", 7, 2), 3);
    assert_eq!(scalar("min.s32 %r10, %r2, %r3;", MINUS_3, 2), MINUS_3);
    assert_eq!(scalar("max.u32 %r10, %r2, %r3;", MINUS_3, 2), MINUS_3);
    assert_eq!(scalar("abs.s32 %r10, %r2;", MINUS_3, 0), 3);
    assert_eq!(scalar("neg.s32 %r10, %r2;", 3, 0), MINUS_3);
}

#[test]
fn wide_multiplication() {
    let body = "mul.wide.s32 %rd8, %r2, %r3; shr.u64 %rd9, %rd8, 32; cvt.u32.u64 %r10, %rd9;";
    assert_eq!(scalar(body, MINUS_3, 1), u32::MAX);
    let body = "mov.b64 %rd6, 100; mad.wide.u32 %rd8, %r2, %r3, %rd6; cvt.u32.u64 %r10, %rd8;";
    assert_eq!(scalar(body, 5, 6), 130);
}

#[test]
fn bits() {
    assert_eq!(scalar("and.b32 %r10, %r2, %r3;", 12, 10), 8);
    assert_eq!(scalar("or.b32 %r10, %r2, %r3;", 12, 10), 14);
    assert_eq!(scalar("xor.b32 %r10, %r2, %r3;", 12, 10), 6);
    assert_eq!(scalar("not.b32 %r10, %r2;", 0, 0), u32::MAX);
    assert_eq!(scalar("shl.b32 %r10, %r2, %r3;", 3, 4), 48);
    assert_eq!(scalar("shl.b32 %r10, %r2, %r3;", 3, 32), 0);
    assert_eq!(scalar("shr.u32 %r10, %r2, %r3;", 48, 4), 3);
    assert_eq!(scalar("shr.s32 %r10, %r2, %r3;", MINUS_3, 40), u32::MAX);
    assert_eq!(
        scalar(
            "shf.l.wrap.b32 %r10, %r2, %r3, 8;",
            0xaabb_ccdd,
            0x1122_3344
        ),
        0x2233_44aa
    );
    assert_eq!(
        scalar(
            "shf.r.clamp.b32 %r10, %r2, %r3, 8;",
            0xaabb_ccdd,
            0x1122_3344
        ),
        0x44aa_bbcc
    );
    assert_eq!(scalar("popc.b32 %r10, %r2;", 0xf0f, 0), 8);
    assert_eq!(scalar("clz.b32 %r10, %r2;", 1, 0), 31);
    assert_eq!(scalar("brev.b32 %r10, %r2;", 1, 0), 1 << 31);
    assert_eq!(scalar("bfind.u32 %r10, %r2;", 0x100, 0), 8);
    assert_eq!(scalar("bfind.u32 %r10, %r2;", 0, 0), u32::MAX);
    assert_eq!(scalar("bfe.u32 %r10, %r2, 4, 8;", 0xabcd, 0), 0xbc);
    assert_eq!(scalar("bfe.s32 %r10, %r2, 4, 8;", 0xabcd, 0), 0xffff_ffbc);
    assert_eq!(scalar("bfi.b32 %r10, %r2, %r3, 4, 8;", 0xff, 0), 0xff0);
    assert_eq!(
        scalar("lop3.b32 %r10, %r2, %r3, 255, 0x96;", 0xf0, 0x3c),
        0xf0 ^ 0x3c ^ 0xff
    );
}

#[test]
fn byte_permutation() {
    let prmt = |selector: u32, mode: &str| {
        let body = format!("prmt.b32{mode} %r10, %r2, %r3, {selector};");
        scalar(&body, 0x3322_1100, 0x7766_5544)
    };
    assert_eq!(prmt(0x0123, ""), 0x0011_2233);
    assert_eq!(prmt(0x7654, ""), 0x7766_5544);
    assert_eq!(
        scalar("prmt.b32 %r10, %r2, 0, 0x9; ", 0x8000, 0),
        0x0000_00ff
    );
    assert_eq!(prmt(1, ".f4e"), 0x4433_2211);
    assert_eq!(prmt(1, ".b4e"), 0x6677_0011);
    assert_eq!(prmt(2, ".rc8"), 0x2222_2222);
    assert_eq!(prmt(1, ".rc16"), 0x3322_3322);
    assert_eq!(prmt(1, ".ecl"), 0x3322_1111);
    assert_eq!(prmt(2, ".ecr"), 0x2222_1100);
}

#[test]
fn float_arithmetic() {
    assert_eq!(float("add.f32 %f10, %f1, %f2;", 1.5, 2.0), 3.5);
    assert_eq!(float("sub.f32 %f10, %f1, %f2;", 1.5, 2.0), -0.5);
    assert_eq!(float("mul.f32 %f10, %f1, %f2;", 1.5, 2.0), 3.0);
    assert_eq!(float("div.rn.f32 %f10, %f1, %f2;", 1.0, 3.0), 1.0 / 3.0);
    let fused = 0.1f32.mul_add(10.0, -1.0);
    assert_eq!(
        float("fma.rn.f32 %f10, %f1, %f2, 0fBF800000;", 0.1, 10.0),
        fused
    );
    assert_eq!(float("min.f32 %f10, %f1, %f2;", f32::NAN, 2.0), 2.0);
    assert!(float("max.NaN.f32 %f10, %f1, %f2;", f32::NAN, 2.0).is_nan());
    assert_eq!(float("neg.f32 %f10, %f1;", 2.0, 0.0), -2.0);
    assert_eq!(float("abs.f32 %f10, %f1;", -2.0, 0.0), 2.0);
    assert_eq!(float("copysign.f32 %f10, %f1, %f2;", -1.0, 3.0), -3.0);
    assert_eq!(float("add.sat.f32 %f10, %f1, %f2;", 0.75, 2.0), 1.0);
    assert_eq!(float("add.ftz.f32 %f10, %f1, %f2;", 1e-39, 0.0), 0.0);
    assert!(float("add.f32 %f10, %f1, %f2;", 1e-39, 0.0) > 0.0);
    let exact = 1.0f64 + 1e-10;
    assert!(f64::from(float("add.rp.f32 %f10, %f1, %f2;", 1.0, 1e-10)) > exact);
    assert_eq!(float("add.rz.f32 %f10, %f1, %f2;", 1.0, 1e-10), 1.0);
}

#[test]
fn math_functions() {
    let close = |got: f32, want: f64| {
        assert!(
            (f64::from(got) - want).abs() < 1e-6 * want.abs().max(1.0),
            "{got} {want}"
        )
    };
    close(float("ex2.approx.f32 %f10, %f1;", 1.5, 0.0), 1.5f64.exp2());
    close(float("lg2.approx.f32 %f10, %f1;", 10.0, 0.0), 10f64.log2());
    close(float("rcp.rn.f32 %f10, %f1;", 3.0, 0.0), 1.0 / 3.0);
    close(float("sqrt.rn.f32 %f10, %f1;", 2.0, 0.0), 2f64.sqrt());
    close(
        float("rsqrt.approx.f32 %f10, %f1;", 2.0, 0.0),
        1.0 / 2f64.sqrt(),
    );
    close(float("sin.approx.f32 %f10, %f1;", 1.0, 0.0), 1f64.sin());
    close(float("cos.approx.f32 %f10, %f1;", 1.0, 0.0), 1f64.cos());
    close(float("tanh.approx.f32 %f10, %f1;", 0.5, 0.0), 0.5f64.tanh());
}

#[test]
fn doubles() {
    let body = "cvt.f64.f32 %fd1, %f1; cvt.f64.f32 %fd2, %f2; fma.rn.f64 %fd3, %fd1, %fd2, %fd1; \
                div.rn.f64 %fd3, %fd3, %fd2; cvt.rn.f32.f64 %f10, %fd3;";
    assert_eq!(float(body, 3.0, 2.0), 4.5);
}

#[test]
fn half_precision() {
    let pack = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
    let x = pack(f32_to_f16(1.5), f32_to_f16(-2.0));
    let y = pack(f32_to_f16(0.25), f32_to_f16(8.0));
    let sum = scalar("add.f16x2 %r10, %r2, %r3;", x, y);
    assert_eq!(
        (f16_to_f32(sum as u16), f16_to_f32((sum >> 16) as u16)),
        (1.75, 6.0)
    );
    let fma = scalar("fma.rn.relu.f16x2 %r10, %r2, %r3, %r3;", x, y);
    assert_eq!(
        (f16_to_f32(fma as u16), f16_to_f32((fma >> 16) as u16)),
        (0.625, 0.0)
    );
    let x = pack(f32_to_bf16(3.0), f32_to_bf16(4.0));
    let product = scalar("mul.bf16x2 %r10, %r2, %r2;", x, 0);
    assert_eq!(
        (
            bf16_to_f32(product as u16),
            bf16_to_f32((product >> 16) as u16)
        ),
        (9.0, 16.0)
    );
    let body = "cvt.rn.bf16x2.f32 %r10, %f1, %f2; mov.b32 %f10, %r10;";
    let packed = float(body, 1.0, 2.0).to_bits();
    assert_eq!(packed, pack(f32_to_bf16(2.0), f32_to_bf16(1.0)));
}

#[test]
fn comparison_and_selection() {
    let select = |setp: &str| format!("{setp} selp.b32 %r10, 1, 0, %p1;");
    assert_eq!(scalar(&select("setp.lt.s32 %p1, %r2, %r3;"), MINUS_3, 2), 1);
    assert_eq!(scalar(&select("setp.lt.u32 %p1, %r2, %r3;"), MINUS_3, 2), 0);
    assert_eq!(scalar(&select("setp.hi.u32 %p1, %r2, %r3;"), MINUS_3, 2), 1);
    assert_eq!(
        scalar(
            &select("setp.eq.u32 %p2, %r2, %r3; setp.ne.and.u32 %p1, %r2, 9, %p2;"),
            4,
            4
        ),
        1
    );
    assert_eq!(scalar(&select("setp.eq.u32 %p2|%p1, %r2, %r3;"), 4, 5), 1);
    assert_eq!(scalar("slct.s32.s32 %r10, 7, 8, %r2;", MINUS_3, 0), 8);
    assert_eq!(scalar("set.gt.u32.s32 %r10, %r2, %r3;", 5, 4), u32::MAX);
    let nan = |op: &str| {
        let body =
            format!("setp.{op}.f32 %p1, %f1, %f2; selp.f32 %f10, 0f3F800000, 0f00000000, %p1;");
        float(&body, f32::NAN, 1.0)
    };
    assert_eq!(
        [
            nan("lt"),
            nan("ltu"),
            nan("ne"),
            nan("neu"),
            nan("nan"),
            nan("num")
        ],
        [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    );
    let body = "testp.infinite.f32 %p1, %f1; selp.f32 %f10, 0f3F800000, 0f00000000, %p1;";
    assert_eq!(float(body, f32::INFINITY, 0.0), 1.0);
}

#[test]
fn conversions() {
    let to_int = |op: &str, x: f32| {
        float(&format!("cvt.{op} %r10, %f1; mov.b32 %f10, %r10;"), x, 0.0).to_bits()
    };
    assert_eq!(to_int("rzi.s32.f32", -2.7), -2i32 as u32);
    assert_eq!(to_int("rni.s32.f32", 2.5), 2);
    assert_eq!(to_int("rmi.s32.f32", -2.1), -3i32 as u32);
    assert_eq!(to_int("rpi.s32.f32", 2.1), 3);
    assert_eq!(to_int("rzi.u32.f32", -5.0), 0);
    assert_eq!(to_int("rzi.s32.f32", f32::NAN), 0);
    assert_eq!(to_int("rzi.s32.f32", 1e20), i32::MAX as u32);
    assert_eq!(scalar("cvt.s32.s8 %r10, %r2;", 0x80, 0), 0xffff_ff80);
    assert_eq!(scalar("cvt.sat.u8.s32 %r10, %r2;", 300, 0), 255);
    assert_eq!(scalar("cvt.rn.f32.u32 %r10, %r2;", 3, 0), 3f32.to_bits());
    assert_eq!(
        scalar("cvt.rna.tf32.f32 %r10, %r2;", 0x3f80_1000, 0),
        0x3f80_2000
    );
    assert_eq!(
        scalar(
            "cvt.rn.f16.f32 %h1, %r2; cvt.u32.u16 %r10, %h1;",
            1.0f32.to_bits(),
            0
        ),
        0x3c00
    );
    assert_eq!(
        scalar(
            "cvt.rz.bf16.f32 %h1, %r2; cvt.u32.u16 %r10, %h1;",
            0x3f80_ffff,
            0
        ),
        0x3f80
    );
}

#[test]
fn vector_moves() {
    let body = "mov.b64 %rd6, {%r2, %r3}; mov.b64 {%r4, %r5}, %rd6; sub.u32 %r10, %r5, %r4;";
    assert_eq!(scalar(body, 3, 10), 7);
    let body = "mov.b32 {%h1, %h2}, %r2; mov.b32 %r10, {%h2, %h1};";
    assert_eq!(scalar(body, 0x1234_5678, 0), 0x5678_1234);
}

#[test]
fn special_registers() {
    let out = run("mov.u32 %r10, %laneid; mov.u32 %r11, %ntid.x; mad.lo.u32 %r10, %r11, 1000, %r10; st.global.u32 [%rd3], %r10;", 40, &[]);
    assert_eq!((out[0], out[39]), (40_000, 40_007));
    let out = run(
        "mov.u32 %r10, %lanemask_lt; st.global.u32 [%rd3], %r10;",
        32,
        &[],
    );
    assert_eq!((out[0], out[5], out[31]), (0, 31, 0x7fff_ffff));
}

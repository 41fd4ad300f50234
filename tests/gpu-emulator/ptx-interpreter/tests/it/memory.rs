//! Loads, stores, atomics, address spaces, and the checks.

use crate::kernel::{module_text, run, run_error, run_with, scalar};
use ptx_interpreter::{parse_module, AsyncTiming, Checks, ErrorKind, Options};

#[test]
fn vector_access() {
    let body = "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1]; add.u32 %r10, %r4, %r7; \
                st.global.v2.u32 [%rd2], {%r10, %r5};";
    assert_eq!(run(body, 1, &[1, 2, 3, 4])[..2], [5, 2]);
}

#[test]
fn small_types() {
    assert_eq!(scalar("ld.global.s8 %r10, [%rd1];", 0x80, 0), 0xffff_ff80);
    assert_eq!(
        scalar("ld.global.u16 %r10, [%rd1+2];", 0xabcd_0000, 0),
        0xabcd
    );
}

#[test]
fn generic_addresses() {
    let body = "
        .shared .align 4 .b8 s[128]; .local .align 4 .b8 l[8];
        mov.u64 %rd6, s; cvta.shared.u64 %rd7, %rd6;
        mul.wide.u32 %rd8, %r1, 4; add.s64 %rd7, %rd7, %rd8;
        st.u32 [%rd7], %r1;
        mov.u64 %rd9, l; cvta.local.u64 %rd10, %rd9;
        st.u32 [%rd10+4], %r1;
        ld.local.u32 %r4, [%rd9+4];
        ld.u32 %r5, [%rd7];
        isspacep.shared %p1, %rd7; selp.b32 %r6, 100, 0, %p1;
        add.u32 %r10, %r4, %r5; add.u32 %r10, %r10, %r6;
        st.global.u32 [%rd3], %r10;";
    assert_eq!(run(body, 32, &[])[..3], [100, 102, 104]);
}

#[test]
fn module_variables() {
    let before = ".const .align 4 .b8 table[8] = {1, 0, 0, 0, 2, 1, 0, 0};\n\
                  .global .align 4 .u32 counter = 5;";
    let body = "ld.const.u32 %r4, [table+4]; atom.global.add.u32 %r5, [counter], 1; \
                ld.global.u32 %r6, [counter]; add.u32 %r10, %r4, %r6; st.global.u32 [%rd3], %r10;";
    let out = run_with(before, body, 1, &[], &Options::default(), 0).unwrap();
    assert_eq!(out[0], 258 + 6);
}

#[test]
fn dynamic_shared_memory() {
    let before = ".extern .shared .align 16 .b8 dyn[];";
    let body = "
        .shared .align 4 .b8 fixed[20];
        mov.u32 %r4, dyn; mov.u32 %r5, fixed; sub.u32 %r10, %r4, %r5;
        st.shared.u32 [dyn+60], %r10; ld.shared.u32 %r10, [dyn+60];
        st.global.u32 [%rd3], %r10;";
    let out = run_with(before, body, 1, &[], &Options::default(), 64).unwrap();
    assert_eq!(out[0], 32);
    let error = run_with(before, body, 1, &[], &Options::default(), 60).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfBounds);
}

#[test]
fn atomics() {
    let atomic = |op: &str, initial: u32, operand: &str| {
        let body = format!("atom.global.{op} %r10, [%rd1], {operand}; ld.global.u32 %r11, [%rd1]; st.global.v2.u32 [%rd2], {{%r10, %r11}};");
        let out = run(&body, 1, &[initial]);
        (out[0], out[1])
    };
    assert_eq!(atomic("add.u32", 5, "3"), (5, 8));
    assert_eq!(atomic("min.s32", 5, "-3"), (5, -3i32 as u32));
    assert_eq!(atomic("max.u32", 5, "9"), (5, 9));
    assert_eq!(atomic("exch.b32", 5, "9"), (5, 9));
    assert_eq!(atomic("cas.b32", 5, "5, 6"), (5, 6));
    assert_eq!(atomic("cas.b32", 5, "4, 6"), (5, 5));
    assert_eq!(atomic("inc.u32", 5, "5"), (5, 0));
    assert_eq!(atomic("dec.u32", 0, "5"), (0, 5));
    assert_eq!(atomic("xor.b32", 5, "1"), (5, 4));
    let one_half = 0.5f32.to_bits();
    assert_eq!(
        atomic("add.f32", one_half, "0f3F800000").1,
        1.5f32.to_bits()
    );
}

#[test]
fn out_of_bounds_says_where() {
    let error = run_error("ld.global.u32 %r10, [%rd1+128];", 32);
    assert_eq!(error.kind, ErrorKind::OutOfBounds);
    assert!(
        error
            .message
            .contains("0 bytes past an allocation of 128 bytes"),
        "{error}"
    );
    assert_eq!((error.block, error.thread), (Some([0; 3]), Some([0, 0, 0])));
    assert_eq!(error.kernel.as_deref(), Some("k"));
    let error = run_error(
        ".shared .align 4 .b8 s[8]; mul.lo.u32 %r4, %r1, 4; st.shared.u32 [%r4], 0;",
        3,
    );
    assert_eq!(
        (error.kind, error.thread),
        (ErrorKind::OutOfBounds, Some([2, 0, 0]))
    );
}

#[test]
fn misaligned_access() {
    assert_eq!(
        run_error("ld.global.u32 %r10, [%rd1+2];", 1).kind,
        ErrorKind::Misaligned
    );
    let error = run_error("ld.global.v2.u32 {%r4, %r5}, [%rd1+4];", 4);
    assert_eq!(error.kind, ErrorKind::Misaligned);
}

const SHARED: &str = ".shared .align 16 .b8 s[256]; shl.b32 %r5, %r1, 2; xor.b32 %r6, %r5, 128;";

#[test]
fn race_between_warps() {
    // Every thread writes its own word and reads the other warp's without a barrier.
    let body = format!("{SHARED} st.shared.u32 [s], 1;");
    assert_eq!(run_error(&body, 64).kind, ErrorKind::Race);
    let body = format!("{SHARED} st.shared.u32 [%r5], 1; bar.sync 0; ld.shared.u32 %r7, [%r6]; st.shared.u32 [%r5], 2;");
    let error = run_error(&body, 64);
    assert_eq!(error.kind, ErrorKind::Race);
    let fixed = body.replace(
        "st.shared.u32 [%r5], 2;",
        "bar.sync 0; st.shared.u32 [%r5], 2;",
    );
    run(&fixed, 64, &[]);
}

#[test]
fn race_inside_a_warp_needs_syncwarp() {
    let exchange = |sync: &str| {
        format!("{SHARED} xor.b32 %r6, %r5, 4; st.shared.u32 [%r5], %r1; {sync} ld.shared.u32 %r10, [%r6];")
    };
    assert_eq!(run_error(&exchange(""), 32).kind, ErrorKind::Race);
    run(&exchange("bar.warp.sync -1;"), 32, &[]);
}

#[test]
fn broadcast_reads_of_one_warp_do_not_race_with_its_later_write() {
    let body = format!(
        "{SHARED} setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 1; bar.warp.sync -1; \
                        ld.shared.u32 %r4, [s]; bar.warp.sync -1; @%p1 st.shared.u32 [s], 2;"
    );
    run(&body, 32, &[]);
}

#[test]
fn unwritten_shared_memory() {
    let body = format!("{SHARED} ld.shared.f32 %f1, [s+4];");
    assert_eq!(run_error(&body, 1).kind, ErrorKind::UnwrittenShared);
    let unchecked = Options {
        checks: Checks {
            races: true,
            unwritten: false,
        },
        ..Options::default()
    };
    let body = format!("{SHARED} ld.shared.f32 %f1, [s+4]; st.global.f32 [%rd3], %f1;");
    let out = run_with("", &body, 1, &[], &unchecked, 0).unwrap();
    assert!(f32::from_bits(out[0]).is_nan());
}

fn with_timing(body: &str, async_timing: AsyncTiming) -> Result<Vec<u32>, ptx_interpreter::Error> {
    let options = Options {
        async_timing,
        ..Options::default()
    };
    run_with("", body, 1, &[11, 12, 13, 14, 15, 16, 17, 18], &options, 0)
}

#[test]
fn cp_async_lands_when_waited_for() {
    let copy = |wait: &str| {
        format!(
            ".shared .align 16 .b8 s[32];
             cp.async.cg.shared.global [s], [%rd1], 16; cp.async.commit_group;
             cp.async.ca.shared.global [s+16], [%rd1+16], 16, 8; cp.async.commit_group;
             {wait}
             ld.shared.u32 %r4, [s+4]; ld.shared.u32 %r5, [s+24];
             st.global.v2.u32 [%rd2], {{%r4, %r5}};"
        )
    };
    for timing in [AsyncTiming::Late, AsyncTiming::Early] {
        // The second copy reads 8 bytes and fills the rest with zeros.
        assert_eq!(
            with_timing(&copy("cp.async.wait_group 0;"), timing).unwrap()[..2],
            [12, 0]
        );
        assert_eq!(
            with_timing(&copy("cp.async.wait_all;"), timing).unwrap()[..2],
            [12, 0]
        );
    }
    // One group too few: only the late order shows it.
    let weak = copy("cp.async.wait_group 1;");
    let error = with_timing(&weak, AsyncTiming::Late).unwrap_err();
    assert_eq!(error.kind, ErrorKind::UnwrittenShared);
    assert!(with_timing(&weak, AsyncTiming::Early).is_ok());
}

#[test]
fn bulk_copy_with_mbarrier() {
    let body = "
        .shared .align 16 .b8 s[32]; .shared .align 8 .b8 bar[8];
        mbarrier.init.shared.b64 [bar], 1;
        mbarrier.arrive.expect_tx.shared.b64 %rd8, [bar], 32;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [%rd1], 32, [bar];
    WAIT:
        mbarrier.try_wait.parity.shared.b64 %p1, [bar], 0;
        @!%p1 bra WAIT;
        ld.shared.u32 %r4, [s+28];
        st.global.u32 [%rd2], %r4;";
    for timing in [AsyncTiming::Late, AsyncTiming::Early] {
        assert_eq!(with_timing(body, timing).unwrap()[0], 18);
    }
    let wrong = body.replace("[bar], 32;", "[bar], 48;");
    assert_eq!(
        with_timing(&wrong, AsyncTiming::Late).unwrap_err().kind,
        ErrorKind::Deadlock
    );
}

#[test]
fn mbarrier_misuse() {
    let body = ".shared .align 8 .b8 bar[8]; mbarrier.arrive.shared.b64 %rd8, [bar];";
    assert_eq!(run_error(body, 1).kind, ErrorKind::InvalidOperation);
    let body = ".shared .align 8 .b8 bar[8]; mbarrier.init.shared.b64 [bar], 2; mbarrier.arrive.shared.b64 %rd8, [bar], 3;";
    assert_eq!(run_error(body, 1).kind, ErrorKind::InvalidOperation);
}

#[test]
fn trap_and_unknown_instructions() {
    assert_eq!(run_error("trap;", 1).kind, ErrorKind::Trap);
    let error = run_error("frobnicate.b32 %r10, %r2;", 1);
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("frobnicate.b32 %r10, %r2"),
        "{error}"
    );
    assert!(error.ptx_line.is_some());
}

#[test]
fn endless_loops_end() {
    let options = Options {
        max_steps: 10_000,
        ..Options::default()
    };
    let error = run_with("", "L: bra L;", 1, &[], &options, 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::StepLimit);
}

#[test]
fn source_lines_are_reported() {
    let before = ".file 1 \"/some/where/kernel.cu\"";
    let body = ".loc 1 42 7\n trap;";
    let error = run_with(before, body, 1, &[], &Options::default(), 0).unwrap_err();
    assert_eq!(error.source, Some(("kernel.cu".to_string(), 42)));
    let text = module_text(before, body);
    let line = text.lines().position(|l| l.contains("trap;")).unwrap() as u32 + 1;
    assert_eq!(error.ptx_line, Some(line));
}

#[test]
fn bad_text_is_an_error_and_no_panic() {
    for text in [
        "garbage",
        ".version 8.0\n.visible .entry k(",
        ".visible .entry k() { .reg .b32 %r<2>; add.u32 %r1 }",
        ".visible .entry k() { bogus: .weird 3; }",
        ".visible .entry k() { @%p9 ret; }",
        ".visible .entry k() { add.u32 %, ?; }",
        ".global .align 4 .b8 x[2] = {1, 2, 3};",
        ".visible .entry k() { { ret;",
    ] {
        let parsed = parse_module(text).and_then(|module| module.kernel("k").map(|_| ()));
        assert_eq!(parsed.unwrap_err().kind, ErrorKind::Parse, "{text}");
    }
}

//! Warp-wide instructions, barriers, divergence and calls.

use crate::kernel::{run, run_error, run_with};
use ptx_interpreter::{ErrorKind, Options, Order};

const STORE: &str = "st.global.u32 [%rd3], %r10;";

fn warp(body: &str) -> Vec<u32> {
    let input: Vec<u32> = (100..132).collect();
    run(&format!("{body} {STORE}"), 32, &input)[..32].to_vec()
}

#[test]
fn shuffles() {
    assert_eq!(
        warp("shfl.sync.bfly.b32 %r10, %r2, 1, 31, -1;")[..4],
        [101, 100, 103, 102]
    );
    assert_eq!(warp("shfl.sync.idx.b32 %r10, %r2, 5, 31, -1;"), [105; 32]);
    let up = warp("shfl.sync.up.b32 %r10, %r2, 2, 0, -1;");
    assert_eq!((up[0], up[1], up[2], up[31]), (100, 101, 100, 129));
    let down = warp("shfl.sync.down.b32 %r10|%p1, %r2, 4, 31, -1; @!%p1 mov.u32 %r10, 7;");
    assert_eq!((down[0], down[27], down[28]), (104, 131, 7));
    // Segments of 8 lanes: c = (32 - 8) << 8 | 31.
    let segments = warp("shfl.sync.idx.b32 %r10, %r2, 1, 6175, -1;");
    assert_eq!((segments[0], segments[8], segments[31]), (101, 109, 125));
}

#[test]
fn votes_and_reductions() {
    let odd = "and.b32 %r4, %r1, 1; setp.eq.u32 %p1, %r4, 1;";
    assert_eq!(
        warp(&format!("{odd} vote.sync.ballot.b32 %r10, %p1, -1;")),
        [0xaaaa_aaaa; 32]
    );
    assert_eq!(
        warp(&format!("{odd} vote.sync.ballot.b32 %r10, !%p1, -1;")),
        [0x5555_5555; 32]
    );
    let any = format!("{odd} vote.sync.any.pred %p2, %p1, -1; selp.b32 %r10, 1, 0, %p2;");
    assert_eq!(warp(&any), [1; 32]);
    let all = format!("{odd} vote.sync.all.pred %p2, %p1, -1; selp.b32 %r10, 1, 0, %p2;");
    assert_eq!(warp(&all), [0; 32]);
    assert_eq!(warp("redux.sync.add.s32 %r10, %r1, -1;"), [496; 32]);
    assert_eq!(
        warp("sub.u32 %r4, %r1, 3; redux.sync.min.s32 %r10, %r4, -1;"),
        [-3i32 as u32; 32]
    );
    assert_eq!(warp("redux.sync.or.b32 %r10, %r1, -1;"), [31; 32]);
    assert_eq!(warp("activemask.b32 %r10;"), [u32::MAX; 32]);
    assert_eq!(warp("elect.sync %r10|%p1, -1;"), [0; 32]);
    let matched = warp("shr.u32 %r4, %r1, 4; match.any.sync.b32 %r10, %r4, -1;");
    assert_eq!((matched[0], matched[16]), (0xffff, 0xffff_0000));
    assert_eq!(warp("match.all.sync.b32 %r10|%p1, %r1, -1;"), [0; 32]);
}

#[test]
fn divergent_lanes_meet_again() {
    let body = "
        setp.lt.u32 %p1, %r1, 10;
        @%p1 bra LOW;
        mov.u32 %r10, 1;
        bra JOIN;
    LOW:
        mov.u32 %r10, 2;
    JOIN:
        redux.sync.add.u32 %r10, %r10, -1;";
    assert_eq!(warp(body), [42; 32]);
}

#[test]
fn a_subset_of_lanes_may_shuffle() {
    let body = "
        mov.u32 %r10, 0;
        setp.ge.u32 %p1, %r1, 8;
        @%p1 bra SKIP;
        shfl.sync.bfly.b32 %r10, %r2, 1, 31, 255;
    SKIP:";
    assert_eq!(warp(body)[..9], [101, 100, 103, 102, 105, 104, 107, 106, 0]);
}

#[test]
fn member_mask_mistakes_are_errors() {
    let error = run_error("shfl.sync.bfly.b32 %r10, %r2, 1, 31, 65535;", 32);
    assert_eq!(error.kind, ErrorKind::MemberMask);
    let error = run_error("shfl.sync.bfly.b32 %r10, %r2, 1, 31, -1;", 16);
    assert_eq!(error.kind, ErrorKind::MemberMask);
    let body = "setp.eq.u32 %p1, %r1, 3; @%p1 exit; vote.sync.ballot.b32 %r10, %p1, -1;";
    assert_eq!(run_error(body, 32).kind, ErrorKind::MemberMask);
}

#[test]
fn block_barriers() {
    let body = "
        .shared .align 4 .b8 s[256];
        mov.u32 %r4, s; shl.b32 %r5, %r1, 2; add.u32 %r5, %r4, %r5;
        st.shared.u32 [%r5], %r2;
        bar.sync 0;
        mov.u32 %r6, 63; sub.u32 %r6, %r6, %r1; shl.b32 %r6, %r6, 2; add.u32 %r6, %r4, %r6;
        ld.shared.u32 %r10, [%r6];";
    let input: Vec<u32> = (0..64).collect();
    let out = run(&format!("{body} {STORE}"), 64, &input);
    assert_eq!((out[0], out[63]), (63, 0));
}

#[test]
fn barrier_reduction() {
    let body = "setp.lt.u32 %p1, %r1, 40; bar.red.popc.u32 %r10, 0, %p1;";
    assert_eq!(run(&format!("{body} {STORE}"), 64, &[])[..64], [40; 64]);
}

#[test]
fn named_barriers_connect_two_warps() {
    // Warp 0 arrives, warp 1 waits and reads.
    let body = "
        .shared .align 4 .u32 s;
        setp.ge.u32 %p1, %r1, 32;
        @%p1 bra CONSUMER;
        setp.eq.u32 %p2, %r1, 0;
        @%p2 st.shared.u32 [s], 77;
        bar.arrive 1, 64;
        bra END;
    CONSUMER:
        bar.sync 1, 64;
        ld.shared.u32 %r10, [s];
        st.global.u32 [%rd3], %r10;
    END:";
    let out = run(body, 64, &[]);
    assert_eq!((out[32], out[63]), (77, 77));
}

#[test]
fn a_barrier_that_cannot_complete_is_a_deadlock() {
    let body = "bar.sync 1, 64;";
    let error = run_error(body, 32);
    assert_eq!(error.kind, ErrorKind::Deadlock);
    assert!(error.message.contains("bar.sync"), "{error}");
}

const FACTORIAL: &str = "
    .func (.param .b32 result) factorial(.param .b32 n) {
        .reg .pred %p<2>; .reg .b32 %r<8>;
        ld.param.u32 %r1, [n];
        mov.u32 %r4, 1;
        setp.le.u32 %p1, %r1, 1;
        @%p1 bra DONE;
        sub.u32 %r2, %r1, 1;
        { .param .b32 a; .param .b32 b;
          st.param.b32 [a+0], %r2;
          call.uni (b), factorial, (a);
          ld.param.b32 %r3, [b+0]; }
        mul.lo.u32 %r4, %r3, %r1;
    DONE:
        st.param.b32 [result+0], %r4;
        ret;
    }";

#[test]
fn recursive_calls_with_divergence() {
    let body = "
        { .param .b32 a; .param .b32 b;
          rem.u32 %r4, %r1, 6;
          st.param.b32 [a+0], %r4;
          call.uni (b), factorial, (a);
          ld.param.b32 %r10, [b+0]; }
        st.global.u32 [%rd3], %r10;";
    let out = run_with(FACTORIAL, body, 32, &[], &Options::default(), 0).unwrap();
    assert_eq!(out[..7], [1, 1, 2, 6, 24, 120, 1]);
}

#[test]
fn calls_of_unknown_functions_are_errors() {
    let body = "call.uni nowhere;";
    let error = run_error(body, 32);
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("nowhere"));
}

#[test]
fn branch_tables() {
    let body = "
        rem.u32 %r4, %r1, 3;
    TABLE: .branchtargets A, B, C;
        brx.idx %r4, TABLE;
    A:  mov.u32 %r10, 10; bra END;
    B:  mov.u32 %r10, 20; bra END;
    C:  mov.u32 %r10, 30;
    END:";
    assert_eq!(warp(body)[..4], [10, 20, 30, 10]);
}

#[test]
fn every_order_gives_the_same_result() {
    let body = "
        .shared .align 4 .u32 total;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 st.shared.u32 [total], 0;
        bar.sync 0;
        atom.shared.add.u32 %r4, [total], %r1;
        bar.sync 0;
        ld.shared.u32 %r10, [total];
        st.global.u32 [%rd3], %r10;";
    for order in [
        Order::Forward,
        Order::Reverse,
        Order::Seeded(1),
        Order::Seeded(7),
    ] {
        let options = Options {
            order,
            ..Options::default()
        };
        let out = run_with("", body, 128, &[], &options, 0).unwrap();
        assert_eq!(out[..128], [8128; 128]);
    }
}

//! Matrix products against those of other libraries, alternating in one run, one thread each.
//!
//! `bench_matmul [avx512|avx2|portable] [name=library.so ..]`, where a library has `dnnl_sgemm` or
//! `cblas_sgemm`. `scripts/bench/matmul.sh` finds the libraries and calls this.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::ffi::{CString, c_char, c_int, c_void};

use ringstep::backend::cpu::{Cpu, InstructionSet};
use ringstep::backend::{Accumulate, Form, Matmul, MatmulShape};
use ringstep::cli::bench::training_products;

/// Rounds of each shape, and the least seconds of each library in a round.
const ROUNDS: usize = 31;
const LEAST: f64 = 1e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut cpu = Cpu::new();
    let mut peers = Vec::new();
    for argument in std::env::args().skip(1) {
        if let Some((name, path)) = argument.split_once('=') {
            peers.push(Peer::open(name, path)?);
        } else {
            let set = InstructionSet::ALL
                .into_iter()
                .find(|set| set.name() == argument);
            let chosen = set.and_then(Cpu::with_instructions);
            cpu = chosen.ok_or(format!("no instruction set {argument} on this machine"))?;
        }
    }
    print!(
        "{:<22} {:<24} {:>9}",
        "layer",
        "form m n k",
        cpu.instructions().name()
    );
    peers
        .iter()
        .for_each(|peer| print!(" {:>9} {:>6}", peer.name, "ratio"));
    println!("   (GFLOP/s at the median time; median over rounds of their time over ours)");
    let mut logarithms = vec![Vec::new(); peers.len()];
    for (layer, shape) in training_products() {
        let rounds = measure(&mut cpu, &peers, shape);
        let MatmulShape { form, m, n, k } = shape;
        let speed = |times: &[f64]| 2.0 * (m * n * k) as f64 / median(times.to_vec()) / 1e9;
        let size = format!("{form:?} {m} {n} {k}");
        print!("{layer:<22} {size:<24} {:>9.1}", speed(&rounds[0]));
        for (theirs, logarithms) in rounds[1..].iter().zip(&mut logarithms) {
            let ratios = theirs
                .iter()
                .zip(&rounds[0])
                .map(|(theirs, ours)| theirs / ours);
            let ratio = median(ratios.collect());
            logarithms.push(ratio.ln());
            print!(" {:>9.1} {ratio:>6.2}", speed(theirs));
        }
        println!();
    }
    for (peer, logarithms) in peers.iter().zip(&logarithms) {
        let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        let worst = logarithms.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "against {}: mean {:.3}, worst {:.3}",
            peer.name,
            mean.exp(),
            worst.exp()
        );
    }
    Ok(())
}

/// Seconds of a product in each round, ours first. A round times all libraries one after the other,
/// so that what slows the machine for a while slows them alike.
fn measure(cpu: &mut Cpu, peers: &[Peer], shape: MatmulShape) -> Vec<Vec<f64>> {
    let MatmulShape { m, n, k, .. } = shape;
    let values = |count: usize, step: f32| -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    };
    let (a, b) = (values(m * k, 0.7), values(k * n, 1.3));
    let mut c = vec![0.0; m * n];
    cpu.matmul(shape, &a, &b, &mut c, Accumulate::Set);
    let ours = c.clone();
    for peer in peers {
        peer.multiply(shape, &a, &b, &mut c);
        let wrong = ours
            .iter()
            .zip(&c)
            .any(|(x, y)| (x - y).abs() > 1e-2 + 1e-3 * y.abs());
        assert!(!wrong, "{} disagrees on {shape:?}", peer.name);
    }
    let mut times = vec![Vec::new(); peers.len() + 1];
    for _ in 0..ROUNDS {
        times[0].push(time(|| cpu.matmul(shape, &a, &b, &mut c, Accumulate::Set)));
        for (peer, times) in peers.iter().zip(&mut times[1..]) {
            times.push(time(|| peer.multiply(shape, &a, &b, &mut c)));
        }
    }
    times
}

/// Processor seconds of one call, over as many as take long enough to tell: what else the machine
/// does in between does not count.
fn time(mut call: impl FnMut()) -> f64 {
    call();
    let start = processor_time();
    let mut calls = 0;
    while processor_time() - start < LEAST {
        call();
        calls += 1;
    }
    (processor_time() - start) / f64::from(calls)
}

/// Seconds that this thread has run.
fn processor_time() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists and the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

type DnnlSgemm = unsafe extern "C" fn(
    c_char,
    c_char,
    i64,
    i64,
    i64,
    f32,
    *const f32,
    i64,
    *const f32,
    i64,
    f32,
    *mut f32,
    i64,
) -> c_int;
type CblasSgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

enum Sgemm {
    Dnnl(DnnlSgemm),
    Cblas(CblasSgemm),
}

struct Peer {
    name: String,
    sgemm: Sgemm,
}

impl Peer {
    fn open(name: &str, path: &str) -> Result<Self, Box<dyn Error>> {
        let file = CString::new(path)?;
        // SAFETY: the library is one the caller trusts; its functions have these signatures.
        let sgemm = unsafe {
            let library = libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
            if library.is_null() {
                return Err(format!("cannot load {path}").into());
            }
            let dnnl = libc::dlsym(library, c"dnnl_sgemm".as_ptr());
            let cblas = libc::dlsym(library, c"cblas_sgemm".as_ptr());
            if !dnnl.is_null() {
                Sgemm::Dnnl(std::mem::transmute::<*mut c_void, DnnlSgemm>(dnnl))
            } else if !cblas.is_null() {
                Sgemm::Cblas(std::mem::transmute::<*mut c_void, CblasSgemm>(cblas))
            } else {
                return Err(format!("{path} has no sgemm").into());
            }
        };
        let name = name.to_owned();
        Ok(Self { name, sgemm })
    }

    fn multiply(&self, shape: MatmulShape, a: &[f32], b: &[f32], c: &mut [f32]) {
        let MatmulShape { form, m, n, k } = shape;
        assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n);
        let (transposed_a, transposed_b) = (form == Form::TN, form == Form::NT);
        let (lda, ldb) = (
            if transposed_a { m } else { k },
            if transposed_b { k } else { n },
        );
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: the matrices have the lengths that the extents and strides say.
        unsafe {
            match self.sgemm {
                Sgemm::Dnnl(sgemm) => {
                    let letter = |transposed| if transposed { b'T' } else { b'N' } as c_char;
                    let [m, n, k, lda, ldb] = [m, n, k, lda, ldb].map(|x| x as i64);
                    let (ta, tb) = (letter(transposed_a), letter(transposed_b));
                    let status = sgemm(ta, tb, m, n, k, 1.0, a, lda, b, ldb, 0.0, c, n);
                    assert_eq!(status, 0, "dnnl_sgemm failed");
                }
                Sgemm::Cblas(sgemm) => {
                    let number = |transposed| if transposed { 112 } else { 111 };
                    let [m, n, k, lda, ldb] = [m, n, k, lda, ldb].map(|x| x as c_int);
                    let (ta, tb) = (number(transposed_a), number(transposed_b));
                    sgemm(101, ta, tb, m, n, k, 1.0, a, lda, b, ldb, 0.0, c, n);
                }
            }
        }
    }
}

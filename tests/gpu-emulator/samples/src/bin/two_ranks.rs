//! Two data-parallel ranks: gradients are computed bucket by bucket on one stream while the
//! buckets that are ready are averaged by NCCL on another.
//!
//! `two_ranks threads [missing-event]` or `two_ranks processes`

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "what is unsafe here is what every CUDA program does: launches and raw handles"
)]

use std::process::Command;

use cudarc::driver::{CudaContext, PushKernelArg};
use cudarc::nccl::{Comm, Id, ReduceOp};
use samples::{grid, load, max_error, Report, Result, WRONG_RESULT};

const RANKS: usize = 2;
const BUCKETS: usize = 4;
const BUCKET: usize = 50_000;
const N: usize = BUCKETS * BUCKET;
const STEPS: usize = 3;

fn main() -> Result {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["threads"] => threads(true),
        ["threads", "missing-event"] => threads(false),
        ["processes"] => processes(),
        ["rank", rank, id] => {
            let id: Vec<i8> = (0..128)
                .map(|k| u8::from_str_radix(&id[2 * k..2 * k + 2], 16).map(|b| b as i8))
                .collect::<std::result::Result<_, _>>()?;
            let id = Id::uninit(id.as_slice().try_into()?);
            end(train(0, rank.parse()?, id, true)?)
        }
        _ => Err("usage: two_ranks threads [missing-event] | processes".into()),
    }
}

fn threads(with_events: bool) -> Result {
    let id = Id::new().map_err(|e| format!("{e:?}"))?;
    let ranks = (0..RANKS).map(|rank| {
        std::thread::spawn(move || train(rank, rank, id, with_events).map_err(|e| e.to_string()))
    });
    let ranks: Vec<_> = ranks.collect();
    let results: Vec<_> = ranks.into_iter().map(|rank| rank.join()).collect();
    let mut failures = 0;
    for result in results {
        failures += result.map_err(|_| "a rank panicked")??;
    }
    end(failures)
}

/// Ends the program.
fn end(failures: u32) -> Result {
    if failures > 0 {
        std::process::exit(WRONG_RESULT);
    }
    Ok(())
}

fn processes() -> Result {
    // The first rank would make the id; any process may.
    let _context = CudaContext::new(0)?;
    let id = Id::new().map_err(|e| format!("{e:?}"))?;
    let hex: String = id
        .internal()
        .iter()
        .map(|b| format!("{:02x}", *b as u8))
        .collect();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["rank", &rank.to_string(), &hex]);
        command
            .env("CUDA_VISIBLE_DEVICES", rank.to_string())
            .spawn()
    };
    let children = (0..RANKS).map(start).collect::<std::io::Result<Vec<_>>>()?;
    for mut child in children {
        let status = child.wait()?;
        if !status.success() {
            std::process::exit(status.code().unwrap_or(1));
        }
    }
    Ok(())
}

fn train(device: usize, rank: usize, id: Id, with_events: bool) -> Result<u32> {
    let nccl = |e: cudarc::nccl::result::NcclError| format!("NCCL: {:?}", e.0);
    let context = CudaContext::new(device)?;
    // We order the streams ourselves, as a trainer does.
    unsafe { context.disable_event_tracking() };
    let compute = context.new_stream()?;
    let communicate = context.new_stream()?;
    let comm = Comm::from_rank(communicate.clone(), rank, RANKS, id).map_err(nccl)?;
    let module = load(&context, "train", "compute_80")?;
    let (gradient, sgd) = (
        module.load_function("gradient")?,
        module.load_function("sgd")?,
    );
    let mut weight = compute.clone_htod(&vec![1f32; N])?;
    let mut grad = unsafe { compute.alloc::<f32>(N)? };
    // What is allocated in the order of a stream can be used by others from here on.
    compute.synchronize()?;
    let blocks = grid(((BUCKET as u32).div_ceil(256), 1, 1), (256, 1, 1), 0);
    for _ in 0..STEPS {
        for bucket in 0..BUCKETS {
            let (first, n, rank) = ((bucket * BUCKET) as i32, BUCKET as i32, rank as f32);
            let mut launch = compute.launch_builder(&gradient);
            launch
                .arg(&weight)
                .arg(&mut grad)
                .arg(&first)
                .arg(&n)
                .arg(&rank);
            unsafe { launch.launch(blocks)? };
            if with_events {
                communicate.wait(&compute.record_event(None)?)?;
            }
            let mut view = grad.slice_mut(bucket * BUCKET..(bucket + 1) * BUCKET);
            comm.all_reduce_in_place(&mut view, &ReduceOp::Avg)
                .map_err(nccl)?;
        }
        compute.wait(&communicate.record_event(None)?)?;
        let (n, rate) = (N as i32, 0.1f32);
        let mut launch = compute.launch_builder(&sgd);
        launch.arg(&mut weight).arg(&grad).arg(&n).arg(&rate);
        unsafe { launch.launch(grid(((N as u32).div_ceil(256), 1, 1), (256, 1, 1), 0))? };
    }
    let got = compute.clone_dtoh(&weight)?;
    compute.synchronize()?;
    let want = (0..N).map(|i| {
        let step = |w: f64| w - 0.1 * (1.5 * w + (i % BUCKET % 7) as f64);
        (0..STEPS).fold(1.0, |w, _| step(w))
    });
    let mut report = Report::new();
    let error = max_error(got.iter().map(|v| f64::from(*v)), want);
    report.error(&format!("rank {rank} weights"), error, 1e-5);
    drop(comm);
    Ok(report.failures())
}

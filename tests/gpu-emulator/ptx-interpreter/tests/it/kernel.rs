//! Runs small hand-written PTX bodies.

use ptx_interpreter::{launch, parse_module, Error, LaunchConfig, MemoryMap, Options};

/// Registers and the usual beginning: %rd1 = in, %rd2 = out, %r1 = tid.x, %r2 = loaded word,
/// %rd3 = address of this thread's output word.
const PROLOGUE: &str = "
    .reg .pred %p<8>; .reg .b16 %h<16>; .reg .b32 %r<64>; .reg .f32 %f<64>;
    .reg .b64 %rd<32>; .reg .f64 %fd<16>;
    ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd4, %r1, 4;
    add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r2, [%rd5];
    add.s64 %rd3, %rd2, %rd4;
";

pub(crate) fn module_text(before: &str, body: &str) -> String {
    format!(
        ".version 8.4\n.target sm_90\n.address_size 64\n{before}\n\
         .visible .entry k(.param .u64 in, .param .u64 out) {{ {PROLOGUE}\n{body}\nret; }}"
    )
}

/// One block of `threads` threads; returns the output words.
pub(crate) fn run_with(
    before: &str,
    body: &str,
    threads: u32,
    input: &[u32],
    options: &Options,
    dynamic_shared: u32,
) -> Result<Vec<u32>, Error> {
    let module = parse_module(&module_text(before, body))?;
    let mut input = input.to_vec();
    input.resize(input.len().max(threads as usize), 0);
    let mut output = vec![0xffff_ffffu32; 4 * threads as usize];
    let addresses = [input.as_mut_ptr() as u64, output.as_mut_ptr() as u64];
    let params: Vec<u8> = addresses.iter().flat_map(|a| a.to_le_bytes()).collect();
    let memory = MemoryMap::new(vec![
        (addresses[0], 4 * input.len() as u64),
        (addresses[1], 4 * output.len() as u64),
    ]);
    let config = LaunchConfig::new([1, 1, 1], [threads, 1, 1], dynamic_shared);
    // SAFETY: the memory map lists the two vectors, which outlive the call.
    unsafe { launch(&module, "k", &config, &params, &memory, options)? };
    Ok(output)
}

pub(crate) fn run(body: &str, threads: u32, input: &[u32]) -> Vec<u32> {
    match run_with("", body, threads, input, &Options::default(), 0) {
        Ok(output) => output,
        Err(error) => panic!("{error}\n{body}"),
    }
}

pub(crate) fn run_error(body: &str, threads: u32) -> Error {
    match run_with("", body, threads, &[], &Options::default(), 0) {
        Ok(_) => panic!("no error in\n{body}"),
        Err(error) => error,
    }
}

/// One thread: puts `%r2 = x` and `%r3 = y` in, takes `%r10` out.
pub(crate) fn scalar(body: &str, x: u32, y: u32) -> u32 {
    let body = format!("ld.global.u32 %r3, [%rd1+4]; {body} st.global.u32 [%rd3], %r10;");
    run(&body, 1, &[x, y])[0]
}

/// The same with floats: `%f1 = x`, `%f2 = y`, result in `%f10`.
pub(crate) fn float(body: &str, x: f32, y: f32) -> f32 {
    let body = format!(
        "ld.global.f32 %f1, [%rd1]; ld.global.f32 %f2, [%rd1+4]; {body} st.global.f32 [%rd3], %f10;"
    );
    f32::from_bits(run(&body, 1, &[x.to_bits(), y.to_bits()])[0])
}

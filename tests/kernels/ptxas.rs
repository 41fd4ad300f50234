//! What ptxas says about kernels, and what their machine code is made of.

use std::collections::BTreeMap;

/// What a kernel needs of a multiprocessor, from a log of `ptxas -v`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Registers of a thread.
    pub(crate) registers: u32,
    /// Shared memory of a block, in bytes: in a log, what is static.
    pub(crate) shared: u32,
    /// Stack of a thread, in bytes.
    pub(crate) stack: u32,
    /// What is stored to and loaded from the stack for want of registers, in bytes.
    pub(crate) spills: [u32; 2],
}

/// The usage of each kernel in a log, and the lines that are not ptxas's figures: warnings.
pub(crate) fn read_log(log: &str) -> (BTreeMap<&str, Usage>, Vec<&str>) {
    let mut usages = BTreeMap::new();
    let mut warnings = Vec::new();
    let mut kernel = None;
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        let Some(said) = line.strip_prefix("ptxas ") else {
            warnings.push(line);
            continue;
        };
        let said = said
            .trim_start_matches("info")
            .trim_start_matches([' ', ':', '.']);
        if let Some(name) = said.strip_prefix("Function properties for ") {
            kernel = Some(name);
        } else if let (Some(name), true) = (kernel, said.contains("bytes stack frame")) {
            let usage: &mut Usage = usages.entry(name).or_default();
            usage.stack = before(said, " bytes stack frame");
            let spills = [" bytes spill stores", " bytes spill loads"];
            usage.spills = spills.map(|what| before(said, what));
        } else if let (Some(name), true) = (kernel, said.starts_with("Used ")) {
            let usage: &mut Usage = usages.entry(name).or_default();
            usage.registers = before(said, " registers");
            usage.shared = before(said, " bytes smem");
        } else if !["Compiling entry function", "Compile time"]
            .iter()
            .any(|start| said.starts_with(start))
            && !said.ends_with("gmem")
            && !said.contains("bytes gmem,")
        {
            warnings.push(line);
        }
    }
    (usages, warnings)
}

/// The number that stands before `what`; 0 where it is not said.
fn before(text: &str, what: &str) -> u32 {
    let number = text
        .split(what)
        .next()
        .filter(|before| before.len() < text.len());
    let number = number.and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next());
    number.map_or(0, |number| number.parse().unwrap())
}

/// Bodies of the kernels in PTX, with their directives, by name.
pub(crate) fn entries(ptx: &str) -> BTreeMap<&str, &str> {
    let entry = |text| {
        let (name, body): (&str, &str) = str::split_once(text, '(')?;
        Some((name.trim(), body))
    };
    ptx.split(".entry ").skip(1).filter_map(entry).collect()
}

/// Most threads of a block, where the kernel says so.
pub(crate) fn bound_of_threads(body: &str) -> Option<u32> {
    let (_, bound) = body.split_once(".maxntid ")?;
    let extents = bound.lines().next()?.split(',');
    Some(
        extents
            .map(|extent| extent.trim().parse::<u32>().unwrap())
            .product(),
    )
}

/// Instructions that multiply matrices, or the elements of theirs, in machine code.
pub(crate) const UNITS: [&str; 3] = ["HGMMA", "HMMA", "FFMA"];

/// The unit that a kernel's PTX asks for.
pub(crate) fn unit_of(body: &str) -> &'static str {
    let marks = ["wgmma.mma_async", "mma.sync"];
    let asked = marks.iter().position(|mark| body.contains(mark));
    UNITS[asked.unwrap_or(UNITS.len() - 1)]
}

/// How often each of [`UNITS`] stands in each function of what nvdisasm prints.
pub(crate) fn count_units(listing: &str) -> BTreeMap<&str, [usize; 3]> {
    let mut counts = BTreeMap::new();
    let mut function = "";
    for line in listing.lines() {
        if let Some(name) = line
            .strip_prefix(".text.")
            .and_then(|rest| rest.strip_suffix(':'))
        {
            function = name;
        }
        let is_unit = |unit: &&str| line.split([' ', '.', ';']).any(|word| word == *unit);
        if let Some(unit) = UNITS.iter().position(is_unit) {
            counts.entry(function).or_insert([0; 3])[unit] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 4 bytes gmem, 8 bytes cmem[4]
ptxas info    : Compiling entry function 'fold' for 'sm_80'
ptxas info    : Function properties for fold
ptxas         .     16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 109 registers, used 1 barriers, 9216 bytes smem, 400 bytes cmem[0]
ptxas info    : Compile time = 305.890 ms
ptxas info    : Compiling entry function 'add' for 'sm_80'
ptxas info    : Function properties for add
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers
";

    #[test]
    fn figures_are_read_for_each_kernel() {
        let (usages, warnings) = read_log(LOG);
        let fold = Usage {
            registers: 109,
            shared: 9216,
            stack: 16,
            spills: [12, 8],
        };
        let add = Usage {
            registers: 12,
            ..Usage::default()
        };
        assert_eq!(usages, BTreeMap::from([("fold", fold), ("add", add)]));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn whatever_else_is_said_is_a_warning() {
        for line in [
            "fold.cu(7): warning #177-D: variable \"x\" was declared but never referenced",
            "ptxas warning : Value of threads per SM is out of range",
            "ptxas info    : (C7510) Potential Performance Loss: wgmma instructions are serialized",
        ] {
            let log = format!("{LOG}{line}\n");
            assert_eq!(read_log(&log).1, [line]);
        }
    }

    #[test]
    fn bounds_and_units_are_those_of_each_entry() {
        let ptx = ".visible .entry first(\n .param .u64 p\n)\n.maxntid 128, 2, 1\n{\nmma.sync.aligned;\n}\n\
                   .visible .entry second(\n)\n{\nfma.rn.f32;\n}\n";
        let entries = entries(ptx);
        assert_eq!(bound_of_threads(entries["first"]), Some(256));
        assert_eq!(bound_of_threads(entries["second"]), None);
        assert_eq!(unit_of(entries["first"]), "HMMA");
        assert_eq!(unit_of(entries["second"]), "FFMA");
        assert_eq!(unit_of("wgmma.mma_async.sync.aligned"), "HGMMA");
    }

    #[test]
    fn instructions_are_counted_by_function() {
        let listing = "\
.text.first:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*0020*/              @!P0 FFMA R2, R3, R4, R5 ;
.text.second:
        /*0000*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], R24 ;
        /*0010*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24 ;
";
        let counts = count_units(listing);
        assert_eq!(counts["first"], [0, 1, 1]);
        assert_eq!(counts["second"], [2, 0, 0]);
    }
}

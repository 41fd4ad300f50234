//! Operands (PTX ISA, "Instruction Operands") and literals ("Constants").

use super::lexer::split_top_level;
use crate::ir::{Operand, Special};

/// Integer and floating-point literals; `0f3F800000` and `0d...` give raw bits.
pub(super) fn parse_immediate(text: &str) -> Option<u64> {
    let (negative, digits) = match text.trim().strip_prefix('-') {
        Some(rest) => (true, rest.trim()),
        None => (false, text.trim().trim_start_matches('+')),
    };
    let float = ["0f", "0F", "0d", "0D"]
        .iter()
        .find_map(|p| digits.strip_prefix(p));
    let value = if let Some(hex) = float {
        u64::from_str_radix(hex, 16).ok()?
    } else {
        let digits = digits.trim_end_matches(['U', 'u']);
        if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            u64::from_str_radix(hex, 16).ok()?
        } else if let Some(binary) = digits.strip_prefix("0b") {
            u64::from_str_radix(binary, 2).ok()?
        } else {
            digits.parse::<u64>().ok()?
        }
    };
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

fn parse_special(text: &str) -> Option<Special> {
    let (base, axis) = text.split_once('.').unwrap_or((text, "x"));
    let axis = match axis {
        "x" => 0,
        "y" => 1,
        "z" => 2,
        _ => return None,
    };
    Some(match base {
        "%tid" => Special::Tid(axis),
        "%ntid" => Special::Ntid(axis),
        "%ctaid" => Special::Ctaid(axis),
        "%nctaid" => Special::Nctaid(axis),
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NumWarps,
        "%lanemask_eq" => Special::MaskEq,
        "%lanemask_lt" => Special::MaskLt,
        "%lanemask_le" => Special::MaskLe,
        "%lanemask_gt" => Special::MaskGt,
        "%lanemask_ge" => Special::MaskGe,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        "%clock" | "%clock64" | "%clock_hi" | "%globaltimer" | "%globaltimer_lo" => Special::Clock,
        "%smid" | "%gridid" | "%clusterid" | "%cluster_ctaid" | "%cluster_ctarank" => Special::Zero,
        "%nsmid" | "%nclusterid" | "%cluster_nctaid" | "%cluster_nctarank" => Special::One,
        _ => return None,
    })
}

/// Resolves the names an operand can contain.
pub(super) trait Names {
    fn register(&self, name: &str) -> Option<u32>;
    fn symbol(&mut self, name: &str) -> Option<Operand>;
    fn label(&self, name: &str) -> Option<u32>;
}

pub(super) fn parse_operand(text: &str, names: &mut dyn Names) -> Result<Operand, String> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('{') {
        return vector(inner.trim_end_matches('}'), ',', names);
    }
    if let Some(inner) = text.strip_prefix('[') {
        return memory(inner.trim_end_matches(']').trim(), names);
    }
    if text == "_" {
        return Ok(Operand::Sink);
    }
    if text.contains('|') {
        return vector(text, '|', names);
    }
    if let Some(register) = names.register(text) {
        return Ok(Operand::Register(register));
    }
    if let Some(register) = text
        .strip_prefix('!')
        .and_then(|t| names.register(t.trim()))
    {
        return Ok(Operand::Negated(register));
    }
    if let Some(value) = parse_immediate(text) {
        return Ok(Operand::Immediate(value));
    }
    if let Some(special) = parse_special(text) {
        return Ok(Operand::Special(special));
    }
    if text == "WARP_SZ" {
        return Ok(Operand::Immediate(32));
    }
    if let Some(symbol) = names.symbol(text) {
        return Ok(symbol);
    }
    if let Some((name, offset)) = text.split_once('+') {
        if let (Some(symbol), Some(k)) = (names.symbol(name.trim()), parse_immediate(offset)) {
            return Ok(displaced(symbol, k));
        }
    }
    if let Some(label) = names.label(text) {
        return Ok(Operand::Label(label));
    }
    if text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '$')) {
        return Ok(Operand::Name(text.to_string()));
    }
    Err(format!("operand `{text}` not understood"))
}

fn vector(text: &str, separator: char, names: &mut dyn Names) -> Result<Operand, String> {
    let parts = split_top_level(text, separator);
    let parts = parts.iter().map(|p| parse_operand(p, names));
    Ok(Operand::Vector(parts.collect::<Result<_, _>>()?))
}

/// `[base]`, `[base+offset]`, or the `[map, {x, y}]` of a tensor copy.
fn memory(text: &str, names: &mut dyn Names) -> Result<Operand, String> {
    if text.contains(',') {
        return vector(text, ',', names);
    }
    let (base, offset) = match text.rfind(['+', '-']).filter(|&at| at > 0) {
        Some(at) => {
            let sign = if text.as_bytes()[at] == b'-' { -1 } else { 1 };
            let magnitude = parse_immediate(&text[at + 1..])
                .ok_or_else(|| format!("bad address offset in [{text}]"))?;
            (
                text[..at].trim_end_matches('+').trim(),
                sign * magnitude as i64,
            )
        }
        None => (text, 0),
    };
    Ok(Operand::Memory(
        Box::new(parse_operand(base, names)?),
        offset,
    ))
}

fn displaced(symbol: Operand, offset: u64) -> Operand {
    match symbol {
        Operand::Global(address) => Operand::Global(address + offset),
        Operand::Shared(var, at) => Operand::Shared(var, at + offset),
        Operand::Local(at) => Operand::Local(at + offset),
        Operand::Param(at) => Operand::Param(at + offset),
        other => other,
    }
}

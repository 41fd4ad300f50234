//! Device-side `printf` (the `vprintf` system call), written to standard output.
//!
//! CUDA Programming Guide: "Formatted Output". Arguments are packed with natural alignment.

use super::Context;
use crate::error::Fault;
use crate::ir::{CallSite, Space};
use crate::warp::lanes_of;

impl Context<'_, '_> {
    pub(crate) fn printf(&mut self, call: &CallSite) -> Result<(), Fault> {
        let [format, arguments] = call.arguments[..] else {
            return Err(Fault::invalid("vprintf takes two arguments"));
        };
        let base = self.warp.frames[self.frame].local_base;
        for lane in lanes_of(self.mask) {
            let format = self.read_memory(lane, (Space::Local, base + format.offset), 8)?;
            let arguments = self.read_memory(lane, (Space::Local, base + arguments.offset), 8)?;
            let format = self.read_string(lane, format)?;
            let text = self.format(lane, &format, arguments)?;
            print!("{text}");
            if let Some(result) = call.results.first() {
                let place = (Space::Local, base + result.offset);
                self.write_memory(lane, place, 4, text.len() as u64)?;
            }
        }
        Ok(())
    }

    fn read_string(&mut self, lane: usize, address: u64) -> Result<String, Fault> {
        let mut bytes = Vec::new();
        loop {
            let place = (Space::Generic, address + bytes.len() as u64);
            match self.read_memory(lane, place, 1)? as u8 {
                0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                byte => bytes.push(byte),
            }
        }
    }

    fn format(&mut self, lane: usize, format: &str, arguments: u64) -> Result<String, Fault> {
        let mut out = String::new();
        let mut at = arguments;
        let mut rest = format;
        while let Some(percent) = rest.find('%') {
            out += &rest[..percent];
            let spec = &rest[percent + 1..];
            let Some(length) =
                spec.find(|c: char| c.is_ascii_alphabetic() && !"hlzjt".contains(c) || c == '%')
            else {
                break;
            };
            let conversion = spec.as_bytes()[length] as char;
            let options = &spec[..length];
            rest = &spec[length + 1..];
            if conversion == '%' {
                out.push('%');
                continue;
            }
            let wide = options.contains(['l', 'z', 'j', 't']) || "feEgGaAsp".contains(conversion);
            let bytes = if wide { 8 } else { 4 };
            at = at.next_multiple_of(bytes);
            let value = self.read_memory(lane, (Space::Generic, at), bytes as usize)?;
            at += bytes;
            let text = match conversion {
                's' => self.read_string(lane, value)?,
                other => convert(other, options, value, wide),
            };
            out += &pad(text, options);
        }
        out += rest;
        Ok(out)
    }
}

fn convert(conversion: char, options: &str, value: u64, wide: bool) -> String {
    let digits = options
        .split('.')
        .nth(1)
        .map(|p| p.trim_end_matches(['l', 'h']));
    let precision = digits.and_then(|p| p.parse().ok()).unwrap_or(6);
    let number = f64::from_bits(value);
    match conversion {
        'd' | 'i' if wide => (value as i64).to_string(),
        'd' | 'i' => (value as i32).to_string(),
        'x' => format!("{value:x}"),
        'X' => format!("{value:X}"),
        'o' => format!("{value:o}"),
        'c' => char::from(value as u8).to_string(),
        'p' => format!("{value:#x}"),
        'f' => format!("{number:.precision$}"),
        'e' | 'E' => format!("{number:.precision$e}"),
        'g' | 'G' | 'a' | 'A' => number.to_string(),
        _ => value.to_string(),
    }
}

/// Applies the field width and the `-` and `0` flags.
fn pad(text: String, options: &str) -> String {
    let flags = options.trim_start_matches(['+', ' ', '#']);
    let left = flags.contains('-');
    let flags = flags.trim_start_matches('-');
    let digits: String = flags.chars().take_while(|c| c.is_ascii_digit()).collect();
    let width = digits.parse().unwrap_or(0);
    if left {
        format!("{text:<width$}")
    } else if digits.starts_with('0') {
        format!("{text:0>width$}")
    } else {
        format!("{text:>width$}")
    }
}

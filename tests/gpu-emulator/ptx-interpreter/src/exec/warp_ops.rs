//! Warp-wide instructions: `shfl vote activemask redux match elect`.
//!
//! PTX ISA: "Data Movement: shfl.sync", "Parallel Synchronization: vote.sync, match.sync,
//! activemask, redux.sync, elect.sync".

use super::Context;
use crate::error::{ErrorKind, Fault};
use crate::ir::{Opcode, Operand};
use crate::numeric::{sign_extend, zero_extend};
use crate::types::Kind;
use crate::warp::{lanes_of, Lanes, WARP};

impl<'m> Context<'_, 'm> {
    pub(crate) fn warp_wide(&mut self) -> Result<(), Fault> {
        match self.ins.opcode {
            Opcode::Shfl => self.shuffle(),
            Opcode::Vote => self.vote(),
            Opcode::Redux => self.redux(),
            Opcode::Match => self.match_lanes(),
            Opcode::Elect => {
                let leader = self.mask.trailing_zeros() as usize;
                let mut elected = [0; WARP];
                elected[leader] = 1;
                self.write_pair(&[leader as u64; WARP], &elected)
            }
            _ => {
                let mask = u64::from(self.mask);
                self.write_result(&[mask; WARP]);
                Ok(())
            }
        }
    }

    /// Writes `d|p`, or only `d`.
    fn write_pair(&mut self, value: &Lanes, predicate: &Lanes) -> Result<(), Fault> {
        match self.operand(0)? {
            Operand::Vector(pair) if pair.len() == 2 => {
                self.write(&pair[0], value);
                self.write(&pair[1], predicate);
            }
            destination => self.write(destination, value),
        }
        Ok(())
    }

    fn shuffle(&mut self) -> Result<(), Fault> {
        let (source, lane_arg, clamp) = (self.value(1)?, self.value(2)?, self.value(3)?);
        let mode = self.ins.mods.get(1);
        let (mut value, mut valid) = ([0; WARP], [0; WARP]);
        for lane in lanes_of(self.mask) {
            let (limit, segment) = ((clamp[lane] & 31) as i32, (clamp[lane] >> 8 & 31) as i32);
            let (own, by) = (lane as i32, (lane_arg[lane] & 31) as i32);
            let last = (own & segment) | (limit & !segment);
            let (from, in_range) = match mode {
                "up" => (own - by, own - by >= last),
                "down" => (own + by, own + by <= last),
                "bfly" => (own ^ by, own ^ by <= last),
                _ => {
                    let from = (own & segment) | (by & !segment);
                    (from, from <= last)
                }
            };
            let from = if in_range { from as usize } else { lane };
            if self.mask >> from & 1 == 0 {
                let message = format!("shuffle reads from inactive lane {from}");
                return Err(Fault::new(ErrorKind::MemberMask, message).in_lane(lane));
            }
            value[lane] = source[from];
            valid[lane] = in_range.into();
        }
        self.write_pair(&value, &valid)
    }

    fn vote(&mut self) -> Result<(), Fault> {
        let predicate = self.value(1)?;
        let mut ballot = 0u32;
        for lane in lanes_of(self.mask) {
            ballot |= ((predicate[lane] & 1) as u32) << lane;
        }
        let result = match self.ins.mods.get(1) {
            "ballot" => u64::from(ballot),
            "any" => u64::from(ballot != 0),
            "all" => u64::from(ballot == self.mask),
            _ => u64::from(ballot == 0 || ballot == self.mask),
        };
        self.write_result(&[result; WARP]);
        Ok(())
    }

    fn redux(&mut self) -> Result<(), Fault> {
        let values = self.value(1)?;
        let ty = self.ins.ty;
        let operation = self.ins.mods.get(1);
        if ty.kind == Kind::Float {
            return Err(Fault::unsupported("redux.sync on f32"));
        }
        let key = |x: u64| {
            if ty.is_signed() {
                sign_extend(x, 32)
            } else {
                zero_extend(x, 32) as i64
            }
        };
        let combine = |x: u64, y: u64| match operation {
            "add" => x.wrapping_add(y),
            "and" => x & y,
            "or" => x | y,
            "xor" => x ^ y,
            "min" => key(x).min(key(y)) as u64,
            _ => key(x).max(key(y)) as u64,
        };
        let all = lanes_of(self.mask).map(|lane| values[lane]);
        let result = zero_extend(all.reduce(combine).unwrap_or(0), 32);
        self.write_result(&[result; WARP]);
        Ok(())
    }

    fn match_lanes(&mut self) -> Result<(), Fault> {
        let bits = self.ins.ty.bits;
        let values = self.value(1)?.map(|v| zero_extend(v, bits));
        let equal_to = |lane: usize| {
            let same = lanes_of(self.mask).filter(|&other| values[other] == values[lane]);
            same.fold(0u64, |mask, other| mask | 1 << other)
        };
        if self.ins.mods.get(0) == "any" {
            let result = std::array::from_fn(equal_to);
            self.write_result(&result);
            return Ok(());
        }
        let first = self.mask.trailing_zeros() as usize;
        let all = equal_to(first) == u64::from(self.mask);
        let mask = if all { self.mask.into() } else { 0 };
        self.write_pair(&[mask; WARP], &[all.into(); WARP])
    }
}

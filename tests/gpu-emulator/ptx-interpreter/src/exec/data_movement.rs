//! `ld st mov cvta isspacep`.
//!
//! PTX ISA: "Data Movement and Conversion Instructions: ld, ldu, st, mov, cvta, isspacep".

use super::Context;
use crate::error::{ErrorKind, Fault};
use crate::ir::{Operand, Space};
use crate::memory::{
    self, resolve_generic, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_MASK,
};
use crate::numeric::{sign_extend, zero_extend};
use crate::shadow::Access;
use crate::warp::{lanes_of, Lanes, WARP};

impl Context<'_, '_> {
    /// A vector access must be aligned to its whole size.
    fn check_vector(&self, space: Space, addresses: &Lanes, bytes: usize) -> Result<(), Fault> {
        if space == Space::Param {
            return Ok(());
        }
        for lane in lanes_of(self.mask) {
            let address = addresses[lane];
            if !address.is_multiple_of(bytes as u64) {
                let message = format!("misaligned {bytes}-byte vector access at {address:#x}");
                return Err(Fault::new(ErrorKind::Misaligned, message).in_lane(lane));
            }
        }
        Ok(())
    }

    pub(crate) fn load(&mut self) -> Result<(), Fault> {
        let memory = self.operand(1)?;
        let space = self.space_of(memory);
        let addresses = self.addresses(memory)?;
        let (ty, bytes) = (self.ins.ty, self.ins.ty.bytes());
        let destinations = Self::parts(self.operand(0)?);
        if destinations.len() > 1 {
            self.check_vector(space, &addresses, bytes * destinations.len())?;
        }
        if bytes == 16 {
            return Err(Fault::unsupported("128-bit scalar access"));
        }
        for (k, destination) in destinations.iter().enumerate() {
            let mut values = [0; WARP];
            let place = (space, &addresses);
            self.each_lane(place, k * bytes, bytes, Access::Read, |lane, at| {
                // SAFETY: bounds and alignment have been checked.
                values[lane] = unsafe { memory::load(at, bytes) };
            })?;
            if ty.is_signed() {
                values = values.map(|value| sign_extend(value, ty.bits) as u64);
            }
            self.write(destination, &values);
        }
        Ok(())
    }

    pub(crate) fn store(&mut self) -> Result<(), Fault> {
        let memory = self.operand(0)?;
        let space = self.space_of(memory);
        let addresses = self.addresses(memory)?;
        let bytes = self.ins.ty.bytes();
        let sources = Self::parts(self.operand(1)?);
        if sources.len() > 1 {
            self.check_vector(space, &addresses, bytes * sources.len())?;
        }
        if bytes == 16 {
            return Err(Fault::unsupported("128-bit scalar access"));
        }
        // Volatile and ordered shared stores are used for deliberate communication.
        let access = if self.ins.mods.volatile {
            Access::Atomic
        } else {
            Access::Write
        };
        for (k, source) in sources.iter().enumerate() {
            let values = self.read(source)?;
            let place = (space, &addresses);
            self.each_lane(place, k * bytes, bytes, access, |lane, at| {
                // SAFETY: bounds and alignment have been checked.
                unsafe { memory::store(at, bytes, values[lane]) };
            })?;
        }
        Ok(())
    }

    /// `mov`, including packing and unpacking of vectors.
    pub(crate) fn mov(&mut self) -> Result<(), Fault> {
        let bits = self.ins.ty.bits;
        match (self.operand(0)?, self.operand(1)?) {
            (Operand::Vector(parts), source) => {
                let value = self.read(source)?;
                let width = bits / parts.len() as u32;
                for (k, part) in parts.iter().enumerate() {
                    let piece = value.map(|v| zero_extend(v >> (width * k as u32), width));
                    self.write(part, &piece);
                }
            }
            (destination, Operand::Vector(parts)) => {
                if bits > 64 {
                    return Err(Fault::unsupported("128-bit mov"));
                }
                let width = bits / parts.len() as u32;
                let mut value = [0; WARP];
                for (k, part) in parts.iter().enumerate() {
                    let piece = self.read(part)?;
                    for lane in 0..WARP {
                        value[lane] |= zero_extend(piece[lane], width) << (width * k as u32);
                    }
                }
                self.write(destination, &value);
            }
            (destination, source) => {
                let value = self.read(source)?;
                self.write(destination, &value);
            }
        }
        Ok(())
    }

    pub(crate) fn cvta(&mut self) -> Result<(), Fault> {
        let window = match self.ins.mods.space {
            Space::Shared => SHARED_WINDOW,
            Space::Local => LOCAL_WINDOW,
            Space::Param => PARAM_WINDOW,
            _ => 0,
        };
        let to_space = self.ins.mods.has("to");
        self.map1(|x| match (window, to_space) {
            (0, _) => x,
            (_, true) => x & WINDOW_MASK,
            (_, false) => x & WINDOW_MASK | window,
        })
    }

    pub(crate) fn isspacep(&mut self) -> Result<(), Fault> {
        let wanted = self.ins.mods.space;
        self.map1(|x| (resolve_generic(x).0 == wanted).into())
    }
}

//! Execution of single instructions.
//!
//! [`Context`] is one instruction about to be executed by some lanes of a warp; each instruction
//! family is an `impl` block in its own file.

mod arithmetic;
mod async_ops;
mod atomic;
mod bits;
mod compare;
mod control;
mod convert;
mod data_movement;
mod math;
mod matrix;
mod mbarrier;
mod printf;
mod warp_ops;
mod wgmma;
mod wmma;

use crate::block::Block;
use crate::error::{ErrorKind, Fault};
use crate::ir::{Instruction, Opcode, Operand, Space, Special};
use crate::launch::Machine;
use crate::memory::{self, MemoryContext};
use crate::shadow::Access;
use crate::warp::{lanes_of, Group, Lanes, Warp, WARP};

/// What happens to the warp after an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Continue,
    /// Let the other warps run.
    Yield,
    /// The lanes wait for others at this instruction.
    Parked,
}

pub(crate) struct Context<'a, 'm> {
    pub machine: &'a mut Machine<'m>,
    pub block: &'a mut Block,
    pub warp: &'a mut Warp,
    pub ins: &'m Instruction,
    pub frame: usize,
    pub pc: u32,
    /// Lanes of the group.
    pub group_mask: u32,
    /// Lanes whose guard predicate is true.
    pub mask: u32,
}

impl<'a, 'm> Context<'a, 'm> {
    pub(crate) fn new(
        machine: &'a mut Machine<'m>,
        block: &'a mut Block,
        warp: &'a mut Warp,
        ins: &'m Instruction,
        group: Group,
    ) -> Self {
        let mut mask = group.mask;
        if let Some((register, negated)) = ins.guard {
            let values = &warp.frames[group.frame].registers[register as usize];
            let mut set = 0u32;
            for (lane, value) in values.iter().enumerate() {
                set |= ((value & 1) as u32) << lane;
            }
            mask &= if negated { !set } else { set };
        }
        Context {
            machine,
            block,
            warp,
            ins,
            frame: group.frame,
            pc: group.pc,
            group_mask: group.mask,
            mask,
        }
    }

    /// Executes the instruction and moves the group on.
    pub(crate) fn execute(&mut self, group: usize) -> Result<Flow, Fault> {
        if let Some(flow) = self.control_flow(group)? {
            return Ok(flow);
        }
        if self.mask != 0 {
            if self.must_wait_for_lanes()? {
                self.warp.groups[group].parked = true;
                return Ok(Flow::Parked);
            }
            self.touch_sums()?;
            self.compute()?;
        }
        self.warp.move_group(group, self.pc + 1);
        if std::mem::take(&mut self.block.yield_warp) {
            if self.block.failed_polls > 200_000 {
                let message = "mbarrier wait never completes";
                return Err(Fault::new(ErrorKind::Deadlock, message));
            }
            return Ok(Flow::Yield);
        }
        Ok(Flow::Continue)
    }

    /// Warp-wide instructions wait until every lane of the member mask is here.
    fn must_wait_for_lanes(&self) -> Result<bool, Fault> {
        let last = self.ins.operands.len().saturating_sub(1);
        let members = match self.ins.opcode {
            Opcode::Shfl | Opcode::Vote | Opcode::Redux | Opcode::Match | Opcode::Elect => {
                self.uniform(&self.ins.operands[last])? as u32
            }
            Opcode::Bar | Opcode::Barrier => {
                // Only `bar.warp.sync` gets here; lanes that have exited do not count.
                self.uniform(&self.ins.operands[0])? as u32 & self.warp.live
            }
            Opcode::Mma | Opcode::Wmma | Opcode::Wgmma | Opcode::Ldmatrix | Opcode::Stmatrix => {
                u32::MAX
            }
            _ => return Ok(false),
        };
        let (mask, live) = (self.mask, self.warp.live);
        if mask & !members != 0 {
            let message =
                format!("executing lanes {mask:08x} are not all in the member mask {members:08x}");
            return Err(Fault::new(ErrorKind::MemberMask, message));
        }
        if members & !live != 0 {
            let message = format!(
                "member mask {members:08x} names lanes that have exited or do not exist (live: {live:08x})"
            );
            return Err(Fault::new(ErrorKind::MemberMask, message));
        }
        Ok(mask & members != members)
    }

    fn compute(&mut self) -> Result<(), Fault> {
        use Opcode::*;
        match self.ins.opcode {
            Ld | Ldu => self.load(),
            St => self.store(),
            Mov => self.mov(),
            Cvta => self.cvta(),
            Isspacep => self.isspacep(),
            Cvt => self.convert(),
            Add | Sub | Mul | Mad | Fma | Div | Rem | Min | Max | Neg | Abs => self.arithmetic(),
            And | Or | Xor | Not | Shl | Shr | Shf | Lop3 | Popc | Clz | Brev | Bfind | Bfe
            | Bfi | Prmt => self.bits(),
            Setp | Set | Selp | Slct | Testp => self.compare(),
            Ex2 | Lg2 | Rcp | Sqrt | Rsqrt | Sin | Cos | Tanh | Copysign => self.math(),
            Shfl | Vote | Activemask | Redux | Match | Elect => self.warp_wide(),
            Bar | Barrier => {
                self.warp.sync_epoch += 1;
                Ok(())
            }
            Atom | Red => self.atomic(),
            Cp => self.async_copy(),
            Mbarrier => self.mbarrier(),
            Ldmatrix | Stmatrix => self.matrix_move(),
            Mma => self.mma(),
            Wmma => self.wmma(),
            Wgmma => self.wgmma(),
            Trap => Err(Fault::new(ErrorKind::Trap, "trap")),
            // Hints and ordering: this interpreter is sequentially consistent.
            Membar | Fence | Prefetch | Prefetchu | Nanosleep | Applypriority | Discard
            | Setmaxnreg | Griddepcontrol => Ok(()),
            Bra | BrxIdx | Call | Ret | Exit => Ok(()),
            Unknown => Err(Fault::unsupported("instruction not implemented")),
        }
    }

    /// The n-th operand.
    pub(crate) fn operand(&self, index: usize) -> Result<&'m Operand, Fault> {
        let ins = self.ins;
        let missing = || Fault::invalid(format!("operand {index} is missing"));
        ins.operands.get(index).ok_or_else(missing)
    }

    /// The parts of a vector operand, or the operand itself.
    pub(crate) fn parts(operand: &'m Operand) -> &'m [Operand] {
        match operand {
            Operand::Vector(parts) => parts,
            single => std::slice::from_ref(single),
        }
    }

    /// The value of an operand in every lane.
    pub(crate) fn read(&self, operand: &Operand) -> Result<Lanes, Fault> {
        let mut other = [0; WARP];
        self.lanes(operand, &mut other).copied()
    }

    /// The value of an operand in every lane, without a copy where it is a register.
    #[inline]
    fn lanes<'s>(&'s self, operand: &Operand, other: &'s mut Lanes) -> Result<&'s Lanes, Fault> {
        if let Operand::Register(r) = operand {
            return Ok(&self.warp.frames[self.frame].registers[*r as usize]);
        }
        *other = self.computed(operand)?;
        Ok(other)
    }

    /// The value of an operand that is not a register.
    fn computed(&self, operand: &Operand) -> Result<Lanes, Fault> {
        let frame = &self.warp.frames[self.frame];
        Ok(match operand {
            Operand::Negated(r) => frame.registers[*r as usize].map(|v| !v & 1),
            Operand::Immediate(v) | Operand::Global(v) | Operand::Param(v) => [*v; WARP],
            Operand::Shared(var, at) => [self.machine.layout.offsets[*var as usize] + at; WARP],
            Operand::Local(at) => [frame.local_base + at; WARP],
            Operand::Special(special) => self.special(*special),
            Operand::Name(name) => return Err(Fault::invalid(format!("unknown name `{name}`"))),
            _ => return Err(Fault::invalid("operand has no value")),
        })
    }

    /// The value of the n-th operand in every lane.
    pub(crate) fn value(&self, index: usize) -> Result<Lanes, Fault> {
        self.read(self.operand(index)?)
    }

    /// The value of an operand in the first active lane.
    pub(crate) fn uniform(&self, operand: &Operand) -> Result<u64, Fault> {
        let lane = self.mask.trailing_zeros() as usize;
        Ok(self.read(operand)?[lane.min(WARP - 1)])
    }

    /// Writes a register in the active lanes.
    pub(crate) fn write(&mut self, operand: &Operand, values: &Lanes) {
        let Operand::Register(r) = operand else {
            return;
        };
        let register = &mut self.warp.frames[self.frame].registers[*r as usize];
        if self.mask == u32::MAX {
            *register = *values;
        } else {
            for lane in lanes_of(self.mask) {
                register[lane] = values[lane];
            }
        }
    }

    /// Writes the result: the first operand.
    pub(crate) fn write_result(&mut self, values: &Lanes) {
        let ins = self.ins;
        if let Some(destination) = ins.operands.first() {
            self.write(destination, values);
        }
    }

    /// `d = f(a)` in every lane.
    #[inline]
    pub(crate) fn map1(&mut self, f: impl Fn(u64) -> u64) -> Result<(), Fault> {
        let mut other = [0; WARP];
        let a = self.lanes(self.operand(1)?, &mut other)?;
        let mut d = [0; WARP];
        for lane in 0..WARP {
            d[lane] = f(a[lane]);
        }
        self.write_result(&d);
        Ok(())
    }

    /// `d = f(a, b)` in every lane.
    #[inline]
    pub(crate) fn map2(&mut self, f: impl Fn(u64, u64) -> u64) -> Result<(), Fault> {
        let mut other = [[0; WARP]; 2];
        let [a, b] = &mut other;
        let a = self.lanes(self.operand(1)?, a)?;
        let b = self.lanes(self.operand(2)?, b)?;
        let mut d = [0; WARP];
        for lane in 0..WARP {
            d[lane] = f(a[lane], b[lane]);
        }
        self.write_result(&d);
        Ok(())
    }

    /// `d = f(a, b, c)` in every lane.
    #[inline]
    pub(crate) fn map3(&mut self, f: impl Fn(u64, u64, u64) -> u64) -> Result<(), Fault> {
        let mut other = [[0; WARP]; 3];
        let [a, b, c] = &mut other;
        let a = self.lanes(self.operand(1)?, a)?;
        let b = self.lanes(self.operand(2)?, b)?;
        let c = self.lanes(self.operand(3)?, c)?;
        let mut d = [0; WARP];
        for lane in 0..WARP {
            d[lane] = f(a[lane], b[lane], c[lane]);
        }
        self.write_result(&d);
        Ok(())
    }

    fn special(&self, special: Special) -> Lanes {
        let [bx, by, bz] = self.machine.config.block;
        let threads = bx * by * bz;
        let warp = self.warp.index;
        std::array::from_fn(|lane| {
            let thread = (warp * WARP + lane) as u32;
            let value = match special {
                Special::Tid(0) => thread % bx,
                Special::Tid(1) => thread / bx % by,
                Special::Tid(_) => thread / (bx * by),
                Special::Ntid(axis) => self.machine.config.block[axis as usize],
                Special::Ctaid(axis) => self.block.ctaid[axis as usize],
                Special::Nctaid(axis) => self.machine.config.grid[axis as usize],
                Special::LaneId => lane as u32,
                Special::WarpId => warp as u32,
                Special::NumWarps => threads.div_ceil(32),
                Special::MaskEq => 1 << lane,
                Special::MaskLt => (1 << lane) - 1,
                Special::MaskLe => ((2u64 << lane) - 1) as u32,
                Special::MaskGe => !((1 << lane) - 1),
                Special::MaskGt => !(((2u64 << lane) - 1) as u32),
                Special::DynamicShared => self.machine.config.dynamic_shared,
                Special::TotalShared => self.machine.shared_bytes as u32,
                Special::Clock => self.machine.steps as u32,
                Special::Zero => 0,
                Special::One => 1,
            };
            u64::from(value)
        })
    }

    // ---- memory ----

    /// Space of a memory operand: the modifier, unless the operand names a variable.
    pub(crate) fn space_of(&self, operand: &Operand) -> Space {
        match operand {
            Operand::Memory(base, _) => match **base {
                Operand::Param(_) => Space::Param,
                Operand::Local(_) if self.ins.mods.space == Space::Param => Space::Local,
                _ => self.ins.mods.space,
            },
            _ => self.ins.mods.space,
        }
    }

    /// Address in every lane.
    pub(crate) fn addresses(&self, operand: &Operand) -> Result<Lanes, Fault> {
        let Operand::Memory(base, offset) = operand else {
            return Err(Fault::invalid("memory operand expected"));
        };
        Ok(self.read(base)?.map(|v| v.wrapping_add(*offset as u64)))
    }

    /// Checks the access of every active lane, in order, and gives `f` its host address.
    #[inline]
    pub(crate) fn each_lane(
        &mut self,
        (space, addresses): (Space, &Lanes),
        offset: usize,
        bytes: usize,
        access: Access,
        mut f: impl FnMut(usize, *mut u8),
    ) -> Result<(), Fault> {
        let mut context = MemoryContext {
            map: self.machine.map,
            checks: self.machine.options.checks,
            params: &mut self.machine.params,
        };
        for lane in lanes_of(self.mask) {
            let place = (space, addresses[lane].wrapping_add(offset as u64));
            f(
                lane,
                context.locate(self.block, self.warp, lane, place, bytes, access)?,
            );
        }
        Ok(())
    }

    pub(crate) fn locate(
        &mut self,
        lane: usize,
        place: (Space, u64),
        bytes: usize,
        access: Access,
    ) -> Result<*mut u8, Fault> {
        let mut context = MemoryContext {
            map: self.machine.map,
            checks: self.machine.options.checks,
            params: &mut self.machine.params,
        };
        context.locate(self.block, self.warp, lane, place, bytes, access)
    }

    pub(crate) fn read_memory(
        &mut self,
        lane: usize,
        place: (Space, u64),
        bytes: usize,
    ) -> Result<u64, Fault> {
        let at = self.locate(lane, place, bytes, Access::Read)?;
        // SAFETY: `locate` has checked bounds and alignment.
        Ok(unsafe { memory::load(at, bytes) })
    }

    pub(crate) fn write_memory(
        &mut self,
        lane: usize,
        place: (Space, u64),
        bytes: usize,
        value: u64,
    ) -> Result<(), Fault> {
        let at = self.locate(lane, place, bytes, Access::Write)?;
        // SAFETY: `locate` has checked bounds and alignment.
        unsafe { memory::store(at, bytes, value) };
        Ok(())
    }
}

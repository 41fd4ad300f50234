//! Branches, calls, barriers, exit.
//!
//! PTX ISA: "Control Flow Instructions", "Parallel Synchronization: bar, barrier".

use super::{Context, Flow};
use crate::block::{BarrierKey, Reduction, ReductionOp, Waiting};
use crate::error::{ErrorKind, Fault};
use crate::ir::{CallTarget, Opcode, Operand, ParamSlot, Space};
use crate::memory;
use crate::shadow::Access;
use crate::warp::{lanes_of, Frame, ReturnTo, UNSET, WARP};

/// Deepest recursion.
const MAX_DEPTH: u32 = 256;

impl Context<'_, '_> {
    /// Executes instructions that decide where lanes go next; `None` for all others.
    pub(crate) fn control_flow(&mut self, group: usize) -> Result<Option<Flow>, Fault> {
        match self.ins.opcode {
            Opcode::Bra => {
                let Some(Operand::Label(target)) = self.ins.operands.last() else {
                    return Err(Fault::invalid("branch target not found"));
                };
                self.branch(group, &[(*target, self.mask)]);
            }
            Opcode::BrxIdx => self.branch_table(group)?,
            Opcode::Call if self.mask != 0 => return self.call(group).map(Some),
            Opcode::Ret | Opcode::Exit => {
                let mask = self.mask;
                if mask != self.group_mask {
                    let rest = self.group_mask & !mask;
                    self.warp.take_lanes(group, self.group_mask);
                    self.warp.add_group(self.frame, self.pc + 1, rest);
                    self.leave_lanes(mask);
                } else {
                    self.leave(group, mask);
                }
            }
            Opcode::Bar | Opcode::Barrier if self.mask != 0 && !self.ins.mods.has("warp") => {
                return self.block_barrier(group).map(Some);
            }
            _ => return Ok(None),
        }
        Ok(Some(Flow::Continue))
    }

    fn branch(&mut self, group: usize, targets: &[(u32, u32)]) {
        let taken = targets.iter().fold(0, |all, t| all | t.1);
        let rest = self.group_mask & !taken;
        if let ([(target, _)], 0) = (targets, rest) {
            self.warp.move_group(group, *target);
            return;
        }
        self.warp.take_lanes(group, self.group_mask);
        for &(target, mask) in targets {
            self.warp.add_group(self.frame, target, mask);
        }
        self.warp.add_group(self.frame, self.pc + 1, rest);
    }

    /// `brx.idx index, table;`
    fn branch_table(&mut self, group: usize) -> Result<(), Fault> {
        let index = self.value(0)?;
        let Operand::Vector(labels) = self.operand(1)? else {
            return Err(Fault::invalid("branch table not found"));
        };
        let mut targets: Vec<(u32, u32)> = Vec::new();
        for lane in lanes_of(self.mask) {
            let Some(Operand::Label(label)) = labels.get(index[lane] as u32 as usize) else {
                let message = format!("branch table index {} out of range", index[lane] as u32);
                return Err(Fault::invalid(message).in_lane(lane));
            };
            match targets.iter_mut().find(|t| t.0 == *label) {
                Some(target) => target.1 |= 1 << lane,
                None => targets.push((*label, 1 << lane)),
            }
        }
        self.branch(group, &targets);
        Ok(())
    }

    fn call(&mut self, group: usize) -> Result<Flow, Fault> {
        let Some(call) = &self.ins.call else {
            return Err(Fault::invalid("malformed call"));
        };
        let index = match &call.target {
            CallTarget::Function(index) => *index,
            CallTarget::Printf => {
                self.printf(call)?;
                self.warp.move_group(group, self.pc + 1);
                return Ok(Flow::Continue);
            }
            CallTarget::AssertFail => {
                return Err(Fault::new(ErrorKind::Trap, "device-side assert failed"));
            }
            CallTarget::Undefined(name) => {
                return Err(Fault::unsupported(format!(
                    "call of undefined function `{name}`"
                )));
            }
            CallTarget::Indirect => {
                return Err(Fault::unsupported("calls through function pointers"));
            }
        };
        let callee = self.machine.module.function(index);
        if callee.params.len() != call.arguments.len() || callee.results.len() < call.results.len()
        {
            return Err(Fault::invalid(format!(
                "wrong number of arguments for `{}`",
                callee.name
            )));
        }
        let caller = &self.warp.frames[self.frame];
        if caller.depth >= MAX_DEPTH {
            return Err(Fault::invalid("recursion too deep"));
        }
        let caller_base = caller.local_base;
        let caller_bytes = self.machine.module.function(caller.function).local_bytes;
        let base = (caller_base + caller_bytes).next_multiple_of(16);
        let frame = Frame {
            function: index,
            registers: vec![[UNSET; WARP]; callee.registers as usize],
            local_base: base,
            depth: caller.depth + 1,
            back: Some(ReturnTo {
                frame: self.frame,
                pc: self.pc + 1,
                results: call.results.clone(),
            }),
            lanes: self.mask,
        };
        for lane in lanes_of(self.mask) {
            for (formal, actual) in callee.params.iter().zip(&call.arguments) {
                let (to, from) = (base + formal.offset, caller_base + actual.offset);
                self.copy_local(lane, to, from, formal.bytes)?;
            }
        }
        let rest = self.group_mask & !self.mask;
        self.warp.take_lanes(group, self.group_mask);
        self.warp.add_group(self.frame, self.pc + 1, rest);
        let frame = self.warp.new_frame(frame);
        self.warp.add_group(frame, 0, self.mask);
        Ok(Flow::Continue)
    }

    fn copy_local(&mut self, lane: usize, to: u64, from: u64, bytes: u64) -> Result<(), Fault> {
        for k in 0..bytes {
            let value = self.read_memory(lane, (Space::Local, from + k), 1)?;
            let at = self.locate(lane, (Space::Local, to + k), 1, Access::Write)?;
            // SAFETY: `locate` has checked the address.
            unsafe { memory::store(at, 1, value) };
        }
        Ok(())
    }

    /// A whole group returns from its function, or exits.
    pub(crate) fn leave(&mut self, group: usize, mask: u32) {
        self.warp.take_lanes(group, mask);
        self.leave_lanes(mask);
    }

    fn leave_lanes(&mut self, mask: u32) {
        if mask == 0 {
            return;
        }
        let frame = &mut self.warp.frames[self.frame];
        let (back, base, function) = (frame.back.clone(), frame.local_base, frame.function);
        frame.lanes &= !mask;
        match back {
            Some(back) if self.ins.opcode != Opcode::Exit => {
                let formals = self.machine.module.function(function).results.clone();
                let caller_base = self.warp.frames[back.frame].local_base;
                for lane in lanes_of(mask) {
                    for (formal, actual) in formals.iter().zip(&back.results) {
                        let ParamSlot { offset, bytes } = *formal;
                        // Both places are inside the frames, so this cannot fail.
                        let _ = self.copy_local(
                            lane,
                            caller_base + actual.offset,
                            base + offset,
                            bytes,
                        );
                    }
                }
                self.warp.add_group(back.frame, back.pc, mask);
            }
            _ => {
                for frame in &mut self.warp.frames {
                    frame.lanes &= !mask;
                }
                self.warp.kill_lanes(mask);
                self.block.live_threads -= mask.count_ones();
            }
        }
    }

    /// `bar.sync`, `bar.arrive`, `bar.red` and the `barrier.cta` forms.
    fn block_barrier(&mut self, group: usize) -> Result<Flow, Fault> {
        let mods = &self.ins.mods;
        if mods.has("cluster") {
            return Err(Fault::unsupported("cluster barriers"));
        }
        let reduce = mods.has("red");
        let first = usize::from(reduce);
        let operands = self.ins.operands.len() - usize::from(reduce);
        let id = self.uniform(self.operand(first)?)? as u32;
        let count = if operands > first + 1 {
            self.uniform(self.operand(first + 1)?)? as u32
        } else {
            0
        };
        if id > 15 || !count.is_multiple_of(32) {
            return Err(Fault::invalid(format!("barrier {id} with {count} threads")));
        }
        let mut votes = 0;
        let mut reduction = None;
        if reduce {
            let predicate = self.value(operands)?;
            votes = lanes_of(self.mask)
                .filter(|&l| predicate[l] & 1 != 0)
                .count() as u32;
            let Operand::Register(destination) = *self.operand(0)? else {
                return Err(Fault::invalid("bar.red without a destination"));
            };
            let operation = match () {
                _ if mods.has("popc") => ReductionOp::Popc,
                _ if mods.has("and") => ReductionOp::And,
                _ => ReductionOp::Or,
            };
            reduction = Some(Reduction {
                destination,
                operation,
            });
        }
        let barrier = BarrierKey { id, count };
        self.block.arrive(barrier, self.mask.count_ones(), votes);
        if mods.has("arrive") {
            self.warp.move_group(group, self.pc + 1);
            return Ok(Flow::Yield);
        }
        let rest = self.group_mask & !self.mask;
        self.warp.take_lanes(group, self.group_mask);
        self.warp.add_group(self.frame, self.pc + 1, rest);
        self.block.waiting.push(Waiting {
            barrier,
            warp: self.warp.index,
            frame: self.frame,
            pc: self.pc + 1,
            mask: self.mask,
            reduction,
        });
        Ok(Flow::Yield)
    }
}

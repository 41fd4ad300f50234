//! Which registers stand in one place.
//!
//! A compiler gives every value a register of its own: a kernel of unrolled loops has thousands, of which
//! a hundred hold something at a time. Registers whose values are not needed together share a place of
//! the frame, so that a warp is small: M. Poletto and V. Sarkar, "Linear Scan Register Allocation", 1999.
//! With `a = 1; b = a + 1; c = b + 1`, `c` stands where `a` stood.
//!
//! A register that may be read before it is written keeps its place to itself, and so still reads as one
//! that nobody has written; so does a sum of `wgmma`, which is watched by its place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::ir::{Function, Instruction, Opcode, Operand};

/// Gives the registers of a function their places.
pub(super) fn share_places(function: &mut Function) {
    let code = &function.code;
    let mut lives = vec![Life::NONE; function.registers as usize];
    let blocks = live_blocks(code, lives.len());
    for block in &blocks {
        block.live_in.each(|r| lives[r].extend(block.start));
        block.live_out.each(|r| lives[r].extend(block.end - 1));
    }
    for (at, ins) in code.iter().enumerate() {
        let mut extend = |r: usize| lives[r].extend(at);
        read_registers(ins, &mut extend);
        written_registers(ins, &mut extend);
        if let (Opcode::Wgmma, Some(sums)) = (ins.opcode, ins.operands.first()) {
            registers_of(sums, &mut |r| lives[r] = Life::WHOLE);
        }
    }
    if let Some(first) = blocks.first() {
        first.live_in.each(|r| lives[r] = Life::WHOLE);
    }
    let (places, count) = places(&lives);
    function.registers = count;
    for ins in &mut function.code {
        if let Some((register, _)) = &mut ins.guard {
            *register = places[*register as usize];
        }
        ins.operands.iter_mut().for_each(|o| rename(o, &places));
    }
}

/// The first and the last instruction at which a register is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Life {
    first: usize,
    last: usize,
}

impl Life {
    const NONE: Life = Life {
        first: usize::MAX,
        last: 0,
    };
    const WHOLE: Life = Life {
        first: 0,
        last: usize::MAX,
    };

    fn extend(&mut self, at: usize) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
    }
}

/// The place of every register, and how many places there are.
fn places(lives: &[Life]) -> (Vec<u32>, u32) {
    let used = |&r: &usize| lives[r] != Life::NONE;
    let mut order: Vec<usize> = (0..lives.len()).filter(used).collect();
    order.sort_unstable_by_key(|&r| lives[r]);
    let (mut places, mut count) = (vec![0; lives.len()], 0);
    // The one that is free first on top.
    let mut taken = BinaryHeap::new();
    for register in order {
        let Life { first, last } = lives[register];
        // What an instruction reads and writes never shares a place: it may write before it has read all.
        let place = match taken.peek() {
            Some(&Reverse((end, place))) if end < first => {
                taken.pop();
                place
            }
            _ => {
                count += 1;
                count - 1
            }
        };
        places[register] = place;
        taken.push(Reverse((last, place)));
    }
    (places, count)
}

/// Instructions that run one after another, and whose values are needed before and behind them.
struct BasicBlock {
    start: usize,
    end: usize,
    /// Indices of blocks.
    successors: Vec<usize>,
    written: Registers,
    live_in: Registers,
    live_out: Registers,
}

/// The blocks of a body, by the usual backward iteration to a fixed point.
fn live_blocks(code: &[Instruction], registers: usize) -> Vec<BasicBlock> {
    let mut blocks = basic_blocks(code, registers);
    let mut changed = true;
    while changed {
        changed = false;
        for at in (0..blocks.len()).rev() {
            let mut live_out = std::mem::take(&mut blocks[at].live_out);
            for &next in &blocks[at].successors {
                live_out.insert_all(&blocks[next].live_in);
            }
            let block = &mut blocks[at];
            changed |= block.live_in.insert_but(&live_out, &block.written);
            block.live_out = live_out;
        }
    }
    blocks
}

/// The blocks of a body; `live_in` is what they themselves read of it.
fn basic_blocks(code: &[Instruction], registers: usize) -> Vec<BasicBlock> {
    let mut starts = vec![0];
    for (at, ins) in code.iter().enumerate().filter(|(_, ins)| is_jump(ins)) {
        starts.push(at + 1);
        starts.extend(targets(ins));
    }
    starts.retain(|&start| start < code.len());
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([code.len()]);
    let block = |(&start, end): (&usize, usize)| {
        let mut written = Registers::none_of(registers);
        let mut live_in = written.clone();
        for ins in &code[start..end] {
            read_registers(ins, &mut |r| {
                if !written.has(r) {
                    live_in.insert(r);
                }
            });
            written_registers(ins, &mut |r| written.insert(r));
        }
        let last = &code[end - 1];
        let goes_on = (!is_jump(last) || last.guard.is_some()).then_some(end);
        let next = targets(last).chain(goes_on);
        BasicBlock {
            start,
            end,
            successors: next
                .filter_map(|at| starts.binary_search(&at).ok())
                .collect(),
            live_out: Registers::none_of(registers),
            live_in,
            written,
        }
    };
    starts.iter().zip(ends).map(block).collect()
}

/// Whether the next instruction is not always the one that stands next.
fn is_jump(ins: &Instruction) -> bool {
    matches!(
        ins.opcode,
        Opcode::Bra | Opcode::BrxIdx | Opcode::Ret | Opcode::Exit
    )
}

/// Where a jump may lead.
fn targets(ins: &Instruction) -> impl Iterator<Item = usize> + '_ {
    let parts = ins.operands.iter().flat_map(|operand| match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    });
    parts.filter_map(|operand| match operand {
        Operand::Label(at) => Some(*at as usize),
        _ => None,
    })
}

/// How many operands, from the first, an instruction surely overwrites in every lane that runs it, and
/// does not read. None where that is not known: then they count as read.
fn overwritten(ins: &Instruction) -> usize {
    use Opcode::*;
    let known = matches!(
        ins.opcode,
        Abs | Add
            | And
            | Atom
            | Bfe
            | Bfi
            | Bfind
            | Brev
            | Clz
            | Copysign
            | Cos
            | Cvt
            | Cvta
            | Div
            | Ex2
            | Fma
            | Isspacep
            | Ld
            | Ldmatrix
            | Ldu
            | Lg2
            | Lop3
            | Mad
            | Max
            | Min
            | Mma
            | Mov
            | Mul
            | Neg
            | Not
            | Or
            | Popc
            | Prmt
            | Rcp
            | Rem
            | Rsqrt
            | Selp
            | Set
            | Setp
            | Shf
            | Shfl
            | Shl
            | Shr
            | Sin
            | Slct
            | Sqrt
            | Sub
            | Tanh
            | Testp
            | Vote
            | Xor
    );
    usize::from(known && ins.guard.is_none())
}

fn read_registers(ins: &Instruction, f: &mut impl FnMut(usize)) {
    if let Some((register, _)) = ins.guard {
        f(register as usize);
    }
    for operand in ins.operands.iter().skip(overwritten(ins)) {
        registers_of(operand, f);
    }
}

fn written_registers(ins: &Instruction, f: &mut impl FnMut(usize)) {
    for operand in ins.operands.iter().take(overwritten(ins)) {
        registers_of(operand, f);
    }
}

fn registers_of(operand: &Operand, f: &mut impl FnMut(usize)) {
    match operand {
        Operand::Register(r) | Operand::Negated(r) => f(*r as usize),
        Operand::Vector(parts) => parts.iter().for_each(|part| registers_of(part, f)),
        Operand::Memory(base, _) => registers_of(base, f),
        _ => {}
    }
}

fn rename(operand: &mut Operand, places: &[u32]) {
    match operand {
        Operand::Register(r) | Operand::Negated(r) => *r = places[*r as usize],
        Operand::Vector(parts) => parts.iter_mut().for_each(|part| rename(part, places)),
        Operand::Memory(base, _) => rename(base, places),
        _ => {}
    }
}

/// A set of registers.
#[derive(Clone, Default)]
struct Registers {
    words: Vec<u64>,
}

impl Registers {
    fn none_of(registers: usize) -> Self {
        Registers {
            words: vec![0; registers.div_ceil(64)],
        }
    }

    fn has(&self, register: usize) -> bool {
        self.words[register / 64] >> (register % 64) & 1 != 0
    }

    fn insert(&mut self, register: usize) {
        self.words[register / 64] |= 1 << (register % 64);
    }

    fn insert_all(&mut self, others: &Registers) {
        for (word, other) in self.words.iter_mut().zip(&others.words) {
            *word |= other;
        }
    }

    /// Inserts all of `others` that are not in `but`; whether any was new.
    fn insert_but(&mut self, others: &Registers, but: &Registers) -> bool {
        let mut new = 0;
        for (word, (other, but)) in self
            .words
            .iter_mut()
            .zip(others.words.iter().zip(&but.words))
        {
            new |= other & !but & !*word;
            *word |= other & !but;
        }
        new != 0
    }

    fn each(&self, mut f: impl FnMut(usize)) {
        for (at, word) in self.words.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                f(64 * at + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::parse_module;

    fn registers(body: &str) -> u32 {
        let text =
            format!(".version 8.0\n.target sm_80\n.visible .entry k(.param .u64 p) {{ {body} }}");
        parse_module(&text).unwrap().kernel("k").unwrap().registers
    }

    #[test]
    fn values_that_are_not_needed_together_share_a_place() {
        let mut chain = ".reg .b32 %r<1000>; mov.u32 %r0, 1;".to_string();
        for r in 1..1000 {
            chain += &format!("add.u32 %r{r}, %r{}, 1;", r - 1);
        }
        assert_eq!(registers(&(chain + "ret;")), 2);
        // Needed together at the end.
        assert_eq!(
            registers(
                ".reg .b32 %r<5>; mov.u32 %r0, 1; mov.u32 %r1, 2; mov.u32 %r2, 3;
                 add.u32 %r3, %r0, %r1; add.u32 %r4, %r3, %r2; ret;"
            ),
            4
        );
    }

    #[test]
    fn what_a_loop_needs_again_keeps_its_place() {
        // %r0 is read at the head of the loop, so it lives to its end, where %r2 and %r3 take turns.
        assert_eq!(
            registers(
                ".reg .b32 %r<4>; .reg .pred %p<1>;
                 mov.u32 %r0, 1; mov.u32 %r1, 0;
                 $top: add.u32 %r1, %r1, %r0;
                 mov.u32 %r2, 5; setp.lt.u32 %p0, %r1, %r2;
                 @%p0 bra $top; ret;"
            ),
            4
        );
    }

    #[test]
    fn what_may_be_read_unwritten_shares_with_nobody() {
        let guarded = "setp.eq.u32 %p0, %r1, 7; @%p0 mov.u32 %r2, 1; add.u32 %r3, %r2, 1; ret;";
        let declared = ".reg .b32 %r<4>; .reg .pred %p<1>; mov.u32 %r0, 1; add.u32 %r1, %r0, 1;";
        // %r0 and %p0 share, and %r1 and %r3; %r2 is written only where %p0 is true.
        assert_eq!(registers(&format!("{declared}{guarded}")), 3);
    }
}

//! `mbarrier.*`.
//!
//! PTX ISA: "Parallel Synchronization: mbarrier". The object is 64 opaque bits; here:
//! phase (1) | expected arrivals (15) | pending arrivals (15) | pending bytes + 2^32 (33).

use super::Context;
use crate::block::Block;
use crate::error::{ErrorKind, Fault};
use crate::ir::Operand;
use crate::memory::WINDOW_MASK;
use crate::warp::{lanes_of, WARP};

const TX_BIAS: i64 = 1 << 32;

#[derive(Clone, Copy)]
struct State {
    phase: u64,
    expected: u64,
    pending: u64,
    bytes: i64,
}

impl State {
    fn decode(word: u64) -> Result<State, Fault> {
        let state = State {
            phase: word >> 63,
            expected: word >> 48 & 0x7fff,
            pending: word >> 33 & 0x7fff,
            bytes: (word & 0x1_ffff_ffff) as i64 - TX_BIAS,
        };
        // Memory is filled with ones before use.
        if state.expected == 0 || state.expected == 0x7fff {
            return Err(Fault::invalid("mbarrier is not initialised"));
        }
        Ok(state)
    }

    fn encode(self) -> u64 {
        self.phase << 63 | self.expected << 48 | self.pending << 33 | (self.bytes + TX_BIAS) as u64
    }
}

fn word_at(block: &Block, address: u64) -> Result<u64, Fault> {
    let address = address as usize;
    let bytes = block.shared.get(address..address + 8);
    let bytes = bytes
        .and_then(|b| b.try_into().ok())
        .map(u64::from_le_bytes);
    bytes.ok_or_else(|| Fault::new(ErrorKind::OutOfBounds, "mbarrier outside shared memory"))
}

fn set_word(block: &mut Block, address: u64, word: u64) -> Result<(), Fault> {
    word_at(block, address)?;
    let range = address as usize..address as usize + 8;
    block.shared[range.clone()].copy_from_slice(&word.to_le_bytes());
    block.shadow.mark_written(range);
    Ok(())
}

impl Context<'_, '_> {
    pub(crate) fn mbarrier(&mut self) -> Result<(), Fault> {
        let mods = &self.ins.mods;
        let is_memory = |o: &Operand| matches!(o, Operand::Memory(..));
        let at = self.ins.operands.iter().position(is_memory);
        let at = at.ok_or_else(|| Fault::invalid("mbarrier address expected"))?;
        let addresses = self.addresses(self.operand(at)?)?;
        let argument = match self.ins.operands.get(at + 1) {
            Some(operand) => self.read(operand)?,
            None => [1; WARP],
        };
        let mut result = [0; WARP];
        for lane in lanes_of(self.mask) {
            let address = addresses[lane] & WINDOW_MASK;
            if !address.is_multiple_of(8) {
                return Err(Fault::new(ErrorKind::Misaligned, "misaligned mbarrier").in_lane(lane));
            }
            let n = argument[lane];
            let outcome = match mods.get(0) {
                "init" => self.mbarrier_init(address, n),
                "inval" => set_word(self.block, address, u64::MAX),
                "arrive" | "arrive_drop" => {
                    if mods.has("noComplete") || mods.get(0) == "arrive_drop" {
                        return Err(Fault::unsupported("this form of mbarrier.arrive"));
                    }
                    result[lane] = word_at(self.block, address)?;
                    if mods.has("expect_tx") {
                        self.update(address, i64::from(n as u32), 1)
                    } else {
                        self.update(address, 0, n)
                    }
                }
                "expect_tx" => self.update(address, i64::from(n as u32), 0),
                "complete_tx" => self.update(address, -i64::from(n as u32), 0),
                "try_wait" | "test_wait" => {
                    let parity = mods.has("parity");
                    let done = self.poll(address, if parity { n & 1 } else { n >> 63 })?;
                    result[lane] = done.into();
                    Ok(())
                }
                _ => Err(Fault::unsupported("this mbarrier operation")),
            };
            outcome.map_err(|f| f.in_lane(lane))?;
        }
        if at > 0 {
            self.write_result(&result);
        }
        Ok(())
    }

    fn mbarrier_init(&mut self, address: u64, count: u64) -> Result<(), Fault> {
        if count == 0 || count >= 0x7fff {
            return Err(Fault::invalid(format!("mbarrier with {count} arrivals")));
        }
        let state = State {
            phase: 0,
            expected: count,
            pending: count,
            bytes: 0,
        };
        set_word(self.block, address, state.encode())
    }

    /// Has the phase with this parity completed? Late copies land now.
    fn poll(&mut self, address: u64, parity: u64) -> Result<bool, Fault> {
        self.land_bulk_copies(address)?;
        let state = State::decode(word_at(self.block, address)?)?;
        let done = state.phase != parity;
        if done {
            self.block.failed_polls = 0;
        } else {
            self.block.failed_polls += 1;
            self.block.yield_warp = true;
        }
        Ok(done)
    }

    fn update(&mut self, address: u64, bytes: i64, arrivals: u64) -> Result<(), Fault> {
        let mut state = State::decode(word_at(self.block, address)?)?;
        if arrivals > state.pending {
            return Err(Fault::invalid(
                "more arrivals on the mbarrier than it was set up for",
            ));
        }
        state.bytes += bytes;
        state.pending -= arrivals;
        if state.pending == 0 && state.bytes == 0 {
            state.phase ^= 1;
            state.pending = state.expected;
            self.block.epoch += 1;
            self.block.failed_polls = 0;
        }
        set_word(self.block, address, state.encode())
    }

    /// A bulk copy has delivered its bytes.
    pub(crate) fn complete_transaction(&mut self, mbarrier: u64, bytes: u64) -> Result<(), Fault> {
        self.update(mbarrier, -(bytes as i64), 0)
    }
}

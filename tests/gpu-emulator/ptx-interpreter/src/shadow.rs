//! The shadow of shared memory: who has touched what since when.
//!
//! PTX ISA: "Memory Consistency Model". One record stands for an aligned word of four bytes as long
//! as every access takes the whole word; the first access to a part of it gives each of its bytes a
//! record of its own, and a word whose bytes agree again goes back to one.

use crate::error::{ErrorKind, Fault};
use crate::memory::Checks;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    Atomic,
}

/// Who accesses, and when.
#[derive(Clone, Copy)]
pub(crate) struct Accessor {
    /// Index in the block.
    pub thread: u16,
    /// `bar.warp.sync` epoch of the warp (its low bits are enough).
    pub sync: u16,
    /// Barrier epoch of the block.
    pub epoch: u32,
    pub access: Access,
}

/// Bytes of a word.
const WORD: usize = 4;

pub(crate) struct Shadow {
    words: Vec<Record>,
    /// The bytes of words that are split; empty until there is one.
    bytes: Vec<[Record; WORD]>,
}

impl Shadow {
    pub(crate) fn new(bytes: usize) -> Self {
        Shadow {
            words: vec![Record::UNTOUCHED; bytes.div_ceil(WORD)],
            bytes: Vec::new(),
        }
    }

    /// Checks and records an access to `bytes` bytes at `offset`, which is aligned to them.
    #[inline]
    pub(crate) fn access(
        &mut self,
        offset: usize,
        bytes: usize,
        by: Accessor,
        checks: Checks,
    ) -> Result<(), Fault> {
        if bytes < WORD {
            let start = offset % WORD;
            return self.access_parts(offset / WORD, start..start + bytes, by, checks);
        }
        for word in offset / WORD..(offset + bytes) / WORD {
            let record = &mut self.words[word];
            if record.split {
                self.access_parts(word, 0..WORD, by, checks)?;
            } else if !record.access(by, checks) {
                return Err(record.fault(word * WORD, by));
            }
        }
        Ok(())
    }

    /// The same for a part of a word, or for a word that is split.
    fn access_parts(
        &mut self,
        word: usize,
        parts: std::ops::Range<usize>,
        by: Accessor,
        checks: Checks,
    ) -> Result<(), Fault> {
        if self.bytes.is_empty() {
            self.bytes = vec![[Record::UNTOUCHED; WORD]; self.words.len()];
        }
        let whole = &mut self.words[word];
        let records = &mut self.bytes[word];
        if !whole.split {
            *records = [*whole; WORD];
            whole.split = true;
        }
        for part in parts {
            if !records[part].access(by, checks) {
                return Err(records[part].fault(word * WORD + part, by));
            }
        }
        if records.iter().all(|record| *record == records[0]) {
            self.words[word] = records[0];
        }
        Ok(())
    }

    /// Marks bytes as initialised by the system (mbarrier objects, aligned to words).
    pub(crate) fn mark_written(&mut self, bytes: std::ops::Range<usize>) {
        for word in bytes.start / WORD..bytes.end.div_ceil(WORD) {
            self.words[word].mark_written();
            if let Some(records) = self.bytes.get_mut(word) {
                records.iter_mut().for_each(Record::mark_written);
            }
        }
    }
}

/// Nobody has touched it.
const NOBODY: u16 = 0xffff;
/// Threads of more than one warp have read it.
const MANY_WARPS: u16 = 0xfffe;
/// Several threads of one warp have read it: this bit plus the warp index.
const ONE_WARP: u16 = 0x4000;

/// What is known about one word or byte.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Record {
    writer: u16,
    reader: u16,
    /// Barrier epoch of the last write and read.
    write_epoch: u32,
    read_epoch: u32,
    /// `bar.warp.sync` epoch of the writer's warp.
    writer_sync: u16,
    atomic: bool,
    /// The bytes of this word have records of their own, which count.
    split: bool,
}

impl Record {
    const UNTOUCHED: Record = Record {
        writer: NOBODY,
        reader: NOBODY,
        write_epoch: 0,
        read_epoch: 0,
        writer_sync: 0,
        atomic: false,
        split: false,
    };

    fn mark_written(&mut self) {
        if self.writer == NOBODY {
            self.writer = 0;
        }
    }

    /// Records an access; false, and nothing recorded, when it breaks a rule.
    #[inline]
    fn access(&mut self, by: Accessor, checks: Checks) -> bool {
        if by.access == Access::Read && self.read_before(by) {
            return true;
        }
        let unwritten = by.access == Access::Read && self.writer == NOBODY;
        if checks.unwritten && unwritten || checks.races && self.conflicts(by) {
            return false;
        }
        self.record(by);
        true
    }

    /// Has the warp read this in a phase in which nobody wrote it? Then nothing is new.
    #[inline]
    fn read_before(&self, by: Accessor) -> bool {
        self.read_epoch == by.epoch
            && self.reader == ONE_WARP | (by.thread / 32)
            && self.write_epoch != by.epoch
            && self.writer != NOBODY
    }

    /// Is there a conflict with earlier accesses in the same barrier phase?
    ///
    /// Between lanes of one warp, a write followed by an access of another lane needs a
    /// `bar.warp.sync` in between; a read followed by a write of another lane is let pass.
    #[inline]
    fn conflicts(&self, by: Accessor) -> bool {
        self.conflicts_with_write(by)
            || (by.access != Access::Read
                && self.reader != NOBODY
                && self.read_epoch == by.epoch
                && self.read_by_other_warp(by.thread / 32))
    }

    #[inline]
    fn conflicts_with_write(&self, by: Accessor) -> bool {
        if self.write_epoch != by.epoch || self.writer == by.thread || self.writer == NOBODY {
            return false;
        }
        let both_atomic = by.access == Access::Atomic && self.atomic;
        let ordered = self.writer / 32 == by.thread / 32 && self.writer_sync != by.sync;
        !both_atomic && !ordered
    }

    #[inline]
    fn read_by_other_warp(&self, warp: u16) -> bool {
        match self.reader {
            MANY_WARPS => true,
            r if r & ONE_WARP != 0 => r & !ONE_WARP != warp,
            r => r / 32 != warp,
        }
    }

    #[inline]
    fn record(&mut self, by: Accessor) {
        if by.access != Access::Read {
            self.writer = by.thread;
            self.write_epoch = by.epoch;
            self.writer_sync = by.sync;
            self.atomic = by.access == Access::Atomic;
            return;
        }
        let warp = by.thread / 32;
        self.reader = if self.read_epoch != by.epoch || self.reader == NOBODY {
            by.thread
        } else {
            match self.reader {
                r if r == by.thread => r,
                MANY_WARPS => MANY_WARPS,
                r if r & ONE_WARP != 0 && r & !ONE_WARP == warp => r,
                r if r & ONE_WARP == 0 && r / 32 == warp => ONE_WARP | warp,
                _ => MANY_WARPS,
            }
        };
        self.read_epoch = by.epoch;
    }

    /// The rule that an access has broken.
    #[cold]
    fn fault(&self, at: usize, by: Accessor) -> Fault {
        if by.access == Access::Read && self.writer == NOBODY {
            let message = format!("read of shared memory offset {at}, which nobody has written");
            return Fault::new(ErrorKind::UnwrittenShared, message);
        }
        let (thread, what) = (by.thread, self.describe(by));
        let message =
            format!("race on shared offset {at}: thread {thread} {what} in the same barrier phase");
        Fault::new(ErrorKind::Race, message)
    }

    fn describe(&self, by: Accessor) -> String {
        let verb = match by.access {
            Access::Read => "reads",
            Access::Write => "writes",
            Access::Atomic => "updates",
        };
        if self.conflicts_with_write(by) {
            return format!("{verb} after a write by thread {}", self.writer);
        }
        let reader = match self.reader {
            MANY_WARPS => "several threads".to_string(),
            r if r & ONE_WARP != 0 => format!("threads of warp {}", r & !ONE_WARP),
            r => format!("thread {r}"),
        };
        format!("{verb} after a read by {reader}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKS: Checks = Checks {
        races: true,
        unwritten: true,
    };

    fn by(thread: u16, epoch: u32, access: Access) -> Accessor {
        Accessor {
            thread,
            sync: 1,
            epoch,
            access,
        }
    }

    #[test]
    fn a_word_is_split_and_joined_again() {
        let mut shadow = Shadow::new(8);
        let mut access = |offset, bytes, by| shadow.access(offset, bytes, by, CHECKS).is_ok();
        // Two warps write the halves of a word: no conflict, and each half has its own writer.
        assert!(access(0, 2, by(0, 1, Access::Write)));
        assert!(!access(0, 4, by(0, 1, Access::Read)), "half is unwritten");
        assert!(access(2, 2, by(32, 1, Access::Write)));
        assert!(
            !access(2, 2, by(0, 1, Access::Read)),
            "written by another warp"
        );
        assert!(access(0, 4, by(64, 2, Access::Read)));
        assert!(
            !access(2, 1, by(96, 2, Access::Write)),
            "read by another warp"
        );
        // Written and read whole in later phases, its bytes agree.
        assert!(access(0, 4, by(64, 3, Access::Write)));
        assert!(access(0, 4, by(64, 4, Access::Read)));
        assert!(!shadow.words[0].split);
        assert!(!shadow.words[1].split && shadow.words[1] == Record::UNTOUCHED);
    }
}

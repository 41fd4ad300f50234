//! State of one warp: registers, call frames, and groups of lanes that execute together.
//!
//! PTX ISA: "SIMT Multiprocessor"; "Independent Thread Scheduling". Lanes at the same place form a
//! [`Group`]. The deepest call, then the lowest program counter, runs first, so that lanes which
//! took different branches meet again where the branches join.

use crate::async_copy::PendingCopy;
use crate::ir::ParamSlot;
use crate::products::Products;

/// Lanes per warp.
pub(crate) const WARP: usize = 32;

/// One register: a value per lane.
pub(crate) type Lanes = [u64; WARP];

/// What a register holds before it is written.
pub(crate) const UNSET: u64 = 0xdead_beef_dead_beef;

/// One call of a function by some lanes.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// Index into `Module::functions`.
    pub function: usize,
    pub registers: Vec<Lanes>,
    /// Address of the frame in the local memory of each lane.
    pub local_base: u64,
    pub depth: u32,
    pub back: Option<ReturnTo>,
    /// Lanes that have not returned yet; the frame is reused when it is 0.
    pub lanes: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct ReturnTo {
    pub frame: usize,
    pub pc: u32,
    pub results: Vec<ParamSlot>,
}

/// Lanes that are at the same instruction of the same frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub frame: usize,
    pub pc: u32,
    pub mask: u32,
    /// Waits at a warp-wide instruction for the other lanes of the member mask.
    pub parked: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Warp {
    pub index: usize,
    pub frames: Vec<Frame>,
    pub groups: Vec<Group>,
    /// Lanes that exist and have not exited.
    pub live: u32,
    /// Counts `bar.warp.sync`; used by the race check.
    pub sync_epoch: u32,
    /// Per lane: copies not yet committed.
    pub open_copies: Vec<Vec<PendingCopy>>,
    /// Per lane: committed groups, oldest first.
    pub copy_groups: Vec<Vec<Vec<PendingCopy>>>,
    pub products: Products,
    /// Per lane local memory, grown on demand.
    pub local: Vec<Vec<u8>>,
}

impl Warp {
    /// A warp whose first `threads` lanes exist.
    pub(crate) fn new(index: usize, threads: u32, function: usize, registers: u32) -> Self {
        let live = if threads >= 32 {
            u32::MAX
        } else {
            (1 << threads) - 1
        };
        let frame = Frame {
            function,
            registers: vec![[UNSET; WARP]; registers as usize],
            lanes: live,
            ..Frame::default()
        };
        let group = Group {
            frame: 0,
            pc: 0,
            mask: live,
            parked: false,
        };
        Warp {
            index,
            frames: vec![frame],
            groups: vec![group],
            live,
            sync_epoch: 1,
            open_copies: (0..WARP).map(|_| Vec::new()).collect(),
            copy_groups: (0..WARP).map(|_| Vec::new()).collect(),
            products: Products::default(),
            local: vec![Vec::new(); WARP],
        }
    }

    /// The group to run next.
    pub(crate) fn next_group(&self) -> Option<usize> {
        let ready = (0..self.groups.len()).filter(|&i| !self.groups[i].parked);
        ready.min_by_key(|&i| {
            let group = &self.groups[i];
            let depth = self.frames[group.frame].depth;
            (u32::MAX - depth, group.pc)
        })
    }

    /// Adds lanes at a place, joining a group that is already there.
    pub(crate) fn add_group(&mut self, frame: usize, pc: u32, mask: u32) {
        if mask == 0 {
            return;
        }
        match (self.groups.iter_mut()).find(|g| g.frame == frame && g.pc == pc) {
            Some(group) => {
                group.mask |= mask;
                group.parked = false;
            }
            None => self.groups.push(Group {
                frame,
                pc,
                mask,
                parked: false,
            }),
        }
    }

    /// Moves a whole group to another place in its frame.
    pub(crate) fn move_group(&mut self, index: usize, pc: u32) {
        if self.groups.len() == 1 {
            self.groups[index].pc = pc;
            self.groups[index].parked = false;
            return;
        }
        let group = self.groups.swap_remove(index);
        self.add_group(group.frame, pc, group.mask);
    }

    /// Takes lanes out of a group (which disappears when empty).
    pub(crate) fn take_lanes(&mut self, index: usize, mask: u32) {
        self.groups[index].mask &= !mask;
        if self.groups[index].mask == 0 {
            self.groups.swap_remove(index);
        }
    }

    /// Ends threads for good. Others that wait for them get another look.
    pub(crate) fn kill_lanes(&mut self, mask: u32) {
        self.live &= !mask;
        for group in &mut self.groups {
            group.parked = false;
        }
    }

    /// A free frame slot.
    pub(crate) fn new_frame(&mut self, frame: Frame) -> usize {
        match self.frames.iter().position(|f| f.lanes == 0) {
            Some(slot) => {
                self.frames[slot] = frame;
                slot
            }
            None => {
                self.frames.push(frame);
                self.frames.len() - 1
            }
        }
    }
}

/// The lanes named in a mask.
pub(crate) fn lanes_of(mask: u32) -> impl Iterator<Item = usize> + Clone {
    (0..WARP).filter(move |lane| mask >> lane & 1 != 0)
}

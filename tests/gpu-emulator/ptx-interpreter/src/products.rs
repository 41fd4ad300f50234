//! Products of a warpgroup, from when they are started until they are waited for, as one warp sees them.
//!
//! PTX ISA: "Asynchronous Warpgroup Level Matrix Instructions", "wgmma.fence", "wgmma.wait_group".
//! A product is formed when it is started. Until it is waited for, a device may not have read its operands
//! or written its sums: whoever touches these, or changes those, is wrong.

use std::collections::{BTreeMap, VecDeque};

/// A register of a frame: of the warp, all lanes.
pub(crate) type Place = (usize, u32);

/// The words of a matrix in shared memory, and where they lie.
pub(crate) type Words = Vec<(u64, u64)>;

/// A product that runs.
#[derive(Debug)]
pub(crate) struct Product {
    pub sums: Vec<Place>,
    pub operands: [Words; 2],
}

#[derive(Debug, Default)]
pub(crate) struct Products {
    /// Registers that have held sums; how many products that run add to each.
    sums: BTreeMap<Place, usize>,
    /// Nothing but products has touched sums since `wgmma.fence`.
    fenced: bool,
    /// Not in a group yet.
    open: Vec<Product>,
    /// Oldest first.
    groups: VecDeque<Vec<Product>>,
}

/// Why an access to a register is wrong.
pub(crate) const RUNNING: &str =
    "a sum of wgmma is touched before wgmma.wait_group has waited for its product";

impl Products {
    pub(crate) fn fence(&mut self) {
        self.fenced = true;
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced
    }

    pub(crate) fn start(&mut self, product: Product) {
        for place in &product.sums {
            *self.sums.entry(*place).or_default() += 1;
        }
        self.open.push(product);
    }

    pub(crate) fn commit(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }

    /// Takes what is done when all groups but the last `running` are.
    pub(crate) fn finish(&mut self, running: usize) -> Vec<Product> {
        let done = self.groups.len().saturating_sub(running);
        let done: Vec<Product> = self.groups.drain(..done).flatten().collect();
        for place in done.iter().flat_map(|product| &product.sums) {
            *self.sums.entry(*place).or_insert(1) -= 1;
        }
        done
    }

    /// Whether there are sums, so that accesses must be told.
    #[inline]
    pub(crate) fn has_sums(&self) -> bool {
        !self.sums.is_empty()
    }

    /// Something else than a product reads or writes a register; false when it must not.
    pub(crate) fn touch(&mut self, place: Place) -> bool {
        match self.sums.get(&place) {
            None => true,
            Some(0) => {
                self.fenced = false;
                true
            }
            Some(_) => false,
        }
    }
}

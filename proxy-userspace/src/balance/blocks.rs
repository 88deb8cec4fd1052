//! Where in the kernel's array of endpoint slots each table stands.
//!
//! Owns the array's space. A table is placed once and never changed: the same
//! content is the same block. Must never hand out space that a connect could
//! still be looking at: a block that the kernel's tables do not name any more
//! rests for [`GRACE`] first. Blocks of an earlier process are known by what
//! the kernel's tables name, and treated alike.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use proxy_common::{Block, BlockGeneration, EndpointSlot};

use super::Masses;

/// How long a block that nothing names any more stays as it is. A connect holds
/// one for microseconds.
pub const GRACE: Duration = Duration::from_secs(2);

/// No place for one more table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ENDPOINTS has no {wanted} slots in a row left of its {capacity}: nothing was changed; have fewer endpoints behind tcp and tls ports, or, if many services changed within seconds, apply again"
)]
pub struct NoRoom {
    /// Slots wanted.
    pub wanted: usize,
    /// Slots of the array.
    pub capacity: u32,
}

/// A table in its place.
#[derive(Debug)]
struct Held {
    block: Block,
    /// `None`: of an earlier process.
    content: Option<(Arc<Masses>, Arc<[EndpointSlot]>)>,
}

/// The space of the array.
#[derive(Debug)]
pub struct Blocks {
    capacity: u32,
    next: u32,
    /// Offset and length of what is free; neighbours are joined.
    free: BTreeMap<u32, u32>,
    /// By offset.
    held: BTreeMap<u32, Held>,
    offsets: HashMap<Arc<Masses>, u32>,
    /// When they left, offset and length, oldest first.
    resting: VecDeque<(Instant, u32, u32)>,
    /// Offsets of what was placed since the last [`Blocks::begin`].
    fresh: Vec<u32>,
    /// What the kernel's tables named at the last [`Blocks::begin`].
    known: OrdMap<Block, usize>,
}

impl Blocks {
    /// An array of `capacity` slots; generations count from `base`, which no
    /// other life of weir may have used.
    pub fn new(capacity: u32, base: u32) -> Self {
        Self {
            capacity,
            next: base,
            free: BTreeMap::from([(0, capacity)]),
            held: BTreeMap::new(),
            offsets: HashMap::new(),
            resting: VecDeque::new(),
            fresh: Vec::new(),
            known: OrdMap::new(),
        }
    }

    /// Before a round of placing: `present` are the blocks that the kernel's
    /// tables name. Others begin to rest, and what has rested is free again.
    /// Looks only at what is not as it was the last time.
    pub fn begin(&mut self, present: &OrdMap<Block, usize>, now: Instant) {
        while let Some((since, offset, len)) = self.resting.front().copied() {
            if now.duration_since(since) < GRACE {
                break;
            }
            self.resting.pop_front();
            self.give_back(offset, len);
        }
        let known = std::mem::replace(&mut self.known, present.clone());
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for item in known.diff(present) {
            match item {
                DiffItem::Add(block, _) => new.push(*block),
                DiffItem::Remove(block, _) => gone.push(block.offset),
                DiffItem::Update { .. } => {}
            }
        }
        gone.append(&mut self.fresh);
        for offset in gone {
            let held = self.held.get(&offset);
            if held.is_some_and(|held| !present.contains_key(&held.block))
                && let Some(block) = self.forget(offset)
            {
                self.resting.push_back((now, block.offset, block.len));
            }
        }
        for block in new {
            if block.len > 0 && !self.held.contains_key(&block.offset) && self.carve(block) {
                let content = None;
                self.held.insert(block.offset, Held { block, content });
            }
        }
    }

    /// The block with this content: the one that stands already, or a new one.
    pub fn place(&mut self, masses: Masses) -> Result<(Block, Arc<[EndpointSlot]>), NoRoom> {
        if masses.is_empty() {
            return Ok((Block::EMPTY, Arc::default()));
        }
        let known = self.offsets.get(&masses);
        if let Some(Held {
            block,
            content: Some((_, slots)),
        }) = known.and_then(|offset| self.held.get(offset))
        {
            return Ok((*block, Arc::clone(slots)));
        }
        let no_room = NoRoom {
            wanted: masses.len(),
            capacity: self.capacity,
        };
        let len = u32::try_from(masses.len()).map_err(|_| no_room)?;
        let offset = self.take(len).ok_or(no_room)?;
        let block = Block {
            offset,
            len,
            generation: self.generation(),
            scale: masses.scale(),
        };
        let slots: Arc<[EndpointSlot]> = masses.table(block.generation).into();
        let masses = Arc::new(masses);
        self.offsets.insert(Arc::clone(&masses), offset);
        let content = Some((masses, Arc::clone(&slots)));
        self.held.insert(offset, Held { block, content });
        self.fresh.push(offset);
        Ok((block, slots))
    }

    /// Takes back what this round placed: nothing of it was written.
    pub fn cancel(&mut self) {
        for offset in std::mem::take(&mut self.fresh) {
            if let Some(block) = self.forget(offset) {
                self.give_back(block.offset, block.len);
            }
        }
    }

    fn generation(&mut self) -> BlockGeneration {
        let generation = self.next.max(1);
        self.next = generation.wrapping_add(1);
        BlockGeneration(generation)
    }

    fn forget(&mut self, offset: u32) -> Option<Block> {
        let held = self.held.remove(&offset)?;
        if let Some((masses, _)) = held.content {
            self.offsets.remove(&masses);
        }
        Some(held.block)
    }

    /// The first place that is large enough.
    fn take(&mut self, len: u32) -> Option<u32> {
        let (offset, size) = self
            .free
            .iter()
            .find(|(_, size)| **size >= len)
            .map(|(offset, size)| (*offset, *size))?;
        self.free.remove(&offset);
        if size > len {
            self.free.insert(offset + len, size - len);
        }
        Some(offset)
    }

    /// Takes exactly the place of `block`; false if it is not free.
    fn carve(&mut self, block: Block) -> bool {
        let Some((&offset, &size)) = self.free.range(..=block.offset).next_back() else {
            return false;
        };
        let (end, wanted) = (
            offset + size,
            u64::from(block.offset) + u64::from(block.len),
        );
        if wanted > u64::from(end) {
            return false;
        }
        self.free.remove(&offset);
        if block.offset > offset {
            self.free.insert(offset, block.offset - offset);
        }
        let after = block.offset + block.len;
        if end > after {
            self.free.insert(after, end - after);
        }
        true
    }

    fn give_back(&mut self, offset: u32, len: u32) {
        let (mut offset, mut len) = (offset, len);
        if let Some((&before, &size)) = self.free.range(..offset).next_back()
            && before + size == offset
        {
            self.free.remove(&before);
            offset = before;
            len += size;
        }
        if let Some(size) = self.free.remove(&(offset + len)) {
            len += size;
        }
        self.free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests;

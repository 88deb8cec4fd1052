//! Which endpoint of a balanced service port a connect goes to.
//!
//! Owns the layout of the endpoint slots and the choice among them: an alias
//! table, so that a choice costs the same for two endpoints and for thousands.
//! Must stay pure: the random word comes from the caller, so that the hook,
//! tests and whoever explains a choice get the same answer from the same word.
//!
//! A [`Block`] is a run of slots in one flat array. It is written before
//! anything refers to it, never changed after, and its place is used again only
//! after a grace. Every slot repeats the block's generation: who still holds a
//! block that is gone sees another number, and reads the service again.

use crate::addr::{Addr, Destination, Port};
use crate::cells::Cells;
use crate::decide::Tables;
use crate::id::{BlockGeneration, RuleId, ServiceId, WorkloadId};
use crate::service::ServiceKey;
use crate::table::Workload;
use crate::transport::Transport;

/// Key of `ROUTES`: a service port whose route rules tell sources apart, and one source.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The service port.
    pub service: ServiceId,
    /// Who dials.
    pub workload: WorkloadId,
    /// 1 where an IPv6 address was dialled, else 0.
    pub v6: u32,
}

/// The endpoints of a service port for some sources: slots `offset` to
/// `offset + len` of `ENDPOINTS`. No slots: no endpoint is ready.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Its first slot.
    pub offset: u32,
    /// How many slots it has.
    pub len: u32,
    /// Its number, which every slot repeats.
    pub generation: BlockGeneration,
    /// What the mass of one slot sums to: thresholds count in this.
    pub scale: u32,
}

impl Block {
    /// Nobody is there.
    pub const EMPTY: Self = Self {
        offset: 0,
        len: 0,
        generation: BlockGeneration::NONE,
        scale: 0,
    };
}

/// Where connections to a service port go, for all sources or one: value of
/// `ROUTES`, and part of the service's entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The endpoints to choose from.
    pub block: Block,
    /// The route rule that says so; [`RuleId::NONE`]: none does, all endpoints are meant.
    pub rule: RuleId,
}

impl Route {
    /// To nobody.
    pub const EMPTY: Self = Self {
        block: Block::EMPTY,
        rule: RuleId::NONE,
    };
}

/// Where an endpoint listens. Port 0: nobody, for the share of a route that
/// no ready endpoint serves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The endpoint's address.
    pub addr: Addr,
    /// Its port.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
}

impl Target {
    /// Nobody: who draws this is refused.
    pub const NOBODY: Self = Self {
        addr: Addr::UNSPECIFIED,
        port: Port(0),
        pad: 0,
    };

    /// The endpoint that listens at `at`.
    pub const fn new(at: Destination) -> Self {
        Self {
            addr: at.addr,
            port: at.port,
            pad: 0,
        }
    }

    /// Orders targets as their derived order does, in words that the verifier
    /// likes to compare.
    #[inline(always)]
    const fn rank(&self) -> (u64, u64, u16) {
        let [a, b, c, d] = self.addr.words();
        (
            (a as u64) << 32 | b as u64,
            (c as u64) << 32 | d as u64,
            self.port.0,
        )
    }

    /// Where to dial; `None` for [`Self::NOBODY`].
    #[inline(always)]
    pub const fn destination(&self) -> Option<Destination> {
        if self.port.0 == 0 {
            None
        } else {
            Some(Destination {
                addr: self.addr,
                port: self.port,
            })
        }
    }
}

/// One slot of `ENDPOINTS`: two endpoints that share its mass.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointSlot {
    /// That of its block. 0: never written.
    pub generation: BlockGeneration,
    /// Of the block's `scale`, how much belongs to `first`; the rest is `second`'s.
    pub threshold: u32,
    /// Who gets what is below the threshold.
    pub first: Target,
    /// Who gets the rest.
    pub second: Target,
}

/// What came of a draw. A plain value, whole in every case: what an enum leaves
/// open for one of its arms is a register that the verifier finds unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Whom to dial; [`Target::NOBODY`] where no endpoint is ready, or none for
    /// the share that was drawn.
    pub target: Target,
    /// The slots were not the block's own any more: nothing was drawn.
    pub stale: bool,
}

impl Draw {
    const STALE: Self = Self {
        target: Target::NOBODY,
        stale: true,
    };

    const fn of(target: Target) -> Self {
        Self {
            target,
            stale: false,
        }
    }
}

/// Picks an endpoint of `block` by `random`; where the block turns out to be
/// gone, the service at `dst` is read again, once.
#[inline(always)]
pub fn choose<T: Tables>(
    tables: &T,
    workload: &Workload,
    transport: Transport,
    dst: Destination,
    block: Block,
    random: u32,
) -> Draw {
    let drawn = draw(tables, block, random);
    if !drawn.stale {
        return drawn;
    }
    let key = ServiceKey::new(workload.network, dst, transport);
    let again = tables
        .service(&key)
        .and_then(|entry| entry.route_for(tables, workload.id, &dst.addr));
    match again {
        Some(route) => draw(tables, route.block, random),
        None => drawn,
    }
}

/// One draw from a block.
///
/// The word is spread over slots first, and what is left of it over the slot's
/// mass, so a choice is off from the exact share by less than
/// `len * scale / 2^32` of it.
#[inline(always)]
pub fn draw<T: Tables>(tables: &T, block: Block, random: u32) -> Draw {
    if block.len == 0 {
        return Draw::of(Target::NOBODY);
    }
    let (index, rest) = spread(random, block.len);
    let Some(slot) = tables.endpoint(block.offset.wrapping_add(index)) else {
        return Draw::STALE;
    };
    if slot.generation.0 != block.generation.0 {
        return Draw::STALE;
    }
    let (mass, _) = spread(rest, block.scale);
    Draw::of(if mass < slot.threshold {
        slot.first
    } else {
        slot.second
    })
}

/// Halvings that find any slot of an array as large as the daemon ever makes one.
const HALVINGS: u32 = 25;

/// Whether `endpoint` is one of a block's own: the slots of a block are ordered
/// by `first`, and every endpoint is that of one of them. A block that is gone
/// lists nobody.
#[inline(always)]
pub fn lists<T: Tables, C: Cells>(tables: &T, cells: &C, block: Block, endpoint: &Target) -> bool {
    const LOW: usize = 0;
    const HIGH: usize = 1;
    let wanted = endpoint.rank();
    cells.put(LOW, 0);
    cells.put(HIGH, u64::from(block.len));
    let mut left = HALVINGS;
    while left > 0 {
        left -= 1;
        let (low, high) = (cells.get(LOW), cells.get(HIGH));
        if low >= high {
            break;
        }
        let middle = low.wrapping_add(high.wrapping_sub(low) / 2);
        #[expect(clippy::cast_possible_truncation, reason = "below the block's length")]
        let Some(slot) = tables.endpoint(block.offset.wrapping_add(middle as u32)) else {
            return false;
        };
        if slot.generation.0 != block.generation.0 {
            return false;
        }
        let found = slot.first.rank();
        if found == wanted {
            return true;
        }
        if found < wanted {
            cells.put(LOW, middle.wrapping_add(1));
        } else {
            cells.put(HIGH, middle);
        }
    }
    false
}

/// A number below `bound`, and what of the word was not used up.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
const fn spread(random: u32, bound: u32) -> (u32, u32) {
    let product = random as u64 * bound as u64;
    ((product >> 32) as u32, product as u32)
}

const _: () = {
    assert!(size_of::<RouteKey>() == 12);
    assert!(size_of::<Block>() == 16);
    assert!(size_of::<Route>() == 20);
    assert!(size_of::<Target>() == 20);
    assert!(size_of::<EndpointSlot>() == 48);
};

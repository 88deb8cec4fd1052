//! What the kernel half and the daemon share: addresses, the layout of every
//! map, and [`decide`].
//!
//! Owns the meaning of a verdict and the bytes of the maps. Must never
//! allocate, call a helper, read a clock or touch a map itself: the connect
//! hooks, the proxy, `weir explain` and the tests all run this very code.
#![no_std]
#![deny(unsafe_code)]

mod accelerate;
mod addr;
mod balance;
mod beat;
mod cells;
mod counter;
mod decide;
mod egress;
mod ending;
mod flow;
mod id;
mod older;
mod record;
mod service;
mod sieve;
mod table;
mod talk;
mod transport;

pub use accelerate::{Acceleration, Extent, Handed, OfferKey, Partner, Seat, Stage};
pub use addr::{Addr, Destination, Port};
pub use balance::{Block, Draw, EndpointSlot, Route, RouteKey, Target, choose, draw, lists};
pub use beat::{BEAT_AGE_MAX_NANOS, Beat};
pub use cells::{CELLS, Cells};
pub use counter::Counter;
pub use decide::{Decision, Reason, Tables, Verdict, decide};
pub use egress::{
    EgressAction, EgressEntry, EgressKey, Lengths, PortEntry, PortKey, Prefixes, V4_BITS, longest,
};
pub use ending::{Counted, Ending, Note, Outcome, Payload, TcpState};
pub use flow::{Event, EventKind, Flow, FlowKey};
pub use id::{
    BlockGeneration, NetnsCookie, NetworkId, PolicySetId, PortTableId, RuleId, ServiceId,
    WorkloadId,
};
pub use older::Older;
pub use record::{Impossible, Record};
pub use service::{ServiceAction, ServiceEntry, ServiceKey};
pub use sieve::{Enrolled, OwnAddresses};
pub use table::{
    AddressEntry, AddressKey, AddressKind, EgressDefault, LISTENERS_MAX, Listener, LocalEntry,
    LocalKey, NodeConfig, OnProxyDown, Workload,
};
pub use talk::{Heard, HeardKey, Peer, TALKS_MAX, Talk, Talking, Talks, Told};
pub use transport::Transport;

/// The version of every layout in this crate. Written to the pinned `ABI` map
/// and compared at takeover; raised with every change of a map's meaning.
pub const ABI_VERSION: u32 = 7;

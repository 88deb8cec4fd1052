//! The maps. Sizes are bounds: what does not fit is refused aloud by the
//! daemon or counted here; none but `HEARD` evicts.
//!
//! | map | writer | reader | deleted by |
//! | --- | --- | --- | --- |
//! | `ABI` | daemon at start | daemon at takeover | uninstall |
//! | `NODE` | daemon at start, and when acceleration changes | `connect`, `sendmsg`, `bind`, `weir_accelerate` | – |
//! | `BEAT` | daemon, five times a second | `connect` | – |
//! | `ENROLLED` | daemon at start, and on enrolment: before `WORKLOADS` grows, after it shrinks | who asks `WORKLOADS`, before it, but for the fence | – |
//! | `WORKLOADS` | daemon, on apply | `connect`, `sendmsg`, `recvmsg`, `bind`, fence, `weir_accelerate`; daemon at takeover | daemon |
//! | `LOCAL` | daemon, on enrolment | `connect`, `sendmsg`, `recvmsg`; daemon at takeover | daemon |
//! | `ADDRESSES` | daemon, on apply | `connect`, `sendmsg`, `recvmsg`; daemon at takeover | daemon |
//! | `SERVICES`, `ROUTES`, `EGRESS`, `EGRESS_LENGTHS`, `EGRESS_PORTS` | daemon, on apply | `connect`, `sendmsg`; daemon at takeover | daemon |
//! | `ENDPOINTS` | daemon, on apply | `connect`, `sendmsg` | overwritten, after a grace |
//! | `PENDING` | daemon (creates), `sock_ops` (counts) | `connect`; daemon | daemon |
//! | `PENDING_TOTAL` | `sock_ops` | `connect`, `sock_ops` | – |
//! | `FLOWS` | `sock_ops` at SYN | `sock_ops`; daemon, which counts them | `sock_ops`, at accept, CLOSE or a SYN of the same key |
//! | `NOTES` | `connect`, `sock_ops`, `weir_accelerate` | these, `sendmsg`, `getpeername` | `connect`, `sock_ops` at CLOSE, `sock_release` |
//! | `SOCKET_NOTES` | the same | the same | `connect`, or with the socket; void after CLOSE |
//! | `TALKS` | `connect`, `sendmsg` | these, `recvmsg` | with the socket |
//! | `TOLD` | `connect`, `sendmsg`, fence | the same | with the socket |
//! | `PEERS` | `connect` | daemon | `connect`, `sock_release` |
//! | `HEARD` | `connect`, `sendmsg`, `recvmsg` | the same | the oldest, when full |
//! | `ACCEPTED` | `sock_ops` | daemon, by descriptor | with the socket |
//! | `LISTENERS` | daemon, by descriptor | `connect` | with the socket |
//! | `OLDER` | daemon, on enrolment | daemon | daemon |
//! | `NEARBY` | daemon, on enrolment | `weir_accelerate`; daemon at takeover | daemon |
//! | `OFFERS` | `weir_accelerate` at SYN | `weir_accelerate` at accept; daemon, when nobody accelerates | the same, and `weir_accelerate` at CLOSE |
//! | `PARTNERS` | `connect`, `weir_accelerate`, `weir_redirect` | `weir_accelerate`, `weir_redirect` | `weir_accelerate`, or with the socket |
//! | `SEATS` | `weir_accelerate` | `weir_redirect` | with the socket's connection |
//! | `HANDED` | `weir_accelerate` (creates), `weir_redirect` (counts) | `sock_ops` at CLOSE, `weir_accelerate` at accept | `sock_ops`, at CLOSE |
//! | `EVENTS` | `connect`, `sendmsg`, fence | daemon | consumed |
//! | `ENDINGS` | `sock_ops`, `connect`, `sendmsg` | daemon | consumed |
//! | `COUNTERS` | hooks | daemon | – |

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf, SkStorage, SockHash};
use aya_ebpf::macros::btf_map;
use proxy_common::{
    AddressEntry, AddressKey, Beat, Counter, EgressEntry, EgressKey, Ending, EndpointSlot,
    Enrolled, Event, Flow, FlowKey, Handed, Heard, HeardKey, Lengths, LocalEntry, LocalKey,
    NetnsCookie, NodeConfig, Note, OfferKey, Older, Partner, Peer, PolicySetId, PortEntry, PortKey,
    Route, RouteKey, Seat, ServiceEntry, ServiceKey, Talking, Told, Workload, WorkloadId,
};

/// Configuration maps grow with what is applied; flow maps are preallocated
/// because a hook must not fail for want of memory.
const GROWS: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub static ABI: Array<u32, 1> = Array::new();

#[btf_map]
pub static NODE: Array<NodeConfig, 1> = Array::new();

#[btf_map]
pub static BEAT: Array<Beat, 1> = Array::new();

#[btf_map]
pub static ENROLLED: Array<Enrolled, 1> = Array::new();

#[btf_map]
pub static WORKLOADS: HashMap<NetnsCookie, Workload, 4_096, GROWS> = HashMap::new();

#[btf_map]
pub static LOCAL: HashMap<LocalKey, LocalEntry, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static ADDRESSES: HashMap<AddressKey, AddressEntry, 524_288, GROWS> = HashMap::new();

#[btf_map]
pub static SERVICES: HashMap<ServiceKey, ServiceEntry, 131_072, GROWS> = HashMap::new();

#[btf_map]
pub static ROUTES: HashMap<RouteKey, Route, 262_144, GROWS> = HashMap::new();

#[btf_map]
pub static ENDPOINTS: Array<EndpointSlot, 524_288> = Array::new();

#[btf_map]
pub static EGRESS: HashMap<EgressKey, EgressEntry, 262_144, GROWS> = HashMap::new();

#[btf_map]
pub static EGRESS_LENGTHS: HashMap<PolicySetId, Lengths, 16_384, GROWS> = HashMap::new();

#[btf_map]
pub static EGRESS_PORTS: HashMap<PortKey, PortEntry, 262_144, GROWS> = HashMap::new();

#[btf_map]
pub static PENDING: HashMap<WorkloadId, u64, 4_096> = HashMap::new();

#[btf_map]
pub static PENDING_TOTAL: Array<u64, 1> = Array::new();

#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, 65_536> = HashMap::new();

/// By the socket's cookie.
#[btf_map]
pub static NOTES: HashMap<u64, Note, 65_536> = HashMap::new();

#[btf_map]
pub static SOCKET_NOTES: SkStorage<Note> = SkStorage::new();

#[btf_map]
pub static TALKS: SkStorage<Talking> = SkStorage::new();

#[btf_map]
pub static TOLD: SkStorage<Told> = SkStorage::new();

#[btf_map]
pub static PEERS: HashMap<u64, Peer, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static HEARD: LruHashMap<HeardKey, Heard, 16_384> = LruHashMap::new();

#[btf_map]
pub static ACCEPTED: SkStorage<Flow> = SkStorage::new();

#[btf_map]
pub static LISTENERS: SkStorage<u32> = SkStorage::new();

#[btf_map]
pub static OLDER: HashMap<u64, Older, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static NEARBY: HashMap<AddressKey, NetnsCookie, 65_536, GROWS> = HashMap::new();

/// The cookie of the socket that dialled.
#[btf_map]
pub static OFFERS: HashMap<OfferKey, u64, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static PARTNERS: SkStorage<Partner> = SkStorage::new();

#[btf_map]
pub static SEATS: SockHash<Seat, 131_072> = SockHash::new();

/// By the cookie of the socket that dialled.
#[btf_map]
pub static HANDED: HashMap<u64, Handed, 65_536, GROWS> = HashMap::new();

#[btf_map]
pub static EVENTS: RingBuf<Event, 262_144> = RingBuf::new();

#[btf_map]
pub static ENDINGS: RingBuf<Ending, 524_288> = RingBuf::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

/// Adds one to `counter` on this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU slot; hooks of one CPU that interrupt each other
        // may at worst lose an increment.
        unsafe { *value += 1 };
    }
}

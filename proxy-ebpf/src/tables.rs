//! The kernel's side of [`proxy_common::Tables`]: one map look-up each.

use proxy_common::{
    Addr, AddressEntry, AddressKey, EgressEntry, EgressKey, EndpointSlot, Lengths, LocalKey,
    PolicySetId, PortEntry, PortKey, PortTableId, Prefixes, Route, RouteKey, ServiceEntry,
    ServiceKey, Tables, longest,
};

use crate::maps;

/// The configuration maps as `decide` wants them.
pub struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn is_local(&self, key: &LocalKey) -> bool {
        maps::LOCAL.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        // SAFETY: copied out at once; the kernel frees elements after a grace period.
        unsafe { maps::ADDRESSES.get(key) }.copied()
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        // SAFETY: as above.
        unsafe { maps::SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn route(&self, key: &RouteKey) -> Option<Route> {
        // SAFETY: as above.
        unsafe { maps::ROUTES.get(key) }.copied()
    }

    #[inline(always)]
    fn endpoint(&self, index: u32) -> Option<EndpointSlot> {
        maps::ENDPOINTS.get(index).copied()
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low half is the number"
    )]
    fn egress(&self, policy_set: PolicySetId, addr: &Addr) -> Option<EgressEntry> {
        let [a, b, c, d] = addr.words();
        let found = weir_longest(policy_set.0, a, b, c, d);
        (found & FOUND != 0).then_some(EgressEntry {
            port_table: PortTableId(found as u32),
        })
    }

    #[inline(always)]
    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        // SAFETY: as above.
        unsafe { maps::EGRESS_PORTS.get(key) }.copied()
    }
}

impl Prefixes for KernelTables {
    #[inline(always)]
    fn lengths(&self, policy_set: PolicySetId) -> Option<&Lengths> {
        // SAFETY: elements are freed after a grace period, later than this program ends.
        unsafe { maps::EGRESS_LENGTHS.get(policy_set) }
    }

    #[inline(always)]
    fn prefix(&self, key: &EgressKey) -> Option<EgressEntry> {
        // SAFETY: copied out at once, as above.
        unsafe { maps::EGRESS.get(key) }.copied()
    }
}

/// Beside the port table in what [`weir_longest`] returns: there is one.
const FOUND: u64 = 1 << 32;

/// The search for the longest egress prefix, of the address with these words. A function
/// of its own, known to the verifier by its types alone: it walks the loop once,
/// and not for every way that leads here.
// SAFETY: no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weir_longest(policy_set: u32, a: u32, b: u32, c: u32, d: u32) -> u64 {
    let addr = Addr::from_words([a, b, c, d]);
    match longest(&KernelTables, PolicySetId(policy_set), &addr) {
        Some(entry) => FOUND | u64::from(entry.port_table.0),
        None => 0,
    }
}

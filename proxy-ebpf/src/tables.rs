//! The kernel's side of [`proxy_common::Tables`]: one map look-up each.

use proxy_common::{
    AddressEntry, AddressKey, EgressEntry, EgressKey, EndpointSlot, Lengths, LocalKey, PolicySetId,
    PortEntry, PortKey, Route, RouteKey, ServiceEntry, ServiceKey, Tables,
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
    fn lengths(&self, policy_set: PolicySetId) -> Option<&Lengths> {
        // SAFETY: elements are freed after a grace period, later than this program ends.
        unsafe { maps::EGRESS_LENGTHS.get(policy_set) }
    }

    #[inline(always)]
    fn egress(&self, key: &EgressKey) -> Option<EgressEntry> {
        // SAFETY: copied out at once, as above.
        unsafe { maps::EGRESS.get(key) }.copied()
    }

    #[inline(always)]
    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        // SAFETY: as above.
        unsafe { maps::EGRESS_PORTS.get(key) }.copied()
    }
}

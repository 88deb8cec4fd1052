//! Keys and values of the configuration maps. The daemon writes them, the
//! hooks read them; each is sized by assertion and free of implicit padding.

use crate::accelerate::{Acceleration, Extent};
use crate::addr::{Addr, Port};
use crate::id::{NetnsCookie, NetworkId, PolicySetId, WorkloadId};
use crate::sieve::OwnAddresses;

/// Listeners a workload can have: one per local address, IPv4 and IPv6 in turn.
pub const LISTENERS_MAX: usize = 8;

/// What the mesh does with an external destination that no rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EgressDefault {
    /// `connect()` fails with EPERM.
    #[default]
    Deny,
    /// Straight through.
    Allow,
    /// Straight through, with an event that says which rule is missing.
    Audit,
}

/// What happens to a proxied connect while the daemon is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnProxyDown {
    /// ECONNREFUSED at once.
    #[default]
    Closed,
    /// Straight to the dialled address, counted.
    Open,
}

/// The proxy's listener on one local address of a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// The pod's own address that it is bound to.
    pub addr: Addr,
    /// The interface that holds the address; a socket bound to another cannot use it.
    pub ifindex: u32,
    /// Chosen by the kernel.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
}

/// An enrolled workload; value of `WORKLOADS`, keyed by [`NetnsCookie`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its number.
    pub id: WorkloadId,
    /// The network that its addresses belong to.
    pub network: NetworkId,
    /// Its egress rules.
    pub policy_set: PolicySetId,
    /// Flows that may be pending between `connect` and accept.
    pub pending_max: u32,
    /// An [`EgressDefault`], see [`Workload::egress_default`].
    pub egress_default: u8,
    /// An [`OnProxyDown`], see [`Workload::on_proxy_down`].
    pub on_proxy_down: u8,
    /// How many of `listeners` are in use.
    pub listeners_len: u16,
    /// An [`Acceleration`], see [`Workload::acceleration`].
    pub accelerate: u8,
    /// Always 0.
    pub pad: [u8; 3],
    /// Every address that `LOCAL` has of its namespace.
    pub own: OwnAddresses,
    /// The proxy's listeners in this workload's network namespace.
    pub listeners: [Listener; LISTENERS_MAX],
}

impl Workload {
    /// The default for external destinations. An unknown byte denies.
    #[inline(always)]
    pub const fn egress_default(&self) -> EgressDefault {
        match self.egress_default {
            1 => EgressDefault::Allow,
            2 => EgressDefault::Audit,
            _ => EgressDefault::Deny,
        }
    }

    /// What to do without a daemon. An unknown byte closes.
    #[inline(always)]
    pub const fn on_proxy_down(&self) -> OnProxyDown {
        match self.on_proxy_down {
            1 => OnProxyDown::Open,
            _ => OnProxyDown::Closed,
        }
    }

    /// What it asks for. An unknown byte asks for nothing.
    #[inline(always)]
    pub const fn acceleration(&self) -> Acceleration {
        Acceleration::from_number(self.accelerate)
    }

    /// Whether `port` is that of one of the proxy's listeners here.
    #[inline(always)]
    pub fn is_listener_port(&self, port: Port) -> bool {
        let mut found = false;
        // Unused slots hold port 0, which nobody can dial or bind by number.
        for listener in &self.listeners {
            found |= listener.port.0 == port.0;
        }
        found && port.0 != 0
    }

    /// Whether one of the listeners can take a connect to `addr`: a socket
    /// reaches only addresses of the family that it dialled.
    #[inline(always)]
    pub fn listens_for(&self, addr: &Addr) -> bool {
        let mut found = false;
        for listener in &self.listeners {
            found |= listener.takes(addr);
        }
        found
    }
}

impl Listener {
    /// Whether this is a listener, no unused slot, of the family of `addr`.
    #[inline(always)]
    pub const fn takes(&self, addr: &Addr) -> bool {
        self.port.0 != 0 && self.addr.is_v4() == addr.is_v4()
    }
}

/// Key of `LOCAL`: an address that is configured inside an enrolled netns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalKey {
    /// The namespace.
    pub netns: NetnsCookie,
    /// One of its own addresses.
    pub addr: Addr,
}

/// Value of `LOCAL`; being there is all that counts.
pub type LocalEntry = u32;

/// Key of `ADDRESSES`: what an address is to the mesh.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey {
    /// The dialling workload's network.
    pub network: NetworkId,
    /// The dialled address.
    pub addr: Addr,
}

/// What an address in `ADDRESSES` belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// A service's virtual address.
    Service,
    /// A workload, on this node or another.
    Workload,
}

/// Value of `ADDRESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressEntry {
    /// 1: a service's virtual address; anything else: a workload.
    pub kind: u32,
}

impl AddressEntry {
    /// The entry that says `kind`.
    pub const fn new(kind: AddressKind) -> Self {
        Self {
            kind: match kind {
                AddressKind::Service => 1,
                AddressKind::Workload => 2,
            },
        }
    }

    /// What the address belongs to.
    #[inline(always)]
    pub const fn kind(&self) -> AddressKind {
        if self.kind == 1 {
            AddressKind::Service
        } else {
            AddressKind::Workload
        }
    }
}

/// The one value of `NODE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Id of the cgroup that weir itself runs in: the only one that is exempt.
    pub proxy_cgroup: u64,
    /// Pending flows that the table can hold in all.
    pub pending_max: u64,
    /// An [`Extent`], see [`NodeConfig::extent`].
    pub accelerate: u8,
    /// Always 0.
    pub pad: [u8; 7],
}

impl NodeConfig {
    /// For whom the hooks accelerate.
    #[inline(always)]
    pub const fn extent(&self) -> Extent {
        Extent::from_number(self.accelerate)
    }
}

#[cfg(feature = "user")]
mod pod {
    #![expect(
        unsafe_code,
        reason = "aya's marker that a type may cross the kernel boundary"
    )]
    macro_rules! pod {
        ($($name:ty),* $(,)?) => { $(
            // SAFETY: repr(C) or repr(transparent) over integers, no padding (sizes asserted), 'static and Copy.
            unsafe impl aya::Pod for $name {}
        )* };
    }
    use super::{
        AddressEntry, AddressKey, LocalKey, NetnsCookie, NodeConfig, Workload, WorkloadId,
    };
    use crate::{
        Beat, EgressEntry, EgressKey, Ending, EndpointSlot, Enrolled, Event, Flow, FlowKey, Heard,
        HeardKey, Lengths, Note, OfferKey, Older, Partner, Peer, PolicySetId, PortEntry, PortKey,
        Route, RouteKey, Seat, ServiceEntry, ServiceKey, Talking, Target, Told,
    };
    pod!(
        NetnsCookie,
        WorkloadId,
        Workload,
        LocalKey,
        AddressKey,
        AddressEntry,
        ServiceKey,
        ServiceEntry,
        PolicySetId,
        EgressKey,
        EgressEntry,
        Lengths,
        PortKey,
        PortEntry,
        NodeConfig,
        FlowKey,
        Flow,
        Note,
        Event,
        Ending,
        RouteKey,
        Route,
        EndpointSlot,
        Beat,
        Enrolled,
        Heard,
        HeardKey,
        Peer,
        Talking,
        Target,
        Told,
        OfferKey,
        Older,
        Partner,
        Seat,
    );
}

const _: () = {
    assert!(size_of::<Listener>() == 24);
    assert!(size_of::<Workload>() == 32 + 24 * LISTENERS_MAX);
    assert!(size_of::<LocalKey>() == 24);
    assert!(size_of::<AddressKey>() == 20);
    assert!(size_of::<AddressEntry>() == 4);
    assert!(size_of::<NodeConfig>() == 24);
};

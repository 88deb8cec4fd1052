//! The one decision: given a workload, a destination and the tables, which
//! verdict, why, and by which rule.
//!
//! Must stay pure and free of loops that the verifier cannot bound. The order
//! of its steps is the product's contract; `docs/policy.md` says it in prose.

use crate::addr::{Addr, Destination};
use crate::balance::{Block, EndpointSlot, Route, RouteKey};
use crate::id::{NetnsCookie, RuleId, ServiceId};
use crate::service::{ServiceEntry, ServiceKey};
use crate::table::{
    AddressEntry, AddressKey, AddressKind, EgressAction, EgressDefault, EgressEntry, EgressKey,
    LocalKey, PortEntry, PortKey, Workload,
};

/// What happens to a connect.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `connect()` fails with EPERM.
    Deny,
    /// `connect()` goes on untouched.
    Direct,
    /// `connect()` goes to the proxy's listener in the pod.
    Proxy,
    /// `connect()` goes to an endpoint that the kernel picks, or fails with
    /// ECONNREFUSED if there is none.
    Balance,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a verdict was given.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable name that logs, metrics and `weir explain` use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reason with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

reasons! {
    /// Loopback or the unspecified address.
    Loopback = "loopback",
    /// One of the workload's own addresses.
    OwnAddress = "own-address",
    /// weir's own listener in the pod: nobody may dial it.
    Listener = "weir-listener",
    /// A service port.
    Service = "service",
    /// A service's virtual address with a port that no service declares.
    UnknownServicePort = "unknown-service-port",
    /// A workload's address.
    Workload = "workload-address",
    /// An egress rule opens it.
    EgressRule = "egress-rule",
    /// An egress rule on a host name might open it: the proxy looks at the request.
    EgressByName = "egress-by-name",
    /// External, and the mesh allows by default.
    EgressAllowed = "egress-default-allow",
    /// External, no rule; would be denied, is only reported.
    EgressAudited = "egress-audit",
    /// External, no rule.
    EgressDenied = "egress-default-deny",
    /// A socket of an enrolled cgroup in a network namespace that weir does not know.
    UnknownNetns = "unknown-netns",
    /// The socket is bound to a device that none of weir's listeners sits on.
    BoundDevice = "bound-device",
    /// The workload has no address of the dialled family, and so no listener for it.
    NoListener = "no-listener",
}

/// A verdict with its grounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The egress rule that spoke, or, for [`Verdict::Balance`], the route rule;
    /// [`RuleId::NONE`] if none did.
    pub rule: RuleId,
    /// The service port that was dialled; [`ServiceId::NONE`] if none.
    pub service: ServiceId,
    /// For [`Verdict::Balance`]: the endpoints to choose from.
    pub block: Block,
}

impl Decision {
    /// A decision that neither a rule nor a service took part in.
    #[inline(always)]
    pub const fn plain(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            reason,
            rule: RuleId::NONE,
            service: ServiceId::NONE,
            block: Block::EMPTY,
        }
    }
}

/// The tables that [`decide`] reads: BPF maps in the kernel, a snapshot of
/// the same content in the daemon.
pub trait Tables {
    /// Whether the address is configured inside that netns.
    fn is_local(&self, key: &LocalKey) -> bool;
    /// What the address is to the mesh.
    fn address(&self, key: &AddressKey) -> Option<AddressEntry>;
    /// The service at a virtual address and port.
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry>;
    /// Where a service port leads whose rules tell sources apart, for one of them.
    fn route(&self, key: &RouteKey) -> Option<Route>;
    /// A slot of the endpoint array.
    fn endpoint(&self, index: u32) -> Option<EndpointSlot>;
    /// The longest egress prefix of the policy set that covers the address.
    fn egress(&self, key: &EgressKey) -> Option<EgressEntry>;
    /// What a port table says of a port.
    fn egress_port(&self, key: &PortKey) -> Option<PortEntry>;
}

/// Decides on a TCP connect of `workload`, whose socket lives in `netns`, to `dst`.
#[inline(always)]
pub fn decide<T: Tables>(
    tables: &T,
    workload: &Workload,
    netns: NetnsCookie,
    dst: Destination,
) -> Decision {
    let decision = by_tables(tables, workload, netns, dst);
    // Without any listener the proxy is down, which is another matter.
    let cut_off = decision.verdict == Verdict::Proxy
        && workload.listeners_len != 0
        && !workload.listens_for(&dst.addr);
    if cut_off {
        Decision::plain(Verdict::Deny, Reason::NoListener)
    } else {
        decision
    }
}

/// What the tables say of the destination.
#[inline(always)]
fn by_tables<T: Tables>(
    tables: &T,
    workload: &Workload,
    netns: NetnsCookie,
    dst: Destination,
) -> Decision {
    let addr = dst.addr;
    if addr.is_loopback() || addr.is_unspecified() {
        return local(workload, dst, Reason::Loopback);
    }
    if tables.is_local(&LocalKey { netns, addr }) {
        return local(workload, dst, Reason::OwnAddress);
    }
    let network = workload.network;
    match tables.address(&AddressKey { network, addr }) {
        Some(entry) => match entry.kind() {
            AddressKind::Service => {
                let port = dst.port;
                let key = ServiceKey {
                    network,
                    addr,
                    port,
                    pad: 0,
                };
                match tables.service(&key) {
                    Some(entry) => service(tables, workload, &addr, &entry),
                    None => Decision::plain(Verdict::Deny, Reason::UnknownServicePort),
                }
            }
            AddressKind::Workload => Decision::plain(Verdict::Direct, Reason::Workload),
        },
        None => external(tables, workload, dst),
    }
}

/// A service port: balanced here, or sent to the proxy.
#[inline(always)]
fn service<T: Tables>(
    tables: &T,
    workload: &Workload,
    dialled: &Addr,
    entry: &ServiceEntry,
) -> Decision {
    let (verdict, route) = match entry.route_for(tables, workload.id, dialled) {
        Some(route) => (Verdict::Balance, route),
        None => (Verdict::Proxy, Route::EMPTY),
    };
    Decision {
        rule: route.rule,
        service: entry.service,
        block: route.block,
        ..Decision::plain(verdict, Reason::Service)
    }
}

/// Inside the pod: never our business, but for weir's own port. `0.0.0.0` and
/// loopback count too: from a socket bound to the pod's address they reach it.
#[inline(always)]
fn local(workload: &Workload, dst: Destination, reason: Reason) -> Decision {
    if workload.is_listener_port(dst.port) {
        Decision::plain(Verdict::Deny, Reason::Listener)
    } else {
        Decision::plain(Verdict::Direct, reason)
    }
}

/// Outside the mesh: the egress rules, then the default.
#[inline(always)]
fn external<T: Tables>(tables: &T, workload: &Workload, dst: Destination) -> Decision {
    let key = EgressKey {
        policy_set: workload.policy_set,
        addr: dst.addr,
    };
    let by_default = match workload.egress_default() {
        EgressDefault::Deny => Decision::plain(Verdict::Deny, Reason::EgressDenied),
        EgressDefault::Allow => Decision::plain(Verdict::Direct, Reason::EgressAllowed),
        EgressDefault::Audit => Decision::plain(Verdict::Direct, Reason::EgressAudited),
    };
    let Some(prefix) = tables.egress(&key) else {
        return by_default;
    };
    let key = PortKey {
        port_table: prefix.port_table,
        port: dst.port,
        pad: 0,
    };
    let Some(entry) = tables.egress_port(&key) else {
        return by_default;
    };
    let (verdict, reason) = match entry.action() {
        EgressAction::Direct => (Verdict::Direct, Reason::EgressRule),
        EgressAction::Http => (Verdict::Proxy, Reason::EgressRule),
        // A name can open only what would be denied: nothing else needs the proxy.
        EgressAction::HttpByName => match workload.egress_default() {
            EgressDefault::Deny => (Verdict::Proxy, Reason::EgressByName),
            EgressDefault::Allow | EgressDefault::Audit => {
                return Decision {
                    rule: entry.rule,
                    ..by_default
                };
            }
        },
    };
    Decision {
        rule: entry.rule,
        ..Decision::plain(verdict, reason)
    }
}

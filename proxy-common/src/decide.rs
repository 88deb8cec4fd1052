//! The one decision: given a workload, a destination and the tables, which
//! verdict, why, and by which rule.
//!
//! Must stay pure and free of loops that the verifier cannot bound. The order
//! of its steps is the product's contract; `docs/policy.md` says it in prose.

use crate::addr::{Addr, Destination, Port};
use crate::balance::{Block, EndpointSlot, Route, RouteKey};
use crate::egress::{EgressAction, EgressEntry, PortEntry, PortKey};
use crate::id::{NetnsCookie, PolicySetId, PortTableId, RuleId, ServiceId};
use crate::service::{ServiceEntry, ServiceKey};
use crate::table::{AddressEntry, AddressKey, AddressKind, EgressDefault, LocalKey, Workload};
use crate::transport::Transport;

/// What happens to a connect, or to a datagram that names its destination.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call fails with EPERM.
    Deny,
    /// The call goes on untouched.
    Direct,
    /// `connect()` goes to the proxy's listener in the pod; never of UDP.
    Proxy,
    /// The call goes to an endpoint that the kernel picks, or fails with
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
    /// One of the resolvers that the daemon is set to, on its port.
    Resolver = "resolver",
    /// UDP to where only a rule on a host name leads: names are checked over TCP alone.
    NameOverUdp = "egress-name-over-udp",
    /// UDP to somebody outside who wrote first: never of `decide`, which knows no past.
    Answer = "answer",
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
    /// The service at a virtual address and port: one that [`Tables::address`] knows as
    /// a service's, at every moment.
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry>;
    /// Where a service port leads whose rules tell sources apart, for one of them.
    fn route(&self, key: &RouteKey) -> Option<Route>;
    /// A slot of the endpoint array.
    fn endpoint(&self, index: u32) -> Option<EndpointSlot>;
    /// The longest egress prefix of the policy set that covers the address: see
    /// [`longest`](crate::longest).
    fn egress(&self, policy_set: PolicySetId, addr: &Addr) -> Option<EgressEntry>;
    /// What a port table says of a port.
    fn egress_port(&self, key: &PortKey) -> Option<PortEntry>;
}

/// Decides on a connect or datagram of `workload`, whose socket lives in `netns`, to `dst`.
#[inline(always)]
pub fn decide<T: Tables>(
    tables: &T,
    workload: &Workload,
    netns: NetnsCookie,
    transport: Transport,
    dst: Destination,
) -> Decision {
    let decision = by_tables(tables, workload, netns, transport, dst);
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
    transport: Transport,
    dst: Destination,
) -> Decision {
    let addr = dst.addr;
    if addr.is_loopback() || addr.is_unspecified() {
        return local(workload, transport, dst, Reason::Loopback);
    }
    if workload.own.may_hold(&addr) && tables.is_local(&LocalKey { netns, addr }) {
        return local(workload, transport, dst, Reason::OwnAddress);
    }
    let network = workload.network;
    // First, as most connects of a mesh are to services; the tables hold no port
    // whose address is not a service's.
    if let Some(entry) = tables.service(&ServiceKey::new(network, dst, transport)) {
        return service(tables, workload, transport, &addr, &entry);
    }
    match tables.address(&AddressKey { network, addr }) {
        Some(entry) => match entry.kind() {
            AddressKind::Service => Decision::plain(Verdict::Deny, Reason::UnknownServicePort),
            AddressKind::Workload => Decision::plain(Verdict::Direct, Reason::Workload),
        },
        None => external(tables, workload, transport, dst),
    }
}

/// A service port: balanced here, or sent to the proxy.
#[inline(always)]
fn service<T: Tables>(
    tables: &T,
    workload: &Workload,
    transport: Transport,
    dialled: &Addr,
    entry: &ServiceEntry,
) -> Decision {
    let (verdict, route) = match entry.route_for(tables, workload.id, dialled) {
        Some(route) => (Verdict::Balance, route),
        // The proxy takes no datagrams: an entry that says so leads nowhere.
        None if matches!(transport, Transport::Udp) => (Verdict::Balance, Route::EMPTY),
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
fn local(workload: &Workload, transport: Transport, dst: Destination, reason: Reason) -> Decision {
    if matches!(transport, Transport::Tcp) && workload.is_listener_port(dst.port) {
        Decision::plain(Verdict::Deny, Reason::Listener)
    } else {
        Decision::plain(Verdict::Direct, reason)
    }
}

/// Outside the mesh: the egress rules, then the default.
#[inline(always)]
fn external<T: Tables>(
    tables: &T,
    workload: &Workload,
    transport: Transport,
    dst: Destination,
) -> Decision {
    let by_default = match workload.egress_default() {
        EgressDefault::Deny => Decision::plain(Verdict::Deny, Reason::EgressDenied),
        EgressDefault::Allow => Decision::plain(Verdict::Direct, Reason::EgressAllowed),
        EgressDefault::Audit => Decision::plain(Verdict::Direct, Reason::EgressAudited),
    };
    let Some(prefix) = tables.egress(workload.policy_set, &dst.addr) else {
        return by_default;
    };
    let table = prefix.port_table;
    let Some(entry) = tables.egress_port(&PortKey::new(table, dst.port, transport)) else {
        return match transport {
            Transport::Tcp => by_default,
            Transport::Udp => without_rule(tables, table, dst.port, by_default),
        };
    };
    let (verdict, reason) = match entry.action() {
        EgressAction::Direct => (Verdict::Direct, Reason::EgressRule),
        EgressAction::Resolver => (Verdict::Direct, Reason::Resolver),
        // Both need bytes to look at, and are never written for UDP.
        EgressAction::Http | EgressAction::HttpByName if matches!(transport, Transport::Udp) => {
            return by_default;
        }
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

/// UDP that no rule opens. Where a rule on a host name opens the port for TCP,
/// HTTP/3 would go around the check of the name: the denial says so, and the
/// client falls back to TCP.
#[inline(always)]
fn without_rule<T: Tables>(
    tables: &T,
    table: PortTableId,
    port: Port,
    by_default: Decision,
) -> Decision {
    if !matches!(by_default.verdict, Verdict::Deny) {
        return by_default;
    }
    match tables.egress_port(&PortKey::new(table, port, Transport::Tcp)) {
        Some(entry) if matches!(entry.action(), EgressAction::HttpByName) => Decision {
            rule: entry.rule,
            ..Decision::plain(Verdict::Deny, Reason::NameOverUdp)
        },
        _ => by_default,
    }
}

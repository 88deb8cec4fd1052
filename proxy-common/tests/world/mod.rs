//! The tables and the workload that the tests of `decide` ask about.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use proxy_common::{
    Addr, AddressEntry, AddressKey, AddressKind, EgressDefault, EgressEntry, EndpointSlot,
    Listener, LocalKey, NetnsCookie, NetworkId, PolicySetId, Port, PortEntry, PortKey, PortTableId,
    Route, RouteKey, ServiceEntry, ServiceKey, Tables, Workload, WorkloadId,
};

pub const HERE: NetnsCookie = NetnsCookie(7);
pub const NETWORK: NetworkId = NetworkId(1);
pub const POLICY: PolicySetId = PolicySetId(3);
pub const LISTENER: Port = Port(40_000);

/// Tables without anything clever: exact addresses stand for prefixes.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    pub local: HashSet<(NetnsCookie, Addr)>,
    pub addresses: HashMap<(NetworkId, Addr), bool>,
    pub services: HashMap<ServiceKey, ServiceEntry>,
    pub routes: HashMap<RouteKey, Route>,
    pub egress: HashMap<(PolicySetId, Addr), PortTableId>,
    pub ports: HashMap<PortKey, PortEntry>,
}

impl Tables for Plain {
    fn is_local(&self, key: &LocalKey) -> bool {
        self.local.contains(&(key.netns, key.addr))
    }

    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        let kind = |service: &bool| {
            if *service {
                AddressKind::Service
            } else {
                AddressKind::Workload
            }
        };
        let service = self.addresses.get(&(key.network, key.addr))?;
        Some(AddressEntry::new(kind(service)))
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        self.services.get(key).copied()
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes.get(key).copied()
    }

    fn endpoint(&self, _: u32) -> Option<EndpointSlot> {
        unreachable!("to decide is not to choose")
    }

    fn egress(&self, policy_set: PolicySetId, addr: &Addr) -> Option<EgressEntry> {
        let port_table = *self.egress.get(&(policy_set, *addr))?;
        Some(EgressEntry { port_table })
    }

    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        self.ports.get(key).copied()
    }
}

pub fn addr(last: u8) -> Addr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

pub fn addr6(last: u8) -> Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into()
}

pub fn workload(default: EgressDefault) -> Workload {
    let mut workload = Workload {
        id: WorkloadId(1),
        network: NETWORK,
        policy_set: POLICY,
        egress_default: default as u8,
        listeners_len: 1,
        own: [addr(1)].into_iter().collect(),
        ..Workload::default()
    };
    workload.listeners[0] = Listener {
        addr: addr(1),
        port: LISTENER,
        ..Listener::default()
    };
    workload
}

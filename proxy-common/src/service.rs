//! Key and value of `SERVICES`: what a virtual address and port lead to.
//!
//! Owns which ports are balanced by the kernel and which are the proxy's. Must
//! never let an unknown number mean more than the proxy would allow.

use crate::addr::{Addr, Destination, Port};
use crate::balance::{Block, Route, RouteKey};
use crate::decide::Tables;
use crate::id::{NetworkId, ServiceId, WorkloadId};
use crate::transport::Transport;

/// Key of `SERVICES`: a virtual address and port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The dialling workload's network.
    pub network: NetworkId,
    /// The virtual address.
    pub addr: Addr,
    /// The service port.
    pub port: Port,
    /// A [`Transport`], as its number.
    pub(crate) transport: u16,
}

impl ServiceKey {
    /// The key of what is dialled in `network`.
    #[inline(always)]
    pub const fn new(network: NetworkId, dialled: Destination, transport: Transport) -> Self {
        Self {
            network,
            addr: dialled.addr,
            port: dialled.port,
            transport: transport.number(),
        }
    }

    /// Whether the port is one of `transport`.
    pub const fn is(&self, transport: Transport) -> bool {
        self.transport == transport.number()
    }
}

/// How the connections to a service port find their endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceAction {
    /// The proxy looks at them.
    Proxy,
    /// The kernel picks from the block of the entry's own route.
    Balance,
    /// The kernel picks from the block of the route that `ROUTES` holds for the source.
    BalanceBySource,
}

/// Value of `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceEntry {
    /// The service port's number.
    pub service: ServiceId,
    pub(crate) action: u32,
    pub(crate) route: Route,
}

impl ServiceEntry {
    /// A port whose connections go to the proxy.
    pub const fn proxied(service: ServiceId) -> Self {
        Self {
            service,
            action: 1,
            route: Route::EMPTY,
        }
    }

    /// A port that is balanced by `route`, whoever dials.
    pub const fn balanced(service: ServiceId, route: Route) -> Self {
        Self {
            service,
            action: 2,
            route,
        }
    }

    /// A port whose route depends on who dials.
    pub const fn balanced_by_source(service: ServiceId) -> Self {
        Self {
            service,
            action: 3,
            route: Route::EMPTY,
        }
    }

    /// What to do. An unknown number asks the proxy, which knows its services.
    #[inline(always)]
    pub const fn action(&self) -> ServiceAction {
        match self.action {
            2 => ServiceAction::Balance,
            3 => ServiceAction::BalanceBySource,
            _ => ServiceAction::Proxy,
        }
    }

    /// Where connects of `workload` to `dialled` go; `None` for a proxied port. A source that
    /// `ROUTES` does not hold goes nowhere.
    #[inline(always)]
    pub fn route_for<T: Tables>(
        &self,
        tables: &T,
        workload: WorkloadId,
        dialled: &Addr,
    ) -> Option<Route> {
        match self.action() {
            ServiceAction::Proxy => None,
            ServiceAction::Balance => Some(self.route),
            ServiceAction::BalanceBySource => {
                let key = RouteKey {
                    service: self.service,
                    workload,
                    v6: u32::from(!dialled.is_v4()),
                };
                Some(tables.route(&key).unwrap_or(Route::EMPTY))
            }
        }
    }

    /// The block that the entry itself holds, if its action is to balance over it.
    pub const fn own_block(&self) -> Option<Block> {
        match self.action() {
            ServiceAction::Balance => Some(self.route.block),
            ServiceAction::Proxy | ServiceAction::BalanceBySource => None,
        }
    }
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<ServiceEntry>() == 28);
};

//! The content of the configuration maps, as one value: compiled from a
//! snapshot, written by `kernel`, and read by `decide` in the daemon.
//!
//! Must never differ from what the kernel holds once an apply has returned.

mod egress;

use std::sync::Arc;

use imbl::OrdMap;
use proxy_common::{
    Addr, AddressEntry, AddressKey, Block, BlockGeneration, EgressEntry, EndpointSlot, LocalEntry,
    LocalKey, NetnsCookie, PolicySetId, PortEntry, PortKey, Route, RouteKey, ServiceEntry,
    ServiceKey, Tables, Workload, longest,
};

pub use self::egress::EgressTable;

/// Every configuration map. A copy shares what is the same with its original,
/// and comparing the two costs no more than what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSet {
    /// `WORKLOADS`.
    pub workloads: OrdMap<NetnsCookie, Workload>,
    /// `LOCAL`.
    pub local: OrdMap<LocalKey, LocalEntry>,
    /// `NEARBY`.
    pub nearby: OrdMap<AddressKey, NetnsCookie>,
    /// `ADDRESSES`.
    pub addresses: OrdMap<AddressKey, AddressEntry>,
    /// `SERVICES`.
    pub services: OrdMap<ServiceKey, ServiceEntry>,
    /// `ROUTES`.
    pub routes: OrdMap<RouteKey, Route>,
    /// `ENDPOINTS`, by the blocks that services and routes name. Of tables that
    /// were read back from the kernel it is empty: nobody needs to know.
    pub blocks: OrdMap<Block, Arc<[EndpointSlot]>>,
    /// How many services and routes name each block.
    pub named: OrdMap<Block, usize>,
    /// Slots of these blocks.
    pub slots: usize,
    /// `EGRESS` and `EGRESS_LENGTHS`.
    pub egress: EgressTable,
    /// `EGRESS_PORTS`.
    pub egress_ports: OrdMap<PortKey, PortEntry>,
}

impl TableSet {
    /// Puts the entry of a service, whose block is there.
    pub fn put_service(&mut self, key: ServiceKey, entry: ServiceEntry) {
        let former = self.services.insert(key, entry);
        self.rename(
            former.and_then(|former| former.own_block()),
            entry.own_block(),
        );
    }

    /// Takes the entry of a service away.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        let former = self.services.remove(key);
        self.rename(former.and_then(|former| former.own_block()), None);
    }

    /// Puts what a source gets of a service; its block is there.
    pub fn put_route(&mut self, key: RouteKey, route: Route) {
        let former = self.routes.insert(key, route);
        self.rename(former.map(|former| former.block), Some(route.block));
    }

    /// Takes what a source gets away.
    pub fn remove_route(&mut self, key: &RouteKey) {
        let former = self.routes.remove(key);
        self.rename(former.map(|former| former.block), None);
    }

    /// Counts who names which block, of entries that came by another way.
    pub fn count_blocks(&mut self) {
        (self.named, self.slots) = (OrdMap::new(), 0);
        let own = self.services.values().filter_map(ServiceEntry::own_block);
        let all = own.chain(self.routes.values().map(|route| route.block));
        for block in all.collect::<Vec<_>>() {
            self.rename(None, Some(block));
        }
    }

    /// One entry names `to` instead of `from`. What nobody names goes.
    fn rename(&mut self, from: Option<Block>, to: Option<Block>) {
        let real = |block: &Block| block.len > 0;
        if let Some(block) = to.filter(real) {
            let count = self.named.entry(block).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.slots += block.len as usize;
            }
        }
        if let Some(block) = from.filter(real)
            && let Some(count) = self.named.get_mut(&block)
        {
            *count -= 1;
            if *count == 0 {
                self.slots -= block.len as usize;
                self.named.remove(&block);
                self.blocks.remove(&block);
            }
        }
    }
}

impl Tables for TableSet {
    fn is_local(&self, key: &LocalKey) -> bool {
        self.local.contains_key(key)
    }

    fn address(&self, key: &AddressKey) -> Option<AddressEntry> {
        self.addresses.get(key).copied()
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        self.services.get(key).copied()
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        self.routes.get(key).copied()
    }

    fn endpoint(&self, index: u32) -> Option<EndpointSlot> {
        let above = Block {
            offset: index,
            len: u32::MAX,
            generation: BlockGeneration(u32::MAX),
            scale: u32::MAX,
        };
        let (block, slots) = self.blocks.range(..=above).next_back()?;
        slots.get((index - block.offset) as usize).copied()
    }

    fn egress(&self, policy_set: PolicySetId, addr: &Addr) -> Option<EgressEntry> {
        longest(&self.egress, policy_set, addr)
    }

    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        self.egress_ports.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use std::cell::Cell;
    use std::net::SocketAddr;

    use proxy_common::{
        AddressKind, Destination, NetworkId, PolicySetId, Port, RuleId, ServiceId, Target,
        Transport, Verdict, WorkloadId, choose, decide, draw,
    };

    use super::*;
    use crate::balance::{Blocks, Masses};

    const SERVICE: Addr = Addr::from_v4_word(0x0100_600a);

    fn at(port: u16) -> Destination {
        Destination::from(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), port)))
    }

    fn vip() -> Destination {
        Destination {
            addr: SERVICE,
            port: Port(80),
        }
    }

    fn key() -> ServiceKey {
        ServiceKey::new(NetworkId(0), vip(), Transport::Tcp)
    }

    /// A service port whose shares go to `10.0.0.1:port` each.
    fn balanced(blocks: &mut Blocks, shares: &[(u32, &[u16])]) -> (TableSet, Block) {
        let targets = |ports: &[u16]| ports.iter().map(|port| Target::new(at(*port))).collect();
        let shares: Vec<_> = shares
            .iter()
            .map(|(weight, ports)| (*weight, targets(ports)))
            .collect();
        let (block, slots) = blocks.place(Masses::of(&shares)).unwrap();
        let mut tables = TableSet::default();
        tables.blocks.insert(block, slots);
        let route = Route {
            block,
            rule: RuleId(7),
        };
        tables
            .services
            .insert(key(), ServiceEntry::balanced(ServiceId(3), route));
        let address = AddressKey {
            network: NetworkId(0),
            addr: SERVICE,
        };
        let entry = AddressEntry::new(AddressKind::Service);
        tables.addresses.insert(address, entry);
        (tables, block)
    }

    /// Random words that are evenly spread give each endpoint its share, to the
    /// word where the shares divide them evenly.
    #[test]
    fn draws_follow_the_weights() {
        const WORDS: u32 = 1 << 16;
        let mut blocks = Blocks::new(64, 1);
        let (tables, block) = balanced(&mut blocks, &[(25, &[1]), (50, &[2, 3]), (25, &[])]);
        let mut counts = BTreeMap::new();
        for word in 0..WORDS {
            let drawn = draw(&tables, block, word << 16);
            assert!(!drawn.stale, "the block is there");
            *counts.entry(drawn.target.port.0).or_insert(0) += 1;
        }
        let quarter = WORDS / 4;
        let wanted = [(0, quarter), (1, quarter), (2, quarter), (3, quarter)];
        assert_eq!(counts, BTreeMap::from(wanted));
    }

    #[test]
    fn the_service_entry_says_balance_or_proxy_and_which_rule() {
        let mut blocks = Blocks::new(64, 1);
        let (mut tables, block) = balanced(&mut blocks, &[(100, &[1, 2])]);
        let workload = Workload {
            id: WorkloadId(5),
            ..Workload::default()
        };
        let ask =
            |tables: &TableSet| decide(tables, &workload, NetnsCookie(1), Transport::Tcp, vip());
        let decision = ask(&tables);
        assert_eq!(decision.verdict, Verdict::Balance);
        assert_eq!((decision.block, decision.rule), (block, RuleId(7)));
        assert_eq!(decision.service, ServiceId(3));
        let by_source = ServiceEntry::balanced_by_source(ServiceId(3));
        tables.services.insert(key(), by_source);
        let decision = ask(&tables);
        assert_eq!(decision.verdict, Verdict::Balance);
        assert_eq!(decision.block, Block::EMPTY, "no route: nobody");
        let route = Route {
            block,
            rule: RuleId(8),
        };
        let source = RouteKey {
            service: ServiceId(3),
            workload: WorkloadId(5),
            v6: 0,
        };
        tables.routes.insert(source, route);
        let decision = ask(&tables);
        assert_eq!((decision.block, decision.rule), (block, RuleId(8)));
        let proxied = ServiceEntry::proxied(ServiceId(3));
        tables.services.insert(key(), proxied);
        assert_eq!(ask(&tables).verdict, Verdict::Proxy);
    }

    /// Tables whose service changes each time it is read.
    struct Changing<'a> {
        states: &'a [TableSet],
        reads: Cell<usize>,
    }

    impl Tables for Changing<'_> {
        fn is_local(&self, _: &LocalKey) -> bool {
            false
        }
        fn address(&self, _: &AddressKey) -> Option<AddressEntry> {
            None
        }
        fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
            self.reads.set(self.reads.get() + 1);
            self.states[0].service(key)
        }
        fn route(&self, key: &RouteKey) -> Option<Route> {
            self.states[0].route(key)
        }
        fn endpoint(&self, index: u32) -> Option<EndpointSlot> {
            self.states.last()?.endpoint(index)
        }
        fn egress(&self, _: PolicySetId, _: &Addr) -> Option<EgressEntry> {
            None
        }
        fn egress_port(&self, _: &PortKey) -> Option<PortEntry> {
            None
        }
    }

    #[test]
    fn a_block_that_is_gone_is_looked_for_once_more() {
        let (former, gone) = balanced(&mut Blocks::new(64, 1), &[(100, &[1])]);
        let (now, block) = balanced(&mut Blocks::new(64, 100), &[(100, &[2])]);
        assert_eq!(gone.offset, block.offset, "the space was used again");
        let workload = Workload::default();
        let ask = |states: &[TableSet]| {
            let tables = Changing {
                states,
                reads: Cell::new(0),
            };
            let drawn = choose(&tables, &workload, Transport::Tcp, vip(), gone, 9);
            (drawn.target.destination(), drawn.stale, tables.reads.get())
        };
        assert_eq!(ask(std::slice::from_ref(&now)), (Some(at(2)), false, 1));
        assert_eq!(ask(&[former, now]), (None, true, 1));
    }
}

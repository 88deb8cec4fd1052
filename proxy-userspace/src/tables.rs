//! The content of the configuration maps, as one value: compiled from a
//! snapshot, written by `kernel`, and read by `decide` in the daemon.
//!
//! Must never differ from what the kernel holds once an apply has returned.

use imbl::OrdMap;
use proxy_common::{
    Addr, AddressEntry, AddressKey, EgressEntry, EgressKey, LocalEntry, LocalKey, NetnsCookie,
    PortEntry, PortKey, ServiceEntry, ServiceKey, Tables, Workload,
};

/// An `EGRESS` key with its prefix length in bits, 32 to [`EgressKey::BITS`].
pub type EgressPrefix = (u32, EgressKey);

/// Every configuration map. A copy shares what is the same with its original,
/// and comparing the two costs no more than what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSet {
    /// `WORKLOADS`.
    pub workloads: OrdMap<NetnsCookie, Workload>,
    /// `LOCAL`.
    pub local: OrdMap<LocalKey, LocalEntry>,
    /// `ADDRESSES`.
    pub addresses: OrdMap<AddressKey, AddressEntry>,
    /// `SERVICES`.
    pub services: OrdMap<ServiceKey, ServiceEntry>,
    /// `EGRESS`.
    pub egress: OrdMap<EgressPrefix, EgressEntry>,
    /// `EGRESS_PORTS`.
    pub egress_ports: OrdMap<PortKey, PortEntry>,
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

    fn egress(&self, key: &EgressKey) -> Option<EgressEntry> {
        (32..=EgressKey::BITS).rev().find_map(|bits| {
            let key = EgressKey {
                addr: mask(key.addr, bits - 32),
                ..*key
            };
            self.egress.get(&(bits, key)).copied()
        })
    }

    fn egress_port(&self, key: &PortKey) -> Option<PortEntry> {
        self.egress_ports.get(key).copied()
    }
}

/// The first `bits` of `addr`, the rest zero.
pub fn mask(addr: Addr, bits: u32) -> Addr {
    let mut words = addr.words();
    for (index, word) in (0_u32..).zip(&mut words) {
        let kept = bits.saturating_sub(index * 32).min(32);
        let mask = u32::MAX.checked_shl(32 - kept).unwrap_or(0);
        *word &= mask.to_be();
    }
    Addr::from_words(words)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proxy_common::{PolicySetId, PortTableId};

    use super::*;

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Addr {
        Ipv4Addr::new(a, b, c, d).into()
    }

    #[test]
    fn masks_count_from_the_128_bit_front() {
        assert_eq!(mask(v4(10, 1, 2, 3), 96 + 8), v4(10, 0, 0, 0));
        assert_eq!(mask(v4(10, 1, 2, 3), 128), v4(10, 1, 2, 3));
        assert_eq!(
            mask(v4(10, 1, 2, 3), 96).to_ip(),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        );
        assert_eq!(mask(v4(10, 1, 2, 3), 0), Addr::UNSPECIFIED);
    }

    #[test]
    fn the_longest_prefix_of_the_own_policy_set_wins() {
        let key = |set, addr| EgressKey {
            policy_set: PolicySetId(set),
            addr,
        };
        let entry = |table| EgressEntry {
            port_table: PortTableId(table),
        };
        let mut tables = TableSet::default();
        tables
            .egress
            .insert((32 + 96 + 8, key(1, v4(10, 0, 0, 0))), entry(8));
        tables
            .egress
            .insert((32 + 96 + 24, key(1, v4(10, 1, 2, 0))), entry(24));
        tables
            .egress
            .insert((EgressKey::BITS, key(2, v4(10, 1, 2, 3))), entry(32));
        assert_eq!(tables.egress(&key(1, v4(10, 1, 2, 3))), Some(entry(24)));
        assert_eq!(tables.egress(&key(1, v4(10, 9, 2, 3))), Some(entry(8)));
        assert_eq!(tables.egress(&key(1, v4(11, 1, 2, 3))), None);
        assert_eq!(tables.egress(&key(2, v4(10, 1, 2, 3))), Some(entry(32)));
    }
}

//! Egress rules, compiled into prefixes and port tables for the kernel.
//!
//! Owns the union: what a shorter prefix opens is open inside every longer one,
//! and of two ways to open one port the wider wins. Must never open what no
//! rule names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proxy_common::{Addr, EgressAction, Port, PortEntry, RuleId};

use crate::config::object::{EgressProtocol, EgressRule, EgressTarget};
use crate::snapshot::ids::PortTable;
use crate::tables::mask;

/// Bits of `::ffff:0:0/96`, in which every IPv4 address lies.
const V4_BITS: u32 = 96;

/// Prefix length in 128-bit terms, and the prefix.
pub type Prefix = (u32, Addr);

/// The prefixes that `rules` open, each with every port that is open there.
pub fn compile<'a>(
    rules: impl Iterator<Item = (RuleId, &'a EgressRule)>,
) -> BTreeMap<Prefix, PortTable> {
    let mut prefixes: BTreeMap<Prefix, PortTable> = BTreeMap::new();
    for (id, rule) in rules {
        let table = prefixes.entry(prefix(&rule.target)).or_default();
        for (port, protocol) in &rule.ports {
            open(
                table,
                *port,
                PortEntry::new(action(&rule.target, *protocol), id),
            );
        }
    }
    inherit(&mut prefixes);
    prefixes
}

/// Where a rule applies. A host name may resolve to any IPv4 address.
fn prefix(target: &EgressTarget) -> Prefix {
    let any_v4 = || (V4_BITS, mask(Addr::from_v4_word(0), V4_BITS));
    match target {
        EgressTarget::Host(_) | EgressTarget::Wildcard(_) => any_v4(),
        EgressTarget::Net(ip, len) => {
            let bits = u32::from(*len) + if ip.is_ipv4() { V4_BITS } else { 0 };
            (bits, mask(Addr::from(*ip), bits))
        }
    }
}

fn action(target: &EgressTarget, protocol: EgressProtocol) -> EgressAction {
    match (target, protocol) {
        (EgressTarget::Net(..), EgressProtocol::Tcp) => EgressAction::Direct,
        (EgressTarget::Net(..), EgressProtocol::Http) => EgressAction::Http,
        (EgressTarget::Host(_) | EgressTarget::Wildcard(_), _) => EgressAction::HttpByName,
    }
}

/// Adds one way through a port: `Direct` before `Http` before `HttpByName`, and of
/// equals the rule that was there first.
fn open(table: &mut PortTable, port: Port, entry: PortEntry) {
    table
        .entry(port)
        .and_modify(|old| {
            if entry.action() < old.action() {
                *old = entry;
            }
        })
        .or_insert(entry);
}

/// Gives each prefix what the next shorter one that covers it has: by then that
/// one holds what all shorter ones have, because they come first in the order.
fn inherit(prefixes: &mut BTreeMap<Prefix, PortTable>) {
    let keys: Vec<Prefix> = prefixes.keys().copied().collect();
    for (bits, addr) in keys {
        let parent = (0..bits)
            .rev()
            .find_map(|bits| prefixes.get(&(bits, mask(addr, bits))).cloned());
        if let (Some(parent), Some(table)) = (parent, prefixes.get_mut(&(bits, addr))) {
            for (port, entry) in parent {
                open(table, port, entry);
            }
        }
    }
}

/// Whether `ip` is covered by the rule's address or CIDR.
pub fn covers(target: &EgressTarget, ip: IpAddr) -> bool {
    let (bits, addr) = prefix(target);
    matches!(target, EgressTarget::Net(..)) && mask(Addr::from(ip), bits) == addr
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::object::{EgressSource, ObjectName};

    fn rule(target: EgressTarget, ports: &[(u16, EgressProtocol)]) -> EgressRule {
        EgressRule {
            name: ObjectName {
                namespace: "default".into(),
                name: "r".into(),
            },
            labels: BTreeMap::new(),
            target,
            ports: ports
                .iter()
                .map(|(port, protocol)| (Port(*port), *protocol))
                .collect(),
            source: EgressSource::default(),
        }
    }

    fn net(a: u8, b: u8, c: u8, d: u8, len: u8) -> EgressTarget {
        EgressTarget::Net(Ipv4Addr::new(a, b, c, d).into(), len)
    }

    #[test]
    fn a_longer_prefix_keeps_what_the_shorter_one_opens() {
        let wide = rule(net(10, 0, 0, 0, 8), &[(443, EgressProtocol::Tcp)]);
        let narrow = rule(net(10, 1, 0, 0, 16), &[(80, EgressProtocol::Http)]);
        let host = rule(
            EgressTarget::Host("a.example".into()),
            &[(8080, EgressProtocol::Http)],
        );
        let rules = [(RuleId(1), &wide), (RuleId(2), &narrow), (RuleId(3), &host)];
        let prefixes = compile(rules.into_iter());
        let narrow = &prefixes[&(96 + 16, Ipv4Addr::new(10, 1, 0, 0).into())];
        assert_eq!(
            narrow[&Port(443)],
            PortEntry::new(EgressAction::Direct, RuleId(1))
        );
        assert_eq!(
            narrow[&Port(80)],
            PortEntry::new(EgressAction::Http, RuleId(2))
        );
        assert_eq!(
            narrow[&Port(8080)],
            PortEntry::new(EgressAction::HttpByName, RuleId(3))
        );
        let wide = &prefixes[&(96 + 8, Ipv4Addr::new(10, 0, 0, 0).into())];
        assert!(
            !wide.contains_key(&Port(80)),
            "a longer prefix opens nothing outside itself"
        );
    }

    #[test]
    fn of_two_ways_through_one_port_the_wider_wins() {
        let http = rule(net(10, 1, 2, 3, 32), &[(80, EgressProtocol::Http)]);
        let tcp = rule(net(10, 0, 0, 0, 8), &[(80, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &http), (RuleId(2), &tcp)].into_iter());
        let exact = &prefixes[&(128, Ipv4Addr::new(10, 1, 2, 3).into())];
        assert_eq!(
            exact[&Port(80)],
            PortEntry::new(EgressAction::Direct, RuleId(2))
        );
    }

    #[test]
    fn the_whole_of_ipv4_is_one_prefix_of_ours() {
        let all = rule(net(0, 0, 0, 0, 0), &[(53, EgressProtocol::Tcp)]);
        let prefixes = compile([(RuleId(1), &all)].into_iter());
        assert_eq!(
            prefixes.keys().copied().collect::<Vec<_>>(),
            [prefix(&EgressTarget::Host("x".into()))]
        );
    }
}

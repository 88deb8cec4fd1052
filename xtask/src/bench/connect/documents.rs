//! What is put in force: the documents of what is dialled and of what the
//! configuration grows by, and firewalls of the same size.
//!
//! Owns the addresses. Must see to it that what grows grows around what is dialled:
//! a look-up that never meets the new entries would tell nothing of them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use testbed::Pod;

use super::case::Axis;
use crate::bench::peer::ECHO_PORT;
use crate::bench::row::VIRTUAL_ADDRESS;

/// The same service's IPv6 address.
const VIRTUAL_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x20);
/// A port of the external address that no rule opens.
pub(super) const CLOSED_PORT: u16 = 9_999;
/// A port of every service that is declared `tcp`.
pub(super) const BALANCED_PORT: u16 = 5_432;
/// Endpoints of each service on a node that has more than one.
pub(super) const ENDPOINTS: u32 = 10;

/// Where the CIDRs of rules begin, of 16 addresses each.
const CIDRS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// And those of IPv6, of 2⁶⁴ each.
const CIDRS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x100, 0x64, 0, 0, 0, 0, 0);
/// The number, from there, of the CIDR that is dialled: in the midst of the others.
const DIALLED: u32 = 0b0_1010_1010_1010_1010;

/// Ports that the rules other than the first open, in turn: many tables of ports.
const OPEN_PORTS: std::ops::Range<u16> = 10_000..60_000;

/// The first address of the `index`th CIDR. With the first 2ⁿ of them the dialled one,
/// which is the 0th, has neighbours at each of n distances: the way to it in a trie
/// is as long as can be, at every size.
fn cidr(index: u32) -> Ipv4Addr {
    (u32::from(CIDRS) + (DIALLED ^ index) * 16).into()
}

/// The same of IPv6.
fn cidr6(index: u32) -> Ipv6Addr {
    (u128::from(CIDRS6) + (u128::from(DIALLED ^ index) << 64)).into()
}

/// The external address that is dialled.
pub(super) fn external() -> IpAddr {
    Ipv4Addr::from(u32::from(cidr(0)) + 7).into()
}

/// The same of IPv6.
pub(super) fn external6() -> IpAddr {
    Ipv6Addr::from(u128::from(cidr6(0)) + 7).into()
}

/// A port of the service that is dialled.
pub(super) fn service_at(port: u16) -> SocketAddr {
    SocketAddr::new(VIRTUAL_ADDRESS.into(), port)
}

/// The same on its IPv6 address.
pub(super) fn service_at6(port: u16) -> SocketAddr {
    SocketAddr::new(VIRTUAL_ADDRESS6.into(), port)
}

/// The service that is dialled, its endpoint, and the rules that open the external
/// address.
pub(super) fn base(server: &Pod) -> String {
    service_of("server", VIRTUAL_ADDRESS, VIRTUAL_ADDRESS6)
        + &endpoint("server", "server", server.ip(), server.ip6())
        + &rules(0, ECHO_PORT)
}

/// How many objects an axis grows by at each step.
pub(super) const fn objects(axis: Axis) -> u32 {
    match axis {
        Axis::Rules => 2,
        Axis::Services => 1 + ENDPOINTS,
        Axis::Workloads => 1,
    }
}

/// The `index`th rule of each family, on a CIDR of its own.
pub(super) fn rule(index: u32) -> String {
    let (first, count) = (
        OPEN_PORTS.start,
        u32::from(OPEN_PORTS.end - OPEN_PORTS.start),
    );
    let port = u32::from(first) + index % count;
    rules(index, u16::try_from(port).expect("it is in the range"))
}

fn rules(index: u32, port: u16) -> String {
    let rule = |name: String, cidr: String| {
        format!(
            "---
apiVersion: weir.dev/v1
kind: EgressRule
metadata: {{ name: {name} }}
spec: {{ destination: {{ service: \"{cidr}\" }}, ports: [{{ port: {port}, protocol: tcp }}] }}
"
        )
    };
    rule(format!("r{index}"), format!("{}/28", cidr(index)))
        + &rule(format!("r{index}-6"), format!("{}/64", cidr6(index)))
}

/// The `index`th service with its endpoints, which are elsewhere.
pub(super) fn service(index: u32) -> String {
    let numbered = |first: [u8; 2], number: u32| {
        let [a, b] = first;
        let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(a, b, 0, 0)) + number);
        let low = Ipv6Addr::from(u128::from(number));
        let high = Ipv6Addr::new(0xfd00, b.into(), 0, 0, 0, 0, 0, 0);
        (v4, Ipv6Addr::from(u128::from(high) | u128::from(low)))
    };
    let name = format!("s{index}");
    let (v4, v6) = numbered([10, 100], index);
    let mut documents = service_of(&name, v4, v6);
    for number in index * ENDPOINTS..(index + 1) * ENDPOINTS {
        let (v4, v6) = numbered([10, 128], number);
        documents += &endpoint(&format!("e{number}"), &name, v4.into(), v6.into());
    }
    documents
}

fn service_of(name: &str, address: Ipv4Addr, address6: Ipv6Addr) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  clusterIPs: [{address}, \"{address6}\"]
  selector: {{ app: {name} }}
  ports:
    - {{ name: http, port: 80, targetPort: {ECHO_PORT} }}
    - {{ name: tcp, port: {BALANCED_PORT}, targetPort: {ECHO_PORT} }}
"
    )
}

/// A workload that is not weir's to enrol, behind the service of this name.
pub(super) fn endpoint(name: &str, service: &str, address: IpAddr, address6: IpAddr) -> String {
    format!(
        "---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: {name}, labels: {{ app: {service} }} }}
spec: {{ addresses: [{address}, \"{address6}\"] }}
"
    )
}

/// A chain that lets `size` CIDRs pass and nothing else. The dialled one comes in the
/// middle: as many rules are before it as a destination has before it on average.
pub(super) fn iptables(size: u32) -> String {
    let mut text = String::from("*filter\n:OUTPUT ACCEPT [0:0]\n");
    for place in 0..size {
        let index = (place + size - size / 2) % size;
        let address = cidr(index);
        writeln!(text, "-A OUTPUT -d {address}/28 -j ACCEPT").expect("a String takes everything");
    }
    text + "-A OUTPUT -j DROP\nCOMMIT\n"
}

/// One rule that lets the CIDRs of a set pass, and one that stops the rest.
pub(super) fn nftables(size: u32) -> String {
    let elements: Vec<String> = (0..size)
        .map(|index| format!("{}/28", cidr(index)))
        .collect();
    format!(
        "flush ruleset
table ip wall {{
  set open {{ type ipv4_addr; flags interval; elements = {{ {} }}; }}
  chain output {{ type filter hook output priority 0; ip daddr @open accept; drop; }}
}}
",
        elements.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Each doubling puts a CIDR beside the dialled one that shares a bit less with it.
    #[test]
    fn the_way_to_what_is_dialled_grows() {
        let most = *Axis::Rules.sizes(false).last().unwrap();
        let addresses: BTreeSet<Ipv4Addr> = (0..most).map(cidr).collect();
        assert_eq!(addresses.len(), most as usize);
        let inside =
            |address: &Ipv4Addr| address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
        assert!(addresses.iter().all(inside));
        let shared = |index| (u32::from(cidr(index)) ^ u32::from(cidr(0))).leading_zeros();
        let shared6 = |index| (u128::from(cidr6(index)) ^ u128::from(cidr6(0))).leading_zeros();
        for bit in 0..most.ilog2() {
            assert_eq!(shared(1 << bit), 32 - 4 - 1 - bit);
            assert_eq!(shared6(1 << bit), 64 - 1 - bit);
        }
        let (first, last) = (addresses.first().unwrap(), addresses.last().unwrap());
        let IpAddr::V4(dialled) = external() else {
            panic!("it is of IPv4");
        };
        assert!((*first..*last).contains(&dialled));
        assert!(!OPEN_PORTS.contains(&CLOSED_PORT) && CLOSED_PORT != ECHO_PORT);
    }

    /// The dialled CIDR is in every chain, once, after half of it.
    #[test]
    fn a_chain_has_what_is_dialled_in_its_middle() {
        for size in [1, 2, 10, 101] {
            let text = iptables(size);
            let rules: Vec<&str> = text.lines().filter(|line| line.starts_with("-A")).collect();
            assert_eq!(rules.len(), size as usize + 1);
            let distinct: BTreeSet<&&str> = rules.iter().collect();
            assert_eq!(distinct.len(), rules.len());
            assert!(rules[size as usize / 2].contains(&format!("{}/28", cidr(0))));
        }
    }
}

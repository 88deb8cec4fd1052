//! Random configurations and destinations, the same again from the same seed.
//!
//! Owns what they are drawn from: few addresses, ports and labels, so that what
//! is dialled is often what is there. Must never draw documents that are refused.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::docs::mesh_config;
use crate::pod::Pod;

/// The label that every document carries, for `weir apply --prune`.
pub const LABEL: &str = "made=by-dice";
/// Ports that endpoints listen on.
pub const TARGETS: [u16; 2] = [1003, 1004];
/// The last byte of the first endpoint's address.
const FIRST: u8 = 16;
/// At most so many endpoints.
const ENDPOINTS: u8 = 6;

/// A sequence of numbers that a seed repeats.
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The sequence of this seed.
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self { state: seed | 1 }
    }

    /// A number below `bound`, by xorshift.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The low bits of such a word repeat soonest.
        (self.state >> 11) % bound
    }

    /// Once in `bound` times.
    pub const fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// Any of them.
    ///
    /// # Panics
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).expect("it is an index")]
    }

    fn port(&mut self) -> u16 {
        self.one_of(&[1, 2, 3, 4, 5])
    }

    fn byte(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(bound.into())).expect("it is below a byte")
    }
}

/// One configuration: mesh, services, endpoints, and rules of both kinds.
pub fn documents(dice: &mut Dice) -> String {
    let mesh = mesh_config(dice.one_of(&["egress: deny", "egress: allow", "egress: audit"]));
    [
        mesh,
        services(dice),
        workloads(dice),
        routes(dice),
        egress(dice),
    ]
    .concat()
}

/// Every address that an endpoint may have.
pub fn endpoints() -> impl Iterator<Item = IpAddr> {
    let v4 = (FIRST..FIRST + ENDPOINTS).map(elsewhere);
    v4.flat_map(|ip| [ip.into(), in_v6(ip).into()])
}

fn virtual_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, last % 4 + 1)
}

/// The node answers for all of them. Where nobody listens a TCP connection is
/// refused at once.
fn elsewhere(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

/// The address of IPv6 that looks like it: what holds for one is asked of both.
fn in_v6(ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = ip.octets().map(u16::from);
    Ipv6Addr::new(0xfd00, 0x113, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

/// The head of a document; writing to a string cannot fail, here and below.
fn head(documents: &mut String, kind: &str, name: &str, labels: &str) {
    let version = if kind == "Service" {
        "v1"
    } else {
        "weir.dev/v1"
    };
    let _: std::fmt::Result = write!(
        documents,
        "---
apiVersion: {version}
kind: {kind}
metadata: {{ name: {name}, labels: {{ made: by-dice{labels} }} }}
"
    );
}

/// Ports of all protocols, on both families.
fn services(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..4 {
        let mut ports = String::new();
        let mut port = |prefix: &str, port: u16, protocol: &str, target: u16| {
            let _: std::fmt::Result = write!(
                ports,
                "{{ name: {prefix}{port}, port: {port}, protocol: {protocol}, targetPort: {target} }}, "
            );
        };
        for number in 1..=5 {
            if !dice.one_in(3) {
                let prefix = dice.one_of(&["http-", "tcp-", "tcp-", "x-"]);
                port(prefix, number, "TCP", dice.one_of(&TARGETS));
            }
            if dice.one_in(2) {
                port("u-", number, "UDP", dice.one_of(&TARGETS));
            }
        }
        head(&mut documents, "Service", &format!("s{index}"), "");
        let (v4, v6) = (virtual_address(index), in_v6(virtual_address(index)));
        let _: std::fmt::Result = writeln!(
            documents,
            "spec: {{ clusterIPs: [{v4}, '{v6}'], selector: {{ app: s{index} }}, \
             ports: [{ports} {{ name: last, port: 9 }}] }}"
        );
    }
    documents
}

/// Endpoints of any service, ready or not, of one family or both.
fn workloads(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..ENDPOINTS {
        if dice.one_in(4) {
            continue;
        }
        let v4 = elsewhere(FIRST + index);
        let v6 = in_v6(v4);
        let addresses = match dice.below(4) {
            0 => v4.to_string(),
            1 => format!("'{v6}'"),
            _ => format!("{v4}, '{v6}'"),
        };
        let (app, version) = (dice.below(3), dice.below(3));
        let labels = format!(", app: s{app}, version: v{version}");
        head(&mut documents, "Workload", &format!("w{index}"), &labels);
        let ready = !dice.one_in(6);
        let _: std::fmt::Result = writeln!(
            documents,
            "spec: {{ addresses: [{addresses}], ready: {ready} }}"
        );
    }
    documents
}

/// Rules with weights, for all sources and for some; `v3` is what nobody is.
fn routes(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..dice.below(7) {
        head(&mut documents, "RouteRule", &format!("t{index}"), "");
        let source = dice.one_of(&[
            "",
            "match: { source: { labels: { app: c } } }, ",
            "match: { source: { labels: { app: o } } }, ",
            "match: { source: { name: s1 } }, ",
        ]);
        let mut left = 100;
        let mut shares = String::new();
        while left > 0 {
            let weight = dice.one_of(&[0, 25, 40, 100]).min(left);
            left -= weight;
            let version = dice.below(4);
            let _: std::fmt::Result = write!(
                shares,
                "{{ labels: {{ version: v{version} }}, weight: {weight} }}, "
            );
        }
        let (service, precedence) = (dice.below(4), dice.below(3));
        let _: std::fmt::Result = writeln!(
            documents,
            "spec: {{ destination: {{ name: s{service} }}, precedence: {precedence}, \
             {source}route: [{shares}] }}"
        );
    }
    documents
}

/// Rules on nested prefixes and on a host name. A port always has one protocol,
/// since two on one address are refused.
fn egress(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..dice.below(8) {
        let target = if dice.one_in(5) {
            "\"*.example.com\"".to_owned()
        } else {
            let bits = dice.one_of(&[24_u32, 28, 30, 31, 32]);
            let host = u32::from(elsewhere(dice.byte(16)));
            let net = Ipv4Addr::from(host & (u32::MAX << (32 - bits)));
            match dice.below(5) {
                0 => "\"::/0\"".to_owned(),
                1 | 2 => format!("\"{}/{}\"", in_v6(net), bits + 96),
                _ => format!("{net}/{bits}"),
            }
        };
        let port = dice.port();
        let by_name = target.contains('*');
        let protocol = match dice.below(3) {
            0 if !by_name => "udp",
            _ if by_name || port.is_multiple_of(2) => "http",
            _ => "tcp",
        };
        let source = dice.one_of(&[
            "",
            ", source: { labels: { app: c } }",
            ", source: { labels: { app: o } }",
        ]);
        head(&mut documents, "EgressRule", &format!("r{index}"), "");
        let _: std::fmt::Result = writeln!(
            documents,
            "spec: {{ destination: {{ service: {target} }}, \
             ports: [{{ port: {port}, protocol: {protocol} }}]{source} }}"
        );
    }
    documents
}

/// What `client` may dial: services most often, itself now and then.
pub fn destination(dice: &mut Dice, client: &Pod) -> SocketAddr {
    let ip = match dice.below(10) {
        0..6 => virtual_address(dice.byte(4)),
        6..8 => elsewhere(dice.byte(16)),
        8 => elsewhere(FIRST + dice.byte(ENDPOINTS)),
        _ => {
            let own = [
                client.ip(),
                client.ip6(),
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ];
            return SocketAddr::new(dice.one_of(&own), dice.port());
        }
    };
    let ip = match dice.below(5) {
        0 | 1 => in_v6(ip).into(),
        2 => ip.to_ipv6_mapped().into(),
        _ => ip.into(),
    };
    SocketAddr::new(ip, dice.port())
}

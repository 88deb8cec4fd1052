//! The hook and the daemon decide alike: what `weir explain` says of random
//! destinations under random configurations is what the kernel then does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use testbed::docs::mesh_config;
use testbed::{Fault, Node, Pod, Weir};

const CONFIGURATIONS: usize = 6;
const DESTINATIONS: usize = 60;
const LIMIT: Duration = Duration::from_secs(5);

/// A sequence of numbers that a seed repeats.
struct Dice {
    state: u64,
}

impl Dice {
    /// A number below `bound`, by xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(all.len() as u64);
        all[usize::try_from(index).unwrap()]
    }

    /// Few addresses and ports, so that what is asked is often what is there.
    fn port(&mut self) -> u16 {
        1 + u16::try_from(self.below(5)).unwrap()
    }

    fn last_byte(&mut self) -> u8 {
        u8::try_from(self.below(16)).unwrap()
    }
}

fn virtual_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, last % 4 + 1)
}

/// The node answers for all of them, and nobody listens: what goes straight is
/// refused at once.
fn elsewhere(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

/// The address of IPv6 that looks like it: what holds for one is asked of both.
fn in_v6(ip: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = ip.octets().map(u16::from);
    Ipv6Addr::new(0xfd00, 0x113, 0, 0, 0, 0, a << 8 | b, c << 8 | d)
}

fn services(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..4 {
        let mut ports = String::new();
        for port in 1..=5 {
            if dice.below(2) == 0 {
                let prefix = dice.one_of(&["http-", "tcp-", "x-"]);
                write!(ports, "{{ name: {prefix}{port}, port: {port} }}, ").unwrap();
            }
            if dice.below(3) == 0 {
                let udp = "protocol: UDP";
                write!(ports, "{{ name: u-{port}, port: {port}, {udp} }}, ").unwrap();
            }
        }
        write!(
            documents,
            "---
apiVersion: v1
kind: Service
metadata: {{ name: s{index}, labels: {{ made: by-dice }} }}
spec: {{ clusterIPs: [{}, '{}'], ports: [{ports} {{ name: last, port: 9 }}] }}
",
            virtual_address(index),
            in_v6(virtual_address(index))
        )
        .unwrap();
    }
    documents
}

fn workloads(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..dice.below(4) {
        let address = elsewhere(16 + u8::try_from(index).unwrap());
        write!(
            documents,
            "---
apiVersion: weir.dev/v1
kind: Workload
metadata: {{ name: w{index}, labels: {{ made: by-dice }} }}
spec: {{ addresses: [{address}, '{}'] }}
",
            in_v6(address)
        )
        .unwrap();
    }
    documents
}

/// Rules on nested prefixes and on a host name. A port always has one protocol,
/// since two on one address are refused.
fn rules(dice: &mut Dice) -> String {
    let mut documents = String::new();
    for index in 0..dice.below(6) {
        let target = if dice.below(5) == 0 {
            "\"*.example.com\"".to_owned()
        } else {
            let bits = dice.one_of(&[24_u32, 28, 30, 31, 32]);
            let host = u32::from(elsewhere(dice.last_byte()));
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
            "source: { labels: { app: c } }",
            "source: { labels: { app: other } }",
        ]);
        write!(
            documents,
            "---
apiVersion: weir.dev/v1
kind: EgressRule
metadata: {{ name: r{index}, labels: {{ made: by-dice }} }}
spec:
  destination: {{ service: {target} }}
  ports: [{{ port: {port}, protocol: {protocol} }}]
  {source}
"
        )
        .unwrap();
    }
    documents
}

fn destination(dice: &mut Dice, client: &Pod) -> SocketAddr {
    let last = dice.last_byte();
    let ip = match dice.below(8) {
        0..3 => virtual_address(last),
        3..6 => elsewhere(last),
        6 => elsewhere(16 + last % 4),
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

/// Dials random destinations, and holds each connect against what `weir explain`
/// says of it; returns the denials that must have been told, with their reasons.
fn dial_all(
    weir: &Weir<'_>,
    client: &Pod,
    dice: &mut Dice,
    context: &str,
) -> BTreeMap<(String, String), u64> {
    let before = outcomes(weir);
    let mut direct = [0, 0];
    let mut denials: BTreeMap<(String, String), u64> = BTreeMap::new();
    for _ in 0..DESTINATIONS {
        let addr = destination(dice, client);
        let is_udp = dice.below(2) == 0;
        let suffix = if is_udp { "/udp" } else { "" };
        let said = weir.json(&["explain", "client", &format!("{addr}{suffix}")]);
        let dialled = if is_udp {
            datagram(client, addr, dice.below(2) == 0)
        } else {
            client.agent().dial(addr).map(drop)
        };
        let denied = dialled.is_err_and(|fault| fault.is(Errno::EPERM));
        assert_eq!(
            said["verdict"] == "deny",
            denied,
            "{addr}{suffix}: {said}\n{context}"
        );
        direct[usize::from(is_udp)] += u64::from(said["verdict"] == "direct");
        if denied {
            let reason = said["reason"].as_str().unwrap().to_owned();
            let told = SocketAddr::new(addr.ip().to_canonical(), addr.port());
            let told = format!("{told}{suffix}");
            *denials.entry((told, reason)).or_default() += 1;
        }
    }
    let after = outcomes(weir);
    assert_eq!(after[0] - before[0], direct[0], "direct\n{context}");
    assert_eq!(after[2] - before[2], direct[1], "direct, UDP\n{context}");
    let denied: u64 = denials.values().sum();
    let counted = after[1] - before[1] + after[3] - before[3];
    assert_eq!(counted, denied, "denied\n{context}");
    denials
}

/// By `connect`, or with its address.
fn datagram(client: &Pod, addr: SocketAddr, connects: bool) -> Result<(), Fault> {
    let sock = if addr.is_ipv4() {
        client.agent().udp4()?
    } else {
        client.agent().udp6()?
    };
    if connects {
        sock.connect(addr)
    } else {
        sock.send_to(addr, "x")
    }
}

/// What the hook let through and denied so far, of TCP and then of UDP.
fn outcomes(weir: &Weir<'_>) -> [u64; 4] {
    const TCP: &str = "weir_kernel_connects_total";
    const UDP: &str = "weir_kernel_udp_total";
    let metrics = weir.metrics();
    [
        (TCP, "direct"),
        (TCP, "denied"),
        (UDP, "direct"),
        (UDP, "denied"),
    ]
    .map(|(family, outcome)| metrics.count(family, &[("outcome", outcome)]))
}

#[test]
fn the_hook_does_what_explain_says() {
    let seed = RandomState::new().hash_one(0) | 1;
    let mut dice = Dice { state: seed };
    let node = Node::new().unwrap();
    node.netns()
        .ip([
            "route add local 203.0.113.0/24 dev lo",
            "route add local fd00:113::/32 dev lo",
        ])
        .unwrap();
    let weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    weir.enroll(&client, &["app=c"]);
    let mut told: BTreeMap<(String, String), u64> = BTreeMap::new();
    for _ in 0..CONFIGURATIONS {
        let mesh = mesh_config(dice.one_of(&["egress: deny", "egress: allow", "egress: audit"]));
        let documents = mesh + &services(&mut dice) + &workloads(&mut dice) + &rules(&mut dice);
        let context = format!("seed {seed}\n{documents}");
        let prune = ["apply", "-f", "-", "--prune", "-l", "made=by-dice"];
        let applied = weir.cli_with(&prune, &documents).unwrap();
        assert_eq!(applied.status, 0, "{applied:?}\n{context}");
        for (denial, count) in dial_all(&weir, &client, &mut dice, &context) {
            *told.entry(denial).or_default() += count;
        }
    }
    assert!(!told.is_empty(), "nothing was denied: seed {seed}");
    for ((destination, reason), count) in told {
        let labels = [
            ("destination", destination.as_str()),
            ("reason", reason.as_str()),
        ];
        testbed::eventually("the denials are counted", LIMIT, || {
            let counted = weir.metrics().count("weir_denials_total", &labels);
            (counted == count)
                .then_some(())
                .ok_or_else(|| format!("{destination} {reason}: {counted}, not {count}"))
        });
    }
    weir.finish().unwrap();
}

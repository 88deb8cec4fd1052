//! Much configuration: the kernel's tables take it whole, give it back, and lose it whole.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use aya::maps::{Array, HashMap, Map, MapData};
use nix::errno::Errno;
use proxy_common::{
    AddressEntry, AddressKey, Destination, EgressEntry, EgressKey, EndpointSlot, NetworkId,
    PolicySetId, Port, ServiceEntry, ServiceKey, Transport,
};
use testbed::agent::proto::Service;
use testbed::docs::{egress_rule, service};
use testbed::mesh::refused;
use testbed::{Fault, Node, Pod, Weir, WeirOptions};

/// Several batches of calls, the last of them not full.
const MANY: u16 = 700;
const NO_PORTS: EgressEntry = EgressEntry {
    port_table: proxy_common::PortTableId(0),
};

/// Tables of the kernel half, one element per call: not as the daemon does it.
struct Tables {
    addresses: HashMap<MapData, AddressKey, AddressEntry>,
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    endpoints: Array<MapData, EndpointSlot>,
    egress: HashMap<MapData, EgressKey, EgressEntry>,
}

/// Whose addresses are in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    /// As often as they are there.
    addresses: Vec<IpAddr>,
    services: Vec<IpAddr>,
    prefixes: Vec<(IpAddr, u32)>,
}

impl Tables {
    fn of(node: &Node) -> Self {
        let map = |name: &str| {
            let pin: PathBuf = node.bpffs().join("weir/maps").join(name);
            MapData::from_pin(pin).unwrap()
        };
        Self {
            addresses: Map::HashMap(map("ADDRESSES")).try_into().unwrap(),
            services: Map::HashMap(map("SERVICES")).try_into().unwrap(),
            endpoints: Map::Array(map("ENDPOINTS")).try_into().unwrap(),
            egress: Map::HashMap(map("EGRESS")).try_into().unwrap(),
        }
    }

    fn held(&self) -> Held {
        let addresses = self.addresses.keys().map(|key| key.unwrap().addr.to_ip());
        let services = self.services.keys().map(|key| key.unwrap().addr.to_ip());
        let prefixes = self.egress.keys().map(|key| {
            let key = key.unwrap();
            (key.addr.to_ip(), key.bits)
        });
        let mut held = Held {
            addresses: addresses.collect(),
            services: services.collect(),
            prefixes: prefixes.collect(),
        };
        held.addresses.sort_unstable();
        held.services.sort_unstable();
        held.prefixes.sort_unstable();
        held
    }

    /// The endpoints in the table of a service, from slots that are its own.
    fn endpoints(&self, of: IpAddr) -> BTreeSet<IpAddr> {
        let mut services = self.services.iter().flatten();
        let entry = services.find(|(key, _)| key.addr.to_ip() == of);
        let block = entry.unwrap().1.own_block().unwrap();
        let slots = block.offset..block.offset + block.len;
        let slots = slots.map(|index| self.endpoints.get(&index, 0).unwrap());
        let slots = slots.inspect(|slot| assert_eq!(slot.generation, block.generation));
        slots.map(|slot| slot.first.addr.to_ip()).collect()
    }
}

fn numbered(first: [u8; 2], n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(first[0], first[1], high, low).into()
}

fn endpoint(n: u16) -> IpAddr {
    numbered([10, 9], n)
}

fn virtual_address(n: u16) -> IpAddr {
    numbered([10, 97], n)
}

/// Of both families.
fn prefix(n: u16) -> (IpAddr, u8) {
    if n.is_multiple_of(3) {
        return (Ipv6Addr::new(0xfd00, 0x198, n, 0, 0, 0, 0, 0).into(), 48);
    }
    (numbered([198, 18], n), 32)
}

/// Endpoints, of which the first service has all and the others none; and rules.
fn bulk() -> String {
    let label =
        |document: String| document.replacen("metadata: {", "metadata: {labels: {made: bulk}, ", 1);
    let workload = |n| {
        let address = endpoint(n);
        format!(
            "---\napiVersion: weir.dev/v1\nkind: Workload\n\
             metadata: {{name: w{n}, labels: {{made: bulk, app: many}}}}\n\
             spec: {{addresses: [{address}]}}\n"
        )
    };
    let port = "name: tcp, port: 90, targetPort: 9000";
    let service = |n| {
        let app = if n == 0 { "many" } else { "none" };
        label(service(&format!("s{n}"), virtual_address(n), app, &[port]))
    };
    let rule = |n| {
        let (address, bits) = prefix(n);
        // Some share their table of ports.
        let ports = [(1000 + n % 500, "tcp")];
        let name = format!("r{n}");
        label(egress_rule(&name, format!("{address}/{bits}"), &ports, ""))
    };
    (0..MANY)
        .map(|n| workload(n) + &service(n) + &rule(n))
        .collect()
}

/// What they add to the tables.
fn with_bulk(base: &Held) -> Held {
    let mut held = base.clone();
    for n in 0..MANY {
        held.addresses.extend([endpoint(n), virtual_address(n)]);
        held.services.push(virtual_address(n));
        let (address, bits) = prefix(n);
        let above = if address.is_ipv4() { 96 } else { 0 };
        held.prefixes.push((address, above + u32::from(bits)));
    }
    held.addresses.sort_unstable();
    held.services.sort_unstable();
    held.prefixes.sort_unstable();
    held
}

/// A client, and a machine outside of which port 7000 is open; what that is in the tables.
fn mesh<'a>(node: &'a Node, limits: &[&str]) -> (Weir<'a>, Pod, Pod, Held) {
    let args = limits.iter().flat_map(|limit| ["--map-limit", limit]);
    let options = WeirOptions {
        args: args.map(str::to_owned).collect(),
        ..WeirOptions::default()
    };
    let weir = Weir::start_with(node, options).unwrap();
    let outside = node.outside("outside").unwrap();
    for port in [7000, 7001] {
        let what = Service::Whoami { name: "o".into() };
        outside.agent().serve(outside.at(port), what).unwrap();
    }
    let client = node.pod("client").unwrap();
    weir.enroll(&client, &["app=c"]);
    weir.apply(&egress_rule("near", outside.ip(), &[(7000, "tcp")], ""));
    let base = Tables::of(node).held();
    (weir, client, outside, base)
}

fn ask(client: &Pod, outside: &Pod, port: u16) -> Result<(), Fault> {
    let sock = client.agent().dial(outside.at(port))?;
    sock.send("x\n")?;
    assert!(sock.recv_to_end()?.0.starts_with("o "));
    Ok(())
}

fn is_as_before(client: &Pod, outside: &Pod) {
    ask(client, outside, 7000).unwrap();
    refused(ask(client, outside, 7001), Errno::EPERM);
}

/// Written, taken over by the next daemon, which reads back what it has to remove,
/// and removed, with some of it gone already.
#[test]
fn much_is_written_read_back_and_removed() {
    let node = Node::new().unwrap();
    let (mut weir, client, outside, base) = mesh(&node, &[]);
    weir.apply(&bulk());
    let endpoints: BTreeSet<IpAddr> = (0..MANY).map(endpoint).collect();
    let mut tables = Tables::of(&node);
    assert_eq!(tables.held(), with_bulk(&base));
    assert_eq!(tables.endpoints(virtual_address(0)), endpoints);
    let policy_set = |tables: &Tables| {
        let key = tables.egress.keys().next().unwrap().unwrap();
        key.policy_set
    };
    let former = policy_set(&tables);
    weir.kill9().unwrap();
    weir.launch().unwrap();
    assert_eq!(tables.held(), with_bulk(&base));
    assert_eq!(tables.endpoints(virtual_address(0)), endpoints);
    assert_ne!(policy_set(&tables), former, "written anew");
    is_as_before(&client, &outside);
    for n in [1, 2, 256, 300, MANY - 1] {
        let addresses = tables.addresses.keys().flatten();
        let key = { addresses }.find(|key| key.addr.to_ip() == virtual_address(n));
        tables.addresses.remove(&key.unwrap()).unwrap();
        let prefixes = tables.egress.keys().flatten();
        let key = { prefixes }.find(|key| key.addr.to_ip() == prefix(n).0);
        tables.egress.remove(&key.unwrap()).unwrap();
    }
    let prune = ["apply", "-f", "-", "--prune", "-l", "made=bulk"];
    let rule = egress_rule("near", outside.ip(), &[(7000, "tcp")], "");
    let pruned = weir.cli_with(&prune, &rule).unwrap();
    assert_eq!(pruned.status, 0, "{pruned:?}");
    assert_eq!(tables.held(), base);
    is_as_before(&client, &outside);
    weir.finish().unwrap();
}

/// More than the operator's limits is refused, dry run or not, with the map's name and
/// what to start weir with, before anything is written.
#[test]
fn what_exceeds_a_limit_is_refused_aloud() {
    const LIMITED: u16 = 60;
    let node = Node::new().unwrap();
    let (weir, client, outside, base) = mesh(&node, &["services=100", "egress=100"]);
    let held = || Tables::of(&node).held();
    let services = |many: u16| -> String {
        let ports = ["name: tcp, port: 90, targetPort: 9000"];
        let one = |n| service(&format!("s{n}"), virtual_address(n), "none", &ports);
        (0..many).map(one).collect()
    };
    let rules = |many: u16| -> String {
        let rule = |n| {
            let (address, bits) = prefix(n);
            egress_rule(
                &format!("r{n}"),
                format!("{address}/{bits}"),
                &[(1000, "tcp")],
                "",
            )
        };
        (0..many).map(rule).collect()
    };
    let before = weir.json(&["status"])["revision"].clone();
    for (map, flag, documents) in [
        ("SERVICES", "services", services(LIMITED)),
        ("EGRESS", "egress", rules(LIMITED)),
        // What would fit does not come without the rest.
        ("EGRESS", "egress", services(10) + &rules(LIMITED)),
    ] {
        for args in [
            &["apply", "-f", "-", "--dry-run"][..],
            &["apply", "-f", "-"],
        ] {
            let refused = weir.cli_with(args, &documents).unwrap();
            assert_eq!(refused.status, 1, "{args:?}: {refused:?}");
            let said = &refused.stderr;
            let wanted = format!("start weir with --map-limit {flag}=");
            assert!(said.contains(&format!("{map} would need ")), "{said}");
            assert!(
                said.contains("the limit is 100: nothing was changed"),
                "{said}"
            );
            assert!(said.contains(&wanted), "{said}");
            assert_eq!(held(), base, "{args:?}");
            assert_eq!(weir.json(&["status"])["revision"], before);
        }
        is_as_before(&client, &outside);
    }
    // What fits is taken, to the half of each table.
    let room = |of: usize| 50 - u16::try_from(of).unwrap();
    let (many_services, many_rules) = (room(base.services.len()), room(base.prefixes.len()));
    let fits = services(many_services) + &rules(many_rules);
    let dry = weir
        .cli_with(&["apply", "-f", "-", "--dry-run"], &fits)
        .unwrap();
    assert_eq!(dry.status, 0, "{dry:?}");
    assert_eq!(held(), base);
    weir.apply(&fits);
    assert_eq!((held().services.len(), held().prefixes.len()), (50, 50));
    let one_more = weir.try_apply(&services(many_services + 1));
    assert_eq!(one_more.status, 1, "{one_more:?}");
    assert!(
        one_more.stderr.contains("--map-limit services=102 or more"),
        "{one_more:?}"
    );
    is_as_before(&client, &outside);
    weir.finish().unwrap();
}

/// Somebody else fills a table, and the kernel takes one batch and not the next:
/// told with the table's name and what clears it, and undone.
#[test]
fn a_full_table_is_told_and_what_was_holds() {
    const LIMIT: u32 = 2_000;
    const ROOM: u32 = 300;
    let node = Node::new().unwrap();
    let (mut weir, client, outside, base) = mesh(&node, &["egress=2000", "services=2000"]);
    let mut tables = Tables::of(&node);
    let stranger = |n: u32| IpAddr::from(Ipv6Addr::from(u128::from(n) | 0xfd99 << 112));
    let full = LIMIT - ROOM;
    for n in u32::try_from(base.services.len()).unwrap()..full {
        let addr = stranger(n).into();
        let dialled = Destination {
            addr,
            port: Port::from_user_port(80),
        };
        let key = ServiceKey::new(NetworkId(u32::MAX), dialled, Transport::Tcp);
        let entry = ServiceEntry::proxied(proxy_common::ServiceId(1));
        tables.services.insert(key, entry, 0).unwrap();
    }
    let before = weir.json(&["status"])["revision"].clone();
    let fails = |table: &str| {
        let output = weir.try_apply(&bulk());
        assert_ne!(output.status, 0, "{output:?}");
        let said = format!("map {table} is full");
        assert!(output.stderr.contains(&said), "{output:?}");
        assert_eq!(weir.json(&["status"])["revision"], before);
        assert_eq!(Tables::of(&node).held(), base);
        is_as_before(&client, &outside);
    };
    fails("SERVICES");
    for n in u32::try_from(base.prefixes.len()).unwrap()..full {
        let key = EgressKey {
            policy_set: PolicySetId(u32::MAX),
            bits: 128,
            addr: stranger(n).into(),
        };
        tables.egress.insert(key, NO_PORTS, 0).unwrap();
    }
    fails("EGRESS");
    weir.apply(&bulk());
    assert_eq!(tables.held(), with_bulk(&base));
    // A stranger's entries that a daemon finds when it starts are removed as well.
    weir.kill9().unwrap();
    weir.launch().unwrap();
    assert_eq!(tables.held(), with_bulk(&base));
    weir.finish().unwrap();
}

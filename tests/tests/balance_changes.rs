//! Endpoints of balanced connections that change under load: all at once, and with
//! nothing for those that are gone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testbed::agent::proto::Service;
use testbed::docs::service;
use testbed::{Agent, Fault, Node, Pod, Weir};

/// Endpoints of each of the two sets.
const EACH: u8 = 30;
/// How often one set is changed for the other.
const FLIPS: usize = 24;
/// Those who dial without pause.
const CLIENTS: usize = 3;
const SETS: [&str; 2] = ["a", "b"];

fn vips() -> [SocketAddr; 2] {
    ["10.96.0.1:80", "[fd00:96::1]:80"].map(|text| text.parse().unwrap())
}

/// Who answers one connection.
fn ask(agent: &Agent, to: SocketAddr) -> Result<String, Fault> {
    let sock = agent.dial(to)?;
    sock.send("x\n")?;
    let (said, fault) = sock.recv_to_end()?;
    let name = said.split(' ').next().unwrap_or_default().to_owned();
    fault.map_or(Ok(name), Err)
}

/// The addresses of the endpoint with this number, which is of the first set if it is even.
fn addresses(number: u8) -> [IpAddr; 2] {
    let network = Node::pod_network();
    let last = 100 + number;
    [network.host(last).into(), network.host6(last).into()]
}

/// A pod that is every endpoint: each says which set it is of, and its number.
fn endpoints(node: &Node) -> Pod {
    let pod = node.pod("all").unwrap();
    for number in 0..2 * EACH {
        let [four, six] = addresses(number);
        let added = [
            format!("addr add {four}/24 dev eth0"),
            format!("addr add {six}/64 dev eth0 nodad"),
        ];
        pod.netns().ip(added).unwrap();
        for ip in [four, six] {
            let name = format!("{}{number}", SETS[usize::from(number % 2)]);
            let at = SocketAddr::new(ip, 8000);
            pod.agent().serve(at, Service::Whoami { name }).unwrap();
        }
    }
    pod
}

/// Documents of all endpoints, those of one set ready.
fn documents(ready: usize) -> String {
    let mut documents = String::new();
    for number in 0..2 * EACH {
        let set = usize::from(number % 2);
        let [four, six] = addresses(number);
        let is_ready = set == ready;
        // Writing to a string cannot fail.
        let _: std::fmt::Result = write!(
            documents,
            "---\napiVersion: weir.dev/v1\nkind: Workload\n\
             metadata: {{name: e{number}, labels: {{app: s, set: {}}}}}\n\
             spec: {{addresses: [{four}, '{six}'], ready: {is_ready}}}\n",
            SETS[set],
        );
    }
    documents
}

/// What every client has to hear from now on: the set whose change is over, or
/// either while one is under way, which is odd.
struct Standing(AtomicUsize);

impl Standing {
    /// The only set there is, as long as the number stays what it is.
    fn only(number: usize) -> Option<&'static str> {
        number.is_multiple_of(2).then(|| SETS[number / 2 % 2])
    }
}

/// Dials until it is over; which endpoints answered.
fn dialled(agent: &Agent, standing: &Standing, is_over: &AtomicBool) -> BTreeSet<String> {
    let mut heard = BTreeSet::new();
    while !is_over.load(Ordering::SeqCst) {
        for to in vips() {
            let before = standing.0.load(Ordering::SeqCst);
            let name = ask(agent, to).unwrap_or_else(|fault| panic!("{to}: {fault}"));
            let after = standing.0.load(Ordering::SeqCst);
            if before == after
                && let Some(only) = Standing::only(before)
            {
                assert!(name.starts_with(only), "{to}: {name} of another set");
            }
            heard.insert(name);
        }
    }
    heard
}

/// Ends the load, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All endpoints of a service are changed for others, by readiness of each and by the
/// service's selector: no connect fails, and once the change is answered none goes to
/// the former ones.
#[test]
fn a_whole_set_of_endpoints_changes_at_once() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let client = node.pod("client").unwrap();
    let _all = endpoints(&node);
    weir.enroll_found(&client, &["app=c"]);
    let selecting = |selector: &str| {
        let ports = ["name: tcp, port: 80, targetPort: 8000"];
        let text = service("s", "10.96.0.1, 'fd00:96::1'", "s", &ports);
        text.replace("{app: s}", selector)
    };
    weir.apply(&(documents(0) + &selecting("{app: s}")));
    let standing = Standing(AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let agents = [(); CLIENTS].map(|()| client.new_agent().unwrap());
    let heard = std::thread::scope(|scope| {
        let (standing, is_over) = (&standing, &is_over);
        let loads: Vec<_> = agents
            .iter()
            .map(|agent| scope.spawn(move || dialled(agent, standing, is_over)))
            .collect();
        let over = Over(is_over);
        let flip = |number: usize, change: &str| {
            let begun = standing.0.fetch_add(1, Ordering::SeqCst);
            assert_eq!(begun, 2 * number - 2);
            weir.apply(change);
            standing.0.fetch_add(1, Ordering::SeqCst);
            let only = SETS[number % 2];
            for to in vips().into_iter().cycle().take(6) {
                let name = ask(client.agent(), to).unwrap();
                assert!(name.starts_with(only), "{number}: {name}");
            }
        };
        for number in 1..=FLIPS / 2 {
            flip(number, &documents(number % 2));
        }
        // All of them are ready, and the selector tells which are meant.
        weir.apply(&selecting("{app: s, set: a}"));
        weir.apply(&documents(0).replace("ready: false", "ready: true"));
        for number in FLIPS / 2 + 1..=FLIPS {
            flip(
                number,
                &selecting(&format!("{{app: s, set: {}}}", SETS[number % 2])),
            );
        }
        drop(over);
        let joined = loads.into_iter().map(|load| load.join().unwrap());
        joined.flatten().collect::<BTreeSet<_>>()
    });
    assert!(heard.len() > usize::from(EACH), "{heard:?}");
    for outcome in ["no_endpoint", "service_changed"] {
        let labels = [("outcome", outcome)];
        let count = weir.metrics().count("weir_kernel_connects_total", &labels);
        assert_eq!(count, 0, "{outcome}");
    }
}

/// An endpoint that is deleted is gone with the answer, and no connect fails for it.
#[test]
fn a_deleted_endpoint_gets_nothing_more() {
    let node = Node::new().unwrap();
    let weir = Weir::start(&node).unwrap();
    let [client, one, two] = node.pods(["client", "one", "two"]).unwrap();
    for (pod, name) in [(&one, "a"), (&two, "b")] {
        let all = SocketAddr::new("::".parse().unwrap(), 8000);
        let what = Service::Whoami { name: name.into() };
        pod.agent().serve(all, what).unwrap();
        weir.enroll_found(pod, &["app=s"]);
    }
    weir.enroll_found(&client, &["app=c"]);
    let ports = ["name: tcp, port: 80, targetPort: 8000"];
    weir.apply(&service("s", "10.96.0.1, 'fd00:96::1'", "s", &ports));
    // Odd: any answer is right, but an error is none.
    let standing = Standing(AtomicUsize::new(1));
    let is_over = AtomicBool::new(false);
    let agents = [(); CLIENTS].map(|()| client.new_agent().unwrap());
    std::thread::scope(|scope| {
        let (standing, is_over) = (&standing, &is_over);
        let loads: Vec<_> = agents
            .iter()
            .map(|agent| scope.spawn(move || dialled(agent, standing, is_over)))
            .collect();
        let over = Over(is_over);
        for round in 0..10 {
            let (leaves, stays) = if round % 2 == 0 {
                (&one, "b")
            } else {
                (&two, "a")
            };
            weir.ok(&["delete", "workload", leaves.name()]);
            for to in vips().into_iter().cycle().take(10) {
                assert_eq!(ask(client.agent(), to).unwrap(), stays, "{round}");
            }
            weir.enroll_found(leaves, &["app=s"]);
        }
        drop(over);
        for load in loads {
            assert_eq!(load.join().unwrap().len(), 2);
        }
    });
    let labels = [("outcome", "no_endpoint")];
    assert_eq!(
        weir.metrics().count("weir_kernel_connects_total", &labels),
        0
    );
}

//! How long an apply takes on a node with everything that weir says it can
//! hold, from nothing and for one object; `cargo xtask bench --scale` measures this alone.
//!
//! Every figure is the wall time of the command line, as an operator waits for
//! it. The documents are JSON, one a line: YAML takes several times as long to
//! read, and nobody writes as much by hand.

mod report;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Netns, Node, Weir, WeirOptions};

pub(super) use report::{json, targets, text};

/// Workloads of this node.
const PODS: u32 = 500;
/// Services, each with [`ENDPOINTS`] workloads elsewhere.
const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
/// Egress rules, each on a prefix of its own.
const PREFIXES: u32 = 100_000;
/// Changes of one object of each kind that are measured.
const CHANGES: u32 = 20;

/// How long the canaries of all pods may take.
const CANARIES_LIMIT: Duration = Duration::from_mins(3);

/// What is changed, and the object that its turn changes.
type Change = (&'static str, fn(u32) -> Value);

/// A pod without a process: a namespace with an address, and a cgroup.
struct Shell {
    netns: Netns,
    cgroup: PathBuf,
    address: String,
}

impl Shell {
    fn new(node: &Node, index: u32) -> Result<Self> {
        let name = format!("{}-s{index}", node.name());
        let cgroup = node.pods_cgroup().join(format!("s{index}"));
        fs::create_dir(&cgroup).context("cannot make a cgroup")?;
        let shell = Self {
            netns: Netns::new(&name)?,
            cgroup,
            address: format!("10.200.{}.{}", index >> 8, index & 255),
        };
        shell.netns.ip([
            "link add eth0 type veth peer name eth1".to_owned(),
            format!("addr add {}/32 dev eth0", shell.address),
            "link set eth0 up".to_owned(),
        ])?;
        Ok(shell)
    }

    fn document(&self, index: u32) -> Value {
        json!({
            "apiVersion": "weir.dev/v1",
            "kind": "Workload",
            "metadata": { "name": format!("local-{index}"), "labels": { "app": "local" } },
            "spec": {
                "addresses": [self.address],
                "netns": self.netns.path(),
                "cgroup": self.cgroup,
            },
        })
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("{}: {error}", self.cgroup.display());
        }
    }
}

/// Every other one is balanced by the kernel, and has a table of endpoints there.
fn service(index: u32) -> Value {
    let protocol = if index.is_multiple_of(2) {
        "tcp"
    } else {
        "http"
    };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("service-{index}") },
        "spec": {
            "clusterIPs": [format!("10.96.{}.{}", index >> 8, index & 255)],
            "ports": [{ "port": 80, "appProtocol": protocol }],
            "selector": { "app": format!("app-{index}") },
        },
    })
}

fn endpoint(index: u32, is_ready: bool) -> Value {
    let service = index / ENDPOINTS;
    json!({
        "apiVersion": "weir.dev/v1",
        "kind": "Workload",
        "metadata": {
            "name": format!("endpoint-{index}"),
            "labels": { "app": format!("app-{service}"), "version": "v1" },
        },
        "spec": {
            "addresses": [format!("10.{}.{}.{}", 100 + (index >> 16), index >> 8 & 255, index & 255)],
            "ready": is_ready,
            "node": "elsewhere",
        },
    })
}

fn egress(index: u32, port: u16) -> Value {
    json!({
        "apiVersion": "weir.dev/v1",
        "kind": "EgressRule",
        "metadata": { "name": format!("prefix-{index}") },
        "spec": {
            "destination": {
                "service": format!("{}.{}.{}.0/24", 20 + (index >> 16), index >> 8 & 255, index & 255),
            },
            "ports": [{ "port": port, "protocol": "tcp" }],
        },
    })
}

/// What was measured.
pub(super) struct Scale {
    /// Of everything, from nothing.
    all: Duration,
    /// Of one object, by what was changed; in order.
    one: Vec<(&'static str, Vec<Duration>)>,
    /// A start with all of it stored.
    start: Duration,
    /// What the kernel takes for weir's maps.
    maps_bytes: u64,
    /// What the daemon keeps in memory.
    resident_bytes: u64,
}

/// Measures it.
pub(super) fn measure() -> Result<Scale> {
    let node = Node::new()?;
    println!("making {PODS} pods …");
    let shells: Vec<Shell> = (0..PODS)
        .map(|index| Shell::new(&node, index))
        .collect::<Result<_>>()?;
    let mut weir = Weir::start_with(
        &node,
        WeirOptions {
            args: vec!["--resolver".into(), "127.0.0.1:53".into()],
            ..WeirOptions::default()
        },
    )?;
    let all = node.dir().join("all.json");
    write(&all, everything(&shells))?;
    let size = fs::metadata(&all).context("the documents are gone")?.len() >> 20;
    println!(
        "applying {PODS} pods, {SERVICES} services, {} endpoints and {PREFIXES} prefixes: {size} MiB of JSON …",
        SERVICES * ENDPOINTS
    );
    let all = apply(&weir, &all)?;
    wait_for_canaries(&weir)?;
    let one = one_by_one(&node, &weir)?;
    let (maps_bytes, resident_bytes) = memory(&weir)?;
    weir.stop()?;
    let start = Instant::now();
    weir.launch()?;
    let start = start.elapsed();
    weir.finish()?;
    Ok(Scale {
        all,
        one,
        start,
        maps_bytes,
        resident_bytes,
    })
}

/// Puts all but the pods in force.
pub(super) fn apply_services(node: &Node, weir: &Weir<'_>) -> Result<()> {
    let all = node.dir().join("all.json");
    write(&all, everything(&[]))?;
    apply(weir, &all).map(drop)
}

/// Every document of the node.
fn everything(shells: &[Shell]) -> impl Iterator<Item = Value> {
    let local = shells
        .iter()
        .zip(0..)
        .map(|(shell, index)| shell.document(index));
    local
        .chain((0..SERVICES).map(service))
        .chain((0..SERVICES * ENDPOINTS).map(|index| endpoint(index, true)))
        .chain((0..PREFIXES).map(|index| egress(index, 443)))
}

/// Changes of one object of each kind; the times in order.
fn one_by_one(node: &Node, weir: &Weir<'_>) -> Result<Vec<(&'static str, Vec<Duration>)>> {
    let one = node.dir().join("one.json");
    let changes: [Change; 3] = [
        ("one Workload made unready", |turn| {
            endpoint(turn * 1_013, false)
        }),
        ("one Service given another port", |turn| {
            let mut changed = service(turn * 101);
            changed["spec"]["ports"][0]["targetPort"] = json!(8080);
            changed
        }),
        ("one EgressRule given another port", |turn| {
            egress(turn * 1_013, 8443)
        }),
    ];
    let mut measured = Vec::new();
    for (what, change) in changes {
        let mut times = Vec::new();
        for turn in 0..CHANGES {
            write(&one, [change(turn)])?;
            times.push(apply(weir, &one)?);
        }
        times.sort();
        measured.push((what, times));
    }
    Ok(measured)
}

/// They take the CPU that the next figures are about.
fn wait_for_canaries(weir: &Weir<'_>) -> Result<()> {
    let end = Instant::now() + CANARIES_LIMIT;
    loop {
        let workloads = weir.json(&["workloads"]);
        let items = workloads["items"].as_array();
        let items = items.context("there are no workloads")?;
        if items.iter().all(|item| item["captured"] == true) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not captured: {workloads}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn write(file: &Path, documents: impl IntoIterator<Item = Value>) -> Result<()> {
    let mut text = String::new();
    for document in documents {
        let _infallible = writeln!(text, "{document}");
    }
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

/// The wall time of one `weir apply`.
fn apply(weir: &Weir<'_>, file: &Path) -> Result<Duration> {
    let file = file.to_str().context("a path is UTF-8")?;
    let start = Instant::now();
    let output = weir.cli(&["apply", "-f", file])?;
    let took = start.elapsed();
    ensure!(
        output.status == 0,
        "weir apply: {}\n{}",
        output.stderr,
        weir.log()
    );
    Ok(took)
}

/// What the kernel and the daemon keep of it, in bytes.
fn memory(weir: &Weir<'_>) -> Result<(u64, u64)> {
    let status = weir.json(&["status"]);
    let maps = status["dataplane"]["maps"].as_array();
    let maps = maps.context("status shows no maps")?;
    let bytes: u64 = maps.iter().filter_map(|map| map["bytes"].as_u64()).sum();
    let pid = weir.id().context("weir does not run")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
        .context("the kernel does not say what the daemon keeps")?;
    Ok((bytes, resident.trim().parse::<u64>()? << 10))
}

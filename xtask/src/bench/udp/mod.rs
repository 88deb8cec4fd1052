//! What a datagram there and back costs, by what weir does about it, and how
//! long its hooks run.
//!
//! Owns the order: each round runs every way in turn. The kernel's statistics,
//! which cost time themselves, are on only while hooks are measured.

mod report;
mod site;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::Node;

use super::hook::Statistics;
use super::meter::Cpu;
use super::result::{Measured, Quantity, median};
pub(super) use report::{json, text};
use site::Site;

/// How long each hook is measured.
const HOOK_TIME: Duration = Duration::from_secs(1);

/// The way that datagrams take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From pod to pod, without weir.
    ToPod,
    /// To a service, whose endpoint is a pod.
    Balanced,
    /// To a machine outside, without weir.
    ToOutside,
    /// The same, allowed by an egress rule.
    Allowed,
}

/// How the client calls the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Style {
    /// On a connected socket: no datagram names an address.
    Connected,
    /// Each datagram names its destination, and each answer its source.
    Addressed,
}

/// What the hooks make of a client's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Unenrolled,
    Allowed,
    Balanced,
}

/// A hook of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Connect,
    Send,
    Receive,
}

impl Way {
    const ALL: [Self; 4] = [Self::ToPod, Self::Balanced, Self::ToOutside, Self::Allowed];

    const fn title(self) -> &'static str {
        match self {
            Self::ToPod => "no mesh, pod to pod",
            Self::Balanced => "weir, balanced to the pod",
            Self::ToOutside => "no mesh, pod to outside",
            Self::Allowed => "weir, by an egress rule",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::ToPod => "noMesh",
            Self::Balanced => "weirBalance",
            Self::ToOutside => "noMeshOutside",
            Self::Allowed => "weirEgress",
        }
    }
}

impl Style {
    const ALL: [Self; 2] = [Self::Connected, Self::Addressed];

    const fn title(self) -> &'static str {
        match self {
            Self::Connected => "connected socket",
            Self::Addressed => "each datagram addressed",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Addressed => "addressed",
        }
    }

    /// The client of this style.
    const fn peer(self) -> &'static str {
        match self {
            Self::Connected => "datagrams",
            Self::Addressed => "addressed",
        }
    }
}

impl Case {
    const ALL: [Self; 3] = [Self::Unenrolled, Self::Allowed, Self::Balanced];

    const fn title(self) -> &'static str {
        match self {
            Self::Unenrolled => "not enrolled",
            Self::Allowed => "by an egress rule",
            Self::Balanced => "balanced",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Unenrolled => "unenrolled",
            Self::Allowed => "egress",
            Self::Balanced => "balance",
        }
    }
}

impl Hook {
    const ALL: [Self; 3] = [Self::Connect, Self::Send, Self::Receive];

    const fn title(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Send => "sendmsg",
            Self::Receive => "recvmsg",
        }
    }

    /// Its program.
    const fn program(self) -> &'static str {
        match self {
            Self::Connect => "weir_connect4",
            Self::Send => "weir_sendmsg4",
            Self::Receive => "weir_recvmsg4",
        }
    }

    /// The client that lets it run with each operation.
    const fn peer(self) -> &'static str {
        match self {
            Self::Connect => "datagram-connect",
            Self::Send | Self::Receive => Style::Addressed.peer(),
        }
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Datagrams {
    values: BTreeMap<(Style, Way, Quantity), Vec<f64>>,
    /// The mean run in nanoseconds.
    hooks: BTreeMap<(Case, Hook), f64>,
}

impl Datagrams {
    fn add(&mut self, style: Style, way: Way, measured: Measured, cpu: Cpu) {
        let mut put = |quantity, value| {
            let values = self.values.entry((style, way, quantity));
            values.or_default().push(value);
        };
        put(Quantity::Rate, measured.operations / measured.seconds);
        put(Quantity::P50, measured.p50_us);
        put(Quantity::P99, measured.p99_us);
        let micros = cpu.machine.as_secs_f64() * 1e6;
        put(Quantity::NodeCpu, micros / measured.operations);
    }

    fn rounds(&self, style: Style, way: Way, quantity: Quantity) -> &[f64] {
        let values = self.values.get(&(style, way, quantity));
        values.map_or(&[], Vec::as_slice)
    }

    fn median(&self, style: Style, way: Way, quantity: Quantity) -> Option<f64> {
        median(self.rounds(style, way, quantity))
    }
}

/// Measures every way, then the hooks.
pub(super) fn measure(rounds: u32, seconds: u64) -> Result<Datagrams> {
    let (bare, meshed) = (Node::new()?, Node::new()?);
    let site = Site::new(&bare, &meshed)?;
    let mut datagrams = Datagrams::default();
    for round in 1..=rounds {
        println!("round {round} of {rounds}, UDP …");
        for style in Style::ALL {
            for way in Way::ALL {
                let (measured, cpu) = site
                    .exchange(way, style, Duration::from_secs(seconds))
                    .with_context(|| format!("UDP, {}, {}", way.title(), style.title()))?;
                datagrams.add(style, way, measured, cpu);
            }
        }
    }
    println!("UDP, hooks …");
    let _statistics = Statistics::on()?;
    for case in Case::ALL {
        for hooks in [&[Hook::Connect][..], &[Hook::Send, Hook::Receive]] {
            let means = site
                .hooks(case, hooks, HOOK_TIME)
                .with_context(|| format!("UDP, {}", case.title()))?;
            datagrams
                .hooks
                .extend(means.into_iter().map(|(hook, mean)| ((case, hook), mean)));
        }
    }
    Ok(datagrams)
}

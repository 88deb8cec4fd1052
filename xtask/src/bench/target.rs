//! The targets that weir is held to, and whether one run met them.

use std::time::Duration;

use super::load::Load;
use super::memory::Memory;
use super::result::{Quantity, Results};
use super::row::Kind;

const MIB: f64 = 1_048_576.0;
const KIB: f64 = 1024.0;

/// One target, with what was measured; none where its rows were left out.
#[derive(Clone)]
pub(super) struct Target {
    /// What is compared.
    pub(super) what: &'static str,
    /// The bound.
    pub(super) bound: Bound,
    /// The value.
    pub(super) measured: Option<f64>,
}

/// From which side a value is bounded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Target {
    /// Whether it was met; none if it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        })
    }
}

/// Every target, with the values of this run.
pub(super) fn all(results: &Results, memory: Option<Memory>) -> Vec<Target> {
    [
        of_proxied(results),
        of_bytes(results),
        of_balanced(results),
        of_memory(memory),
    ]
    .concat()
}

fn target(what: &'static str, bound: Bound, measured: Option<f64>) -> Target {
    Target {
        what,
        bound,
        measured,
    }
}

fn of_proxied(results: &Results) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    vec![
        target(
            "HTTP, 64 connections: proxy CPU/request, weir / HAProxy",
            AtMost(0.9),
            results.ratio(Load::Http64, Quantity::ProxyCpu, Kind::Weir, Kind::Haproxy),
        ),
        target(
            "HTTP, 64 connections: requests/s, weir / HAProxy",
            AtLeast(1.1),
            results.ratio(Load::Http64, Quantity::Rate, Kind::Weir, Kind::Haproxy),
        ),
        target(
            "TCP request/response: p50, weir / no mesh",
            AtMost(1.3),
            results.ratio(Load::Exchange, Quantity::P50, Kind::Weir, Kind::NoMesh),
        ),
        target(
            "TCP bulk sent: Gbit/s, weir / no mesh",
            AtLeast(0.4),
            results.ratio(Load::Send, Quantity::Gbits, Kind::Weir, Kind::NoMesh),
        ),
        target(
            "TCP bulk received: Gbit/s, weir / no mesh",
            AtLeast(0.4),
            results.ratio(Load::Receive, Quantity::Gbits, Kind::Weir, Kind::NoMesh),
        ),
        // Short connections are judged by what they cost: on few cores, how
        // many fit into a second depends on who wakes up where.
        target(
            "TCP connect + request + close: operations per CPU second, weir / iptables → weir",
            AtLeast(1.2),
            results.ratio(Load::Connect, Quantity::NodeCpu, Kind::Redirect, Kind::Weir),
        ),
    ]
}

/// What a port declared `tcp` gets, which never meets the proxy: against no mesh at
/// all, and held to what the proxy is held to.
fn of_balanced(results: &Results) -> Vec<Target> {
    use Bound::{AtLeast, AtMost};
    let cheaper = |load| results.ratio(load, Quantity::NodeCpu, Kind::NoMesh, Kind::Balance);
    vec![
        target(
            "HTTP, 64 connections: whole-node CPU/request, no mesh / balanced",
            AtLeast(0.97),
            cheaper(Load::Http64),
        ),
        target(
            "TCP request/response: whole-node CPU/operation, no mesh / balanced",
            AtLeast(0.97),
            cheaper(Load::Exchange),
        ),
        target(
            "TCP request/response: p50, balanced / no mesh",
            AtMost(1.3),
            results.ratio(Load::Exchange, Quantity::P50, Kind::Balance, Kind::NoMesh),
        ),
        target(
            "TCP connect + request + close: operations per CPU second, balanced / iptables → weir",
            AtLeast(1.2),
            results.ratio(
                Load::Connect,
                Quantity::NodeCpu,
                Kind::Redirect,
                Kind::Balance,
            ),
        ),
        target(
            "TCP bulk sent: whole-node CPU/MiB, no mesh / balanced",
            AtLeast(0.97),
            cheaper(Load::Send),
        ),
        target(
            "TCP bulk received: whole-node CPU/MiB, no mesh / balanced",
            AtLeast(0.97),
            cheaper(Load::Receive),
        ),
        target(
            "HTTP, 64 connections: requests/s, balanced and accelerated / no mesh",
            AtLeast(1.6),
            results.ratio(
                Load::Http64,
                Quantity::Rate,
                Kind::BalanceAccelerated,
                Kind::NoMesh,
            ),
        ),
    ]
}

/// The proxy where it only moves bytes.
fn of_bytes(results: &Results) -> Vec<Target> {
    use Bound::AtLeast;
    let http = |kind| results.ratio(Load::Opaque64, Quantity::Rate, kind, Kind::NoMesh);
    let bulk = |load| results.ratio(load, Quantity::Gbits, Kind::Accelerated, Kind::NoMesh);
    vec![
        target(
            "HTTP as bytes, 64 connections: requests/s, weir / no mesh",
            AtLeast(0.52),
            http(Kind::Weir),
        ),
        target(
            "HTTP as bytes, 64 connections: requests/s, weir accelerated / no mesh",
            AtLeast(0.75),
            http(Kind::Accelerated),
        ),
        target(
            "TCP bulk sent: Gbit/s, weir accelerated / no mesh",
            AtLeast(0.68),
            bulk(Load::Send),
        ),
        target(
            "TCP bulk received: Gbit/s, weir accelerated / no mesh",
            AtLeast(0.68),
            bulk(Load::Receive),
        ),
    ]
}

/// What a quick run promises, so that it is one.
pub(super) fn of_quick_run(took: Duration) -> Target {
    let minutes = took.as_secs_f64() / 60.0;
    target("quick run: minutes", Bound::AtMost(3.0), Some(minutes))
}

fn of_memory(memory: Option<Memory>) -> Vec<Target> {
    use Bound::AtMost;
    vec![
        target(
            "memory, idle: MiB",
            AtMost(20.0),
            memory.map(|memory| memory.idle / MIB),
        ),
        target(
            "memory, per idle connection: KiB",
            AtMost(16.0),
            memory.map(|memory| memory.per_connection / KIB),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_held_from_their_side() {
        let met = |bound, measured| {
            Target {
                what: "",
                bound,
                measured,
            }
            .is_met()
        };
        assert_eq!(met(Bound::AtMost(0.9), Some(0.9)), Some(true));
        assert_eq!(met(Bound::AtMost(0.9), Some(0.91)), Some(false));
        assert_eq!(met(Bound::AtLeast(1.1), Some(1.2)), Some(true));
        assert_eq!(met(Bound::AtLeast(1.1), Some(1.0)), Some(false));
        assert_eq!(met(Bound::AtLeast(1.1), None), None);
    }
}

//! What one `connect()` costs: in the hook, and for whoever calls it, by
//! verdict, while the configuration grows; beside firewalls of the same size.
//!
//! Owns the order: at each size every case is dialled in turn, round after round,
//! on the node that grows and on one that stays as small as it was. What growing
//! costs is told by such pairs, since the machine changes its mood between sizes.

mod beside;
mod case;
mod dial;
mod documents;
mod report;
mod site;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use testbed::Node;

use beside::Calls;
use case::{Axis, Case};
pub(super) use dial::run as run_dial;
pub(super) use report::{files, json, targets, text};
use site::{Site, Walled};

use super::hook::Statistics;
use super::result::median;

/// What was measured of one case at one size.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// The median call, in nanoseconds.
    call_ns: f64,
    /// The mean run of the hook, in nanoseconds; none without weir.
    hook_ns: Option<f64>,
    /// What that is of the mean run on the node that does not grow, dialled right
    /// before: the median over the turns.
    growth: Option<f64>,
}

/// Turns for each round of the bench: a turn is short, what is looked for is small,
/// and whatever else the machine does disturbs it.
const TURNS: u32 = 4;

/// A quick run has one turn in all: it is not there to be judged by.
const fn turns(rounds: u32, quick: bool) -> u32 {
    if quick { 1 } else { rounds * TURNS }
}

/// Everything that was measured: by axis and case, by size.
#[derive(Debug, Default)]
pub(super) struct Costs {
    curves: BTreeMap<(Axis, Case), BTreeMap<u32, Cost>>,
    calls: Calls,
}

impl Costs {
    fn curve(&self, axis: Axis, case: Case) -> Option<&BTreeMap<u32, Cost>> {
        self.curves.get(&(axis, case))
    }
}

/// Measures every curve.
pub(super) fn measure(rounds: u32, quick: bool) -> Result<Costs> {
    println!("connect, beside no mesh …");
    let turns = turns(rounds, quick);
    let mut costs = Costs {
        calls: Calls::measure(turns)?,
        ..Costs::default()
    };
    let statistics = Statistics::on()?;
    for axis in Axis::ALL {
        let (small, grown) = (Node::new()?, Node::new()?);
        let small = Site::new(&small)?;
        let mut grown = Site::new(&grown)?;
        for size in axis.sizes(quick) {
            println!("connect, {size} {} …", axis.title());
            grown.grow(axis, *size)?;
            let costs_of_weir = by_weir(&small, &grown, turns)
                .with_context(|| format!("connect, {size} {}", axis.title()))?;
            for (case, cost) in costs_of_weir {
                let curve = costs.curves.entry((axis, case)).or_default();
                curve.insert(*size, cost);
            }
        }
    }
    drop(statistics);
    past_firewalls(&mut costs, rounds, quick)?;
    Ok(costs)
}

/// Every case of weir in turn, on both nodes, `turns` times.
fn by_weir(small: &Site<'_>, grown: &Site<'_>, turns: u32) -> Result<BTreeMap<Case, Cost>> {
    let mut measured: BTreeMap<Case, Vec<Turn>> = BTreeMap::new();
    for _ in 0..turns {
        for case in Case::OF_WEIR {
            let (_, small_ns) = timed(small, case).context(case.title())?;
            let (call_ns, hook_ns) = timed(grown, case).context(case.title())?;
            measured.entry(case).or_default().push(Turn {
                call_ns,
                hook_ns,
                growth: hook_ns / small_ns,
            });
        }
    }
    Ok(measured
        .into_iter()
        .filter_map(|(case, turns)| Some((case, Cost::of(&turns)?)))
        .collect())
}

/// The median call and the mean run of the hook, in nanoseconds.
fn timed(site: &Site<'_>, case: Case) -> Result<(f64, f64)> {
    let (dialled, hook) = site.dial(case)?;
    let dialled = dialled.check(case == Case::Deny)?;
    Ok((dialled.p50_ns, hook.context("no hook ran")?))
}

/// One turn of a case, on the node that grows.
struct Turn {
    call_ns: f64,
    hook_ns: f64,
    growth: f64,
}

impl Cost {
    fn of(turns: &[Turn]) -> Option<Self> {
        let middle = |of: fn(&Turn) -> f64| {
            let values: Vec<f64> = turns.iter().map(of).collect();
            median(&values)
        };
        Some(Self {
            call_ns: middle(|turn| turn.call_ns)?,
            hook_ns: middle(|turn| turn.hook_ns),
            growth: middle(|turn| turn.growth),
        })
    }
}

fn past_firewalls(costs: &mut Costs, rounds: u32, quick: bool) -> Result<()> {
    let node = Node::new()?;
    let walled = Walled::new(&node)?;
    for case in [Case::Iptables, Case::Nftables] {
        for size in Axis::Rules.sizes(quick) {
            println!("connect, {}, {size} …", case.title());
            walled.wall(case, *size)?;
            let calls: Vec<f64> = (0..rounds)
                .map(|_| Ok(walled.dial()?.check(false)?.p50_ns))
                .collect::<Result<_>>()
                .with_context(|| format!("connect, {}, {size}", case.title()))?;
            if let Some(call_ns) = median(&calls) {
                let cost = Cost {
                    call_ns,
                    hook_ns: None,
                    growth: None,
                };
                let curve = costs.curves.entry((Axis::Rules, case)).or_default();
                curve.insert(*size, cost);
            }
        }
        walled.clear()?;
    }
    Ok(())
}

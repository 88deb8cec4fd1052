//! What one `connect()` costs: in the hook, and for whoever calls it, by
//! verdict, while the configuration grows; beside firewalls of the same size.
//!
//! Owns the order: at each size every case is dialled in turn, round after round.

mod beside;
mod case;
mod dial;
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
    let mut costs = Costs {
        calls: Calls::measure(rounds)?,
        ..Costs::default()
    };
    let statistics = Statistics::on()?;
    for axis in Axis::ALL {
        let node = Node::new()?;
        let mut site = Site::new(&node)?;
        for size in axis.sizes(quick) {
            println!("connect, {size} {} …", axis.title());
            site.grow(axis, *size)?;
            for (case, cost) in by_weir(&site, rounds)
                .with_context(|| format!("connect, {size} {}", axis.title()))?
            {
                let curve = costs.curves.entry((axis, case)).or_default();
                curve.insert(*size, cost);
            }
        }
    }
    drop(statistics);
    past_firewalls(&mut costs, rounds, quick)?;
    Ok(costs)
}

/// Every case of weir in turn, round after round.
fn by_weir(site: &Site<'_>, rounds: u32) -> Result<BTreeMap<Case, Cost>> {
    let mut calls: BTreeMap<Case, Vec<f64>> = BTreeMap::new();
    let mut hooks: BTreeMap<Case, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        for case in Case::OF_WEIR {
            let (dialled, hook) = site.dial(case)?;
            let dialled = dialled.check(case == Case::Deny).context(case.title())?;
            calls.entry(case).or_default().push(dialled.p50_ns);
            hooks.entry(case).or_default().extend(hook);
        }
    }
    Ok(calls
        .into_iter()
        .filter_map(|(case, calls)| {
            let cost = Cost {
                call_ns: median(&calls)?,
                hook_ns: median(hooks.get(&case)?),
            };
            Some((case, cost))
        })
        .collect())
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
                };
                let curve = costs.curves.entry((Axis::Rules, case)).or_default();
                curve.insert(*size, cost);
            }
        }
        walled.clear()?;
    }
    Ok(())
}
